"""Resource quotas: the usage of a namespace, and the refusal of objects that exceed a quota.

Usage is computed from the objects each time, so that it cannot drift. Source: ``pkg/quota/v1`` and the ResourceQuota
admission plug-in of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from math import ceil

from kubelocal.codec.kinds import KINDS
from kubelocal.codec.quantities import BINARY, DECIMAL, amount, written
from kubelocal.codec.status_errors import forbidden
from kubelocal.interfaces import Registry
from kubelocal.types import Manifest

__all__ = ["admit", "limited_kinds", "pod_needs", "used"]

COMPUTED = ("cpu", "memory", "ephemeral-storage")
PLAIN_COUNTS = {kind.plural: kind for kind in KINDS.values() if kind.stored and kind.namespaced and not kind.group}
COUNTS = {f"count/{kind.qualified}": kind for kind in KINDS.values() if kind.stored and kind.namespaced}
TERMINAL = ("Succeeded", "Failed")
CLASS_SUFFIX = ".storageclass.storage.k8s.io/"
OLD_CLASS = "volume.beta.kubernetes.io/storage-class"
KINDS_CHECKED_ON_UPDATE = ("PersistentVolumeClaim", "Service")
"""Kinds whose change may need more of a quota: a larger claim, another type of a Service."""


def admit(manifest: Manifest, registry: Registry, old: Manifest | None = None) -> Sequence[str]:
    """Refuse (403) an object that would exceed a quota, and a pod without a request or limit that a quota counts.

    Of a changed object only what it needs beyond its old state counts.
    """
    namespace = manifest["metadata"].get("namespace", "")
    if not namespace or (old is not None and manifest["kind"] not in KINDS_CHECKED_ON_UPDATE):
        return ()
    kind, name = manifest["kind"], manifest["metadata"].get("name", "")
    for quota in registry.list("ResourceQuota", namespace):
        hard = quota["spec"].get("hard", {})
        if not _in_scope(quota["spec"], manifest):
            continue
        if kind == "Pod" and (unspecified := _unspecified(manifest, hard)):
            why = "; ".join(f"{key} for: {','.join(names)}" for key, names in unspecified.items())
            raise forbidden(kind, name, f"failed quota: {quota['metadata']['name']}: must specify {why}")
        before = _usage(old, hard) if old is not None else {}
        needed = {
            key: more for key, value in _usage(manifest, hard).items() if (more := value - before.get(key, 0)) > 0
        }
        if needed:
            _check(quota, needed, _total(registry, quota), kind, name)
    return ()


def used(registry: Registry, quota: Manifest) -> dict[str, str]:
    """Return the usage of each resource that a quota limits."""
    hard = quota["spec"].get("hard", {})
    return {key: _write(key, value) for key, value in _total(registry, quota).items() if key in hard}


def _check(
    quota: Manifest, needed: Mapping[str, Fraction], total: Mapping[str, Fraction], kind: str, name: str
) -> None:
    hard = quota["spec"]["hard"]
    over = sorted(key for key, value in needed.items() if total[key] + value > amount(hard[key]))
    if over:
        columns = {
            "requested": {key: _write(key, needed[key]) for key in over},
            "used": {key: _write(key, total[key]) for key in over},
            "limited": {key: hard[key] for key in over},
        }
        shortages = ", ".join(
            f"{title}: {','.join(f'{key}={value}' for key, value in column.items())}"
            for title, column in columns.items()
        )
        raise forbidden(kind, name, f"exceeded quota: {quota['metadata']['name']}, {shortages}")


def _total(registry: Registry, quota: Manifest) -> dict[str, Fraction]:
    spec, namespace = quota["spec"], quota["metadata"]["namespace"]
    hard = spec.get("hard", {})
    total = dict.fromkeys(hard, Fraction())
    for kind in sorted(limited_kinds(hard)):
        for manifest in registry.list(kind, namespace):
            if _in_scope(spec, manifest):
                for key, value in _usage(manifest, hard).items():
                    total[key] += value
    return total


def limited_kinds(hard: Iterable[str]) -> set[str]:
    """Return the kinds whose objects a quota counts."""
    kinds = {(PLAIN_COUNTS.get(key) or COUNTS[key]).kind for key in hard if key in PLAIN_COUNTS or key in COUNTS}
    return kinds | {kind for kind, (is_own, _) in USAGES.items() if any(map(is_own, hard))}


def _usage(manifest: Manifest, hard: Iterable[str]) -> dict[str, Fraction]:
    """Return an object's usage of each limited resource."""
    kind = manifest["kind"]
    ended = kind == "Pod" and manifest.get("status", {}).get("phase") in TERMINAL
    is_own, needs = USAGES.get(kind, (lambda _: False, _pod_usage))
    usage: dict[str, Fraction] = {}
    for key in hard:
        if key in COUNTS:
            usage[key] = Fraction(COUNTS[key].kind == kind)
        elif key in PLAIN_COUNTS:
            usage[key] = Fraction(PLAIN_COUNTS[key].kind == kind and not ended)
        elif is_own(key) and not ended:
            usage[key] = needs(manifest, key)
    return usage


