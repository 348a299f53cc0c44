"""The cluster roles and bindings that every cluster has from its start.

Source: ``plugin/pkg/auth/authorizer/rbac/bootstrappolicy/policy.go`` of Kubernetes 1.36, as far as the resources are
served.
"""

from __future__ import annotations

from kubelocal.types import Manifest

__all__ = ["BOOTSTRAP", "MASTERS", "RBAC"]

RBAC = "rbac.authorization.k8s.io"
MASTERS = "system:masters"
OPEN_PATHS = ("/healthz", "/livez", "/readyz", "/version", "/version/")
DISCOVERY_PATHS = ("/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", *OPEN_PATHS)

ALL, READ = ["*"], ["get", "list", "watch"]
WRITE = ["create", "delete", "deletecollection", "patch", "update"]
WORKLOADS = ["daemonsets", "deployments", "replicasets", "statefulsets"]
SCALES = ["deployments/scale", "replicasets/scale", "statefulsets/scale"]
STREAMS = ["pods/attach", "pods/exec", "pods/portforward"]
OBJECTS = ["configmaps", "persistentvolumeclaims", "serviceaccounts", "services"]
STATES = ["limitranges", "namespaces/status", "pods/log", "pods/status", "resourcequotas", "resourcequotas/status"]


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> Manifest:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


def _with_status(resources: list[str]) -> list[str]:
    return [*resources, *(f"{resource}/status" for resource in resources)]


VIEW = [
    _rule([""], [*OBJECTS, "persistentvolumeclaims/status", "pods", "services/status"], READ),
    _rule([""], [*STATES, "events", "namespaces"], READ),
    _rule(["discovery.k8s.io"], ["endpointslices"], READ),
    _rule(["apps"], [*_with_status(WORKLOADS), *SCALES], READ),
    _rule(["batch"], _with_status(["cronjobs", "jobs"]), READ),
    _rule(["policy"], _with_status(["poddisruptionbudgets"]), READ),
    _rule(["networking.k8s.io"], [*_with_status(["ingresses"]), "networkpolicies"], READ),
]
EDIT = [
    _rule([""], [*STREAMS, "secrets"], READ),
    _rule([""], ["serviceaccounts"], ["impersonate"]),
    _rule([""], ["pods", *STREAMS], WRITE),
    _rule([""], ["pods/eviction", "serviceaccounts/token"], ["create"]),
    _rule([""], [*OBJECTS, "events", "secrets"], WRITE),
    _rule(["apps"], [*WORKLOADS, *SCALES], WRITE),
    _rule(["batch"], ["cronjobs", "jobs"], WRITE),
    _rule(["policy"], ["poddisruptionbudgets"], WRITE),
    _rule(["networking.k8s.io"], ["ingresses", "networkpolicies"], WRITE),
    _rule(["coordination.k8s.io"], ["leases"], [*READ, *WRITE]),
]
ADMIN = [_rule([RBAC], ["rolebindings", "roles"], [*READ, *WRITE])]
ROLES: dict[str, list[Manifest]] = {
    "cluster-admin": [_rule(ALL, ALL, ALL), {"nonResourceURLs": ALL, "verbs": ALL}],
    "system:aggregate-to-admin": ADMIN,
    "system:aggregate-to-edit": EDIT,
    "system:aggregate-to-view": VIEW,
    "system:basic-user": [
        _rule(["authorization.k8s.io"], ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], ["create"]),
        _rule(["authentication.k8s.io"], ["selfsubjectreviews"], ["create"]),
    ],
    "system:discovery": [{"nonResourceURLs": list(DISCOVERY_PATHS), "verbs": ["get"]}],
    "system:public-info-viewer": [{"nonResourceURLs": list(OPEN_PATHS), "verbs": ["get"]}],
}
AGGREGATED: dict[str, list[Manifest]] = {
    "admin": [*ADMIN, *EDIT, *VIEW],
    "edit": [*EDIT, *VIEW],
    "view": VIEW,
}
"""The rules with which these roles begin, for those that read them. The authorizer reads the roles that they select."""
AGGREGATED_INTO = {
    "system:aggregate-to-admin": "admin",
    "system:aggregate-to-edit": "edit",
    "system:aggregate-to-view": "view",
    "edit": "admin",
    "view": "edit",
}
ROLE_BINDINGS = {
    "cluster-admin": (MASTERS,),
    "system:basic-user": ("system:authenticated",),
    "system:discovery": ("system:authenticated",),
    "system:public-info-viewer": ("system:authenticated", "system:unauthenticated"),
}


def _label(name: str) -> dict[str, str]:
    """Return the label by which a role joins the aggregated role of this name."""
    return {f"{RBAC}/aggregate-to-{name}": "true"}


def _bootstrap(name: str, kind: str) -> Manifest:
    labels = {"kubernetes.io/bootstrapping": "rbac-defaults"}
    if kind == "ClusterRole" and name in AGGREGATED_INTO:
        labels |= _label(AGGREGATED_INTO[name])
    return {"kind": kind, "apiVersion": f"{RBAC}/v1", "metadata": {"name": name, "labels": labels}}


def _aggregated(name: str, rules: list[Manifest]) -> Manifest:
    rule = {"clusterRoleSelectors": [{"matchLabels": _label(name)}]}
    return {**_bootstrap(name, "ClusterRole"), "aggregationRule": rule, "rules": rules}


BOOTSTRAP: list[Manifest] = [
    *({**_bootstrap(name, "ClusterRole"), "rules": rules} for name, rules in ROLES.items()),
    *(_aggregated(name, rules) for name, rules in AGGREGATED.items()),
    *(
        {
            **_bootstrap(name, "ClusterRoleBinding"),
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": group} for group in groups],
        }
        for name, groups in ROLE_BINDINGS.items()
    ),
]
"""The cluster roles and bindings that every cluster creates when it starts."""
