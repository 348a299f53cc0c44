"""The served kinds as data: names, paths, verbs and subresources."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

__all__ = ["BODIES", "EVENTS", "GROUP_VERSIONS", "KINDS", "RESOURCES", "SERVED", "VERSION", "Kind", "Subresource"]

VERSION = "v1.36.2+crosswind"
"""The release of Kubernetes whose behaviour is served."""

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
CREATE = ("create",)
CHANGE = ("get", "patch", "update")
CONNECT = ("create", "get")


@dataclass(frozen=True)
class Subresource:
    """A subresource; ``body`` is the kind of its requests and responses, "" for the object's own."""

    name: str
    verbs: tuple[str, ...]
    body: str = ""


STATUS = Subresource("status", CHANGE)
SCALE = Subresource("scale", CHANGE, "Scale")


@dataclass(frozen=True)
class Kind:
    """A kind. ``group`` is "" for the core group; ``stored`` is False for kinds that are answered and not kept."""

    kind: str
    plural: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[Subresource, ...] = ()

    @cached_property
    def api_version(self) -> str:
        """``v1`` or ``batch/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @cached_property
    def qualified(self) -> str:
        """``pods`` or ``jobs.batch``, as messages name a resource."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @cached_property
    def singular(self) -> str:
        """``pod``."""
        return self.kind.lower()

    @cached_property
    def stored(self) -> bool:
        """Whether objects of this kind are stored."""
        return "get" in self.verbs

    @cached_property
    def parts(self) -> dict[str, Subresource]:
        """Subresources by name."""
        return {part.name: part for part in self.subresources}

    @cached_property
    def path(self) -> str:
        """``/api/v1`` or ``/apis/batch/v1``."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"


RBAC = "rbac.authorization.k8s.io"
AUTHORIZATION = "authorization.k8s.io"
AUTHENTICATION = "authentication.k8s.io"

_POD_PARTS = (
    Subresource("attach", CONNECT, "PodAttachOptions"),
    Subresource("binding", CREATE, "Binding"),
    Subresource("ephemeralcontainers", CHANGE),
    Subresource("eviction", CREATE, "Eviction"),
    Subresource("exec", CONNECT, "PodExecOptions"),
    Subresource("log", ("get",)),
    Subresource("portforward", CONNECT, "PodPortForwardOptions"),
    STATUS,
)

_ALL = (
    Kind("ConfigMap", "configmaps", short_names=("cm",)),
    Kind("Event", "events", short_names=("ev",)),
    Kind("LimitRange", "limitranges", short_names=("limits",)),
    Kind(
        "Namespace",
        "namespaces",
        namespaced=False,
        short_names=("ns",),
        verbs=tuple(verb for verb in ALL_VERBS if verb != "deletecollection"),
        subresources=(Subresource("finalize", ("update",)), STATUS),
    ),
    Kind("Node", "nodes", namespaced=False, short_names=("no",), subresources=(STATUS,)),
    Kind("PersistentVolumeClaim", "persistentvolumeclaims", short_names=("pvc",), subresources=(STATUS,)),
    Kind("PersistentVolume", "persistentvolumes", namespaced=False, short_names=("pv",), subresources=(STATUS,)),
    Kind("Pod", "pods", short_names=("po",), categories=("all",), subresources=_POD_PARTS),
    Kind("ResourceQuota", "resourcequotas", short_names=("quota",), subresources=(STATUS,)),
    Kind("Secret", "secrets"),
    Kind(
        "ServiceAccount",
        "serviceaccounts",
        short_names=("sa",),
        subresources=(Subresource("token", CREATE, "TokenRequest"),),
    ),
    Kind("Service", "services", short_names=("svc",), categories=("all",), subresources=(STATUS,)),
    Kind("Job", "jobs", "batch", categories=("all",), subresources=(STATUS,)),
    Kind("CronJob", "cronjobs", "batch", short_names=("cj",), categories=("all",), subresources=(STATUS,)),
    Kind("ReplicaSet", "replicasets", "apps", short_names=("rs",), categories=("all",), subresources=(SCALE, STATUS)),
    Kind("DaemonSet", "daemonsets", "apps", short_names=("ds",), categories=("all",), subresources=(STATUS,)),
    Kind(
        "Deployment", "deployments", "apps", short_names=("deploy",), categories=("all",), subresources=(SCALE, STATUS)
    ),
    Kind(
        "StatefulSet", "statefulsets", "apps", short_names=("sts",), categories=("all",), subresources=(SCALE, STATUS)
    ),
    Kind("EndpointSlice", "endpointslices", "discovery.k8s.io"),
    Kind("Ingress", "ingresses", "networking.k8s.io", short_names=("ing",), subresources=(STATUS,)),
    Kind("NetworkPolicy", "networkpolicies", "networking.k8s.io", short_names=("netpol",)),
    Kind("PodDisruptionBudget", "poddisruptionbudgets", "policy", short_names=("pdb",), subresources=(STATUS,)),
    Kind("StorageClass", "storageclasses", "storage.k8s.io", namespaced=False, short_names=("sc",)),
    Kind("AuthorizationPolicy", "authorizationpolicies", "security.istio.io", subresources=(STATUS,)),
    Kind("ExternalSecret", "externalsecrets", "external-secrets.io", short_names=("es",), subresources=(STATUS,)),
    Kind("PeerAuthentication", "peerauthentications", "security.istio.io", short_names=("pa",), subresources=(STATUS,)),
    Kind("PrometheusRule", "prometheusrules", "monitoring.coreos.com", short_names=("promrule",)),
    Kind(
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
        "admissionregistration.k8s.io",
        namespaced=False,
        subresources=(STATUS,),
    ),
    Kind(
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        "admissionregistration.k8s.io",
        namespaced=False,
    ),
    Kind("ServiceEntry", "serviceentries", "networking.istio.io", short_names=("se",), subresources=(STATUS,)),
    Kind("VirtualService", "virtualservices", "networking.istio.io", short_names=("vs",), subresources=(STATUS,)),
    Kind("Lease", "leases", "coordination.k8s.io"),
    Kind("PriorityClass", "priorityclasses", "scheduling.k8s.io", namespaced=False, short_names=("pc",)),
    Kind("Role", "roles", RBAC),
    Kind("RoleBinding", "rolebindings", RBAC),
    Kind("ClusterRole", "clusterroles", RBAC, namespaced=False),
    Kind("ClusterRoleBinding", "clusterrolebindings", RBAC, namespaced=False),
    Kind("SelfSubjectReview", "selfsubjectreviews", AUTHENTICATION, namespaced=False, verbs=CREATE),
    Kind("SelfSubjectRulesReview", "selfsubjectrulesreviews", AUTHORIZATION, namespaced=False, verbs=CREATE),
    Kind("SelfSubjectAccessReview", "selfsubjectaccessreviews", AUTHORIZATION, namespaced=False, verbs=CREATE),
    Kind("SubjectAccessReview", "subjectaccessreviews", AUTHORIZATION, namespaced=False, verbs=CREATE),
)

KINDS: dict[str, Kind] = {kind.kind: kind for kind in _ALL}
"""Kinds that are stored or answered, by name."""

BODIES: dict[str, Kind] = {
    kind.kind: kind
    for kind in (
        Kind("Binding", "bindings", verbs=CREATE),
        Kind("Eviction", "evictions", "policy", verbs=CREATE),
        Kind("TokenRequest", "tokenrequests", AUTHENTICATION, verbs=CREATE),
        Kind("DeleteOptions", "deleteoptions", verbs=()),
        Kind("Scale", "scales", "autoscaling", verbs=()),
    )
}
"""Kinds that only occur in requests."""

EVENTS = Kind("Event", "events", "events.k8s.io", short_names=("ev",))
"""The Events of the core group under another name; see ``api.conversion``."""

SERVED = (*_ALL, EVENTS)
"""Kinds that have a path."""

RESOURCES: dict[tuple[str, str, str], Kind] = {(kind.group, kind.version, kind.plural): kind for kind in SERVED}
"""Kinds by group, version and plural, as a path names them."""

GROUP_VERSIONS: tuple[tuple[str, str], ...] = tuple(dict.fromkeys((kind.group, kind.version) for kind in SERVED))
"""Each group and version that is served; the core group, "", is first."""