def _resource(key: str) -> tuple[str, str] | None:
    """Read ``requests.cpu``, ``limits.memory`` or ``cpu`` as the field and name of a resource."""
    field, dot, name = key.partition(".")
    if dot and field in ("requests", "limits") and name != "storage" and not _is_of_claims(key):
        return field, name
    return ("requests", key) if key in COMPUTED else None


def pod_needs(spec: Manifest, field: str, name: str) -> Fraction:
    """Return a pod's peak request or limit (KEP-753): containers and native sidecars, or an init container."""

    def of(container: Manifest) -> Fraction:
        return amount(container.get("resources", {}).get(field, {}).get(name, "0"))

    regular = sum((of(container) for container in spec.get("containers", ())), Fraction())
    sidecars = peak = Fraction()
    for container in spec.get("initContainers", ()):
        if container.get("restartPolicy") == "Always":
            sidecars += of(container)
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + of(container))
    return max(peak, regular + sidecars) + amount(spec.get("overhead", {}).get(name, "0"))


def _pod_usage(pod: Manifest, key: str) -> Fraction:
    resource = _resource(key)
    return pod_needs(pod["spec"], *resource) if resource else Fraction()


def _is_of_claims(key: str) -> bool:
    """Whether a resource is the storage of claims, or the claims of a storage class."""
    of_class = key.endswith((f"{CLASS_SUFFIX}requests.storage", f"{CLASS_SUFFIX}persistentvolumeclaims"))
    return of_class or key == "requests.storage"


def _claim_usage(claim: Manifest, key: str) -> Fraction:
    of_class, suffix, counted = key.partition(CLASS_SUFFIX)
    annotations, spec = claim["metadata"].get("annotations") or {}, claim.get("spec") or {}
    if suffix and of_class != (annotations.get(OLD_CLASS) or spec.get("storageClassName")):
        return Fraction()
    if counted == "persistentvolumeclaims":
        return Fraction(1)
    requests = (spec.get("resources") or {}).get("requests") or {}
    return amount(requests.get("storage", "0"))


def _is_of_services(key: str) -> bool:
    return key in ("services.loadbalancers", "services.nodeports")


def _service_usage(service: Manifest, key: str) -> Fraction:
    """Return how many load balancers or node ports the type of a Service asks for, whether there are any or not."""
    spec = service.get("spec") or {}
    balanced = spec.get("type") == "LoadBalancer"
    if key == "services.loadbalancers":
        return Fraction(balanced)
    ports = spec.get("ports") or ()
    if balanced and spec.get("allocateLoadBalancerNodePorts") is False:
        return Fraction(sum(bool(port.get("nodePort")) for port in ports))
    return Fraction(len(ports) if balanced or spec.get("type") == "NodePort" else 0)


USAGES: dict[str, tuple[Callable[[str], object], Callable[[Manifest, str], Fraction]]] = {
    "Pod": (_resource, _pod_usage),
    "PersistentVolumeClaim": (_is_of_claims, _claim_usage),
    "Service": (_is_of_services, _service_usage),
}
"""By kind: which resources beside counts of objects are its own, and how much of one an object needs."""


def _unspecified(pod: Manifest, hard: Iterable[str]) -> dict[str, list[str]]:
    """Return the containers without a request or limit of cpu or memory that a quota counts."""
    unspecified: dict[str, list[str]] = {}
    containers = [*pod["spec"].get("containers", ()), *pod["spec"].get("initContainers", ())]
    for key in sorted(hard):
        field, name = _resource(key) or ("", "")
        if name in ("cpu", "memory"):
            names = [item["name"] for item in containers if name not in item.get("resources", {}).get(field, {})]
            unspecified |= {key: names} if names else {}
    return unspecified


SCOPES: dict[str, Callable[[Manifest], bool]] = {
    "Terminating": lambda spec: "activeDeadlineSeconds" in spec,
    "NotTerminating": lambda spec: "activeDeadlineSeconds" not in spec,
    "PriorityClass": lambda spec: bool(spec.get("priorityClassName")),
}


def _in_scope(spec: Manifest, manifest: Manifest) -> bool:
    """Whether a quota counts an object; scopes apply to pods only."""
    if manifest["kind"] != "Pod":
        return True
    scopes = [(scope, "Exists", ()) for scope in spec.get("scopes", ())]
    scopes += [
        (expression.get("scopeName", ""), expression.get("operator", ""), expression.get("values", ()))
        for expression in spec.get("scopeSelector", {}).get("matchExpressions", ())
    ]
    return all(_has_scope(manifest, *scope) for scope in scopes)


def _has_scope(pod: Manifest, scope: str, operator: str, values: Iterable[str]) -> bool:
    if scope in ("BestEffort", "NotBestEffort"):
        return (pod.get("status", {}).get("qosClass") == "BestEffort") is (scope == "BestEffort")
    if operator in ("In", "NotIn"):
        return (pod["spec"].get("priorityClassName") in values) is (operator == "In")
    has = scope in SCOPES and SCOPES[scope](pod["spec"])
    return not has if operator == "DoesNotExist" else has


def _write(key: str, value: Fraction) -> str:
    """Write memory and storage with binary suffixes such as ``Gi``, all else with decimal ones."""
    binary = key.endswith(("memory", "storage"))
    return written(Fraction(ceil(value)) if binary else value, BINARY if binary else DECIMAL)
