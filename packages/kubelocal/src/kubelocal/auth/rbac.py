"""Role-based access control by the cluster's roles and bindings.

Source: ``plugin/pkg/auth/authorizer/rbac`` of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kubelocal.auth.users import User
from kubelocal.codec.status_errors import StatusError
from kubelocal.interfaces import Registry
from kubelocal.types import Manifest

__all__ = ["BOOTSTRAP", "Authorizer"]

RBAC = "rbac.authorization.k8s.io"
MASTERS = "system:masters"
OPEN_PATHS = ("/healthz", "/livez", "/readyz", "/version", "/version/")
DISCOVERY_PATHS = ("/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", *OPEN_PATHS)


@dataclass(frozen=True, slots=True)
class AccessAttributes:
    """The action to decide on: a verb on a resource, or on a path that is no resource."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


class Authorizer:
    """Decides by the present roles and bindings in the registry; ``system:masters`` may do anything."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def allowed(
        self, user: User, verb: str, group: str, resource: str, subresource: str, namespace: str, name: str
    ) -> bool:
        """Whether a user may use a verb on a resource; ``namespace`` "": cluster-wide, ``name`` "": all."""
        return self._decide(user, AccessAttributes(verb, group, resource, subresource, namespace, name))

    def allowed_path(self, user: User, verb: str, path: str) -> bool:
        """Whether a user may use a verb on a path that is no resource, such as ``/version``."""
        return self._decide(user, AccessAttributes(verb, path=path))

    def rules(self, user: User, namespace: str) -> Iterator[Manifest]:
        """Yield the rules that bindings of the namespace and of the whole cluster grant to a user."""
        for binding, within in self._bindings(namespace):
            if any(_is(user, subject, within) for subject in binding.get("subjects", ())):
                yield from self._rules(binding["roleRef"], within)

    def _decide(self, user: User, question: AccessAttributes) -> bool:
        return MASTERS in user.groups or any(_covers(rule, question) for rule in self.rules(user, question.namespace))

    def _bindings(self, namespace: str) -> Iterator[tuple[Manifest, str]]:
        for binding in self._registry.list("ClusterRoleBinding"):
            yield binding, ""
        if namespace:
            for binding in self._registry.list("RoleBinding", namespace):
                yield binding, namespace

    def _rules(self, reference: Manifest, namespace: str) -> Sequence[Manifest]:
        kind = reference["kind"]
        try:
            role = self._registry.get(kind, namespace if kind == "Role" else "", reference["name"])
        except StatusError:
            return ()
        if selectors := (role.get("aggregationRule") or {}).get("clusterRoleSelectors"):
            others = self._registry.list("ClusterRole")
            return [
                rule
                for other in others
                if any(_labelled(other, selector.get("matchLabels", {})) for selector in selectors)
                for rule in other.get("rules", ())
            ]
        rules: Sequence[Manifest] = role.get("rules") or ()
        return rules


def _labelled(role: Manifest, value: dict[str, str]) -> bool:
    return bool(value.items() <= role["metadata"].get("labels", {}).items())


def _is(user: User, subject: Manifest, namespace: str) -> bool:
    name = subject["name"]
    match subject["kind"]:
        case "User":
            return bool(user.username == name)
        case "Group":
            return name in user.groups
    return user.username == f"system:serviceaccount:{subject.get('namespace') or namespace}:{name}"


def _covers(rule: Manifest, question: AccessAttributes) -> bool:
    if not _has(rule.get("verbs", ()), question.verb):
        return False
    if question.path:
        return any(_path_matches(pattern, question.path) for pattern in rule.get("nonResourceURLs", ()))
    names = rule.get("resourceNames")
    return (
        _has(rule.get("apiGroups", ()), question.group)
        and _has_resource(rule.get("resources", ()), question)
        and (not names or question.name in names)
    )


def _has(listed: Sequence[str], value: str) -> bool:
    return value in listed or "*" in listed


def _has_resource(listed: Sequence[str], question: AccessAttributes) -> bool:
    if not question.subresource:
        return _has(listed, question.resource)
    return _has(listed, f"{question.resource}/{question.subresource}") or f"*/{question.subresource}" in listed


def _path_matches(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))


# ---------------------------------------------------------------------------------------------- bootstrap roles

ALL, READ = ["*"], ["get", "list", "watch"]
WRITE = ["create", "delete", "deletecollection", "patch", "update"]
CORE = [
    "configmaps",
    "events",
    "persistentvolumeclaims",
    "pods",
    "pods/attach",
    "pods/ephemeralcontainers",
    "pods/eviction",
    "pods/exec",
    "pods/portforward",
    "secrets",
    "serviceaccounts",
    "services",
]
VIEWED = [name for name in CORE if name != "secrets" and "/" not in name]
STATES = ["limitranges", "namespaces", "pods/log", "pods/status", "resourcequotas", "resourcequotas/status"]


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> Manifest:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


VIEW = [_rule([""], [*VIEWED, *STATES], READ), _rule(["batch"], ["jobs", "jobs/status"], READ)]
EDIT = [
    *VIEW,
    _rule([""], ["secrets", *CORE], READ),
    _rule([""], CORE, WRITE),
    _rule([""], ["serviceaccounts/token"], ["create"]),
    _rule(["batch"], ["jobs"], WRITE),
    _rule(["coordination.k8s.io"], ["leases"], [*READ, *WRITE]),
]
ADMIN = [*EDIT, _rule([RBAC], ["roles", "rolebindings"], [*READ, *WRITE])]
ROLES: dict[str, list[Manifest]] = {
    "cluster-admin": [_rule(ALL, ALL, ALL), {"nonResourceURLs": ALL, "verbs": ALL}],
    "admin": ADMIN,
    "edit": EDIT,
    "view": VIEW,
    "system:basic-user": [
        _rule(["authorization.k8s.io"], ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], ["create"]),
        _rule(["authentication.k8s.io"], ["selfsubjectreviews"], ["create"]),
    ],
    "system:discovery": [{"nonResourceURLs": list(DISCOVERY_PATHS), "verbs": ["get"]}],
    "system:public-info-viewer": [{"nonResourceURLs": list(OPEN_PATHS), "verbs": ["get"]}],
}
ROLE_BINDINGS = {
    "cluster-admin": (MASTERS,),
    "system:basic-user": ("system:authenticated",),
    "system:discovery": ("system:authenticated",),
    "system:public-info-viewer": ("system:authenticated", "system:unauthenticated"),
}


def _bootstrap(name: str, kind: str) -> Manifest:
    labels = {"kubernetes.io/bootstrapping": "rbac-defaults"}
    return {"kind": kind, "apiVersion": f"{RBAC}/v1", "metadata": {"name": name, "labels": labels}}


BOOTSTRAP: list[Manifest] = [
    *({**_bootstrap(name, "ClusterRole"), "rules": rules} for name, rules in ROLES.items()),
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
