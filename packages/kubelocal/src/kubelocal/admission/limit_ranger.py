"""LimitRanges: a namespace's default requests and limits of containers, and its bounds.

Source: the LimitRanger admission plug-in of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from kubelocal.admission.resource_quota import pod_needs
from kubelocal.codec.quantities import BINARY, DECIMAL, amount, written
from kubelocal.codec.status_errors import forbidden
from kubelocal.interfaces import Registry
from kubelocal.types import Manifest

__all__ = ["admit", "set_resources"]

ANNOTATION = "kubernetes.io/limit-ranger"
FIELDS = ("requests", "limits")
Resources: TypeAlias = Mapping[str, str]
Bound: TypeAlias = Callable[[str, str, str, Resources, Resources], str]
"""Maps a limit's type, a resource, its bound, and a container's requests and limits to a complaint or ""."""


def set_resources(pod: Manifest, registry: Registry) -> Manifest:
    """Set the default requests and limits of the namespace's LimitRanges on a pod's containers."""
    assigned = list[str]()
    for limit_range in registry.list("LimitRange", pod["metadata"]["namespace"]):
        defaults = {"requests": _merged(limit_range, "defaultRequest"), "limits": _merged(limit_range, "default")}
        for field, what in (("containers", "container"), ("initContainers", "init container")):
            for container in pod["spec"].get(field, ()):
                assigned += _complete(container, what, defaults)
    if assigned:
        annotations = pod["metadata"].setdefault("annotations", {})
        annotations[ANNOTATION] = f"LimitRanger plugin set: {'; '.join(assigned)}"
    return pod


def _merged(limit_range: Manifest, field: str) -> Resources:
    items = (item for item in _items(limit_range) if item.get("type") == "Container")
    return {name: text for item in items for name, text in item.get(field, {}).items()}


def _items(limit_range: Manifest) -> Sequence[Manifest]:
    return limit_range.get("spec", {}).get("limits") or ()


def _complete(container: Manifest, what: str, defaults: Mapping[str, Resources]) -> Iterator[str]:
    """Set the missing resources of a container; yield a description of each."""
    for field in FIELDS:
        present = container.get("resources", {}).get(field, {})
        missing_resources = sorted(defaults[field].keys() - present.keys())
        if missing_resources:
            added = {name: defaults[field][name] for name in missing_resources}
            container["resources"] = {**container.get("resources", {}), field: {**present, **added}}
            yield f"{', '.join(missing_resources)} {field.removesuffix('s')} for {what} {container['name']}"


def admit(new: Manifest, registry: Registry, old: Manifest | None = None) -> Sequence[str]:
    """Refuse (403) a new pod or claim that exceeds the bounds of a LimitRange."""
    if old is None and new["kind"] in ("Pod", "PersistentVolumeClaim"):
        for limit_range in registry.list("LimitRange", new["metadata"]["namespace"]):
            complain = _pod_complaints if new["kind"] == "Pod" else _claim_complaints
            complaints = [complaint for item in _items(limit_range) for complaint in complain(new, item)]
            if complaints:
                reason = complaints[0] if len(complaints) == 1 else f"[{', '.join(complaints)}]"
                raise forbidden(new["kind"], new["metadata"].get("name", ""), reason)
    return ()


def _pod_complaints(pod: Manifest, item: Manifest) -> Iterator[str]:
    spec, kind = pod["spec"], item.get("type", "")
    if kind == "Container":
        for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
            resources = container.get("resources", {})
            yield from _complaints(item, resources.get("requests", {}), resources.get("limits", {}))
    elif kind == "Pod":
        yield from _complaints(item, _summed(spec, "requests"), _summed(spec, "limits"))


def _summed(spec: Manifest, field: str) -> Resources:
    """Return a pod's total request of each resource that one of its containers names."""
    containers = (*spec.get("containers", ()), *spec.get("initContainers", ()))
    names = {name for container in containers for name in container.get("resources", {}).get(field, {})}
    return {name: written(pod_needs(spec, field, name), DECIMAL if name == "cpu" else BINARY) for name in names}


def _claim_complaints(claim: Manifest, item: Manifest) -> Iterator[str]:
    if item.get("type") == "PersistentVolumeClaim":
        requested = claim["spec"].get("resources", {}).get("requests", {})
        for name, bound in sorted(item.get("min", {}).items()):
            yield from filter(None, [_minimum(item["type"], name, bound, requested, {})])
        for name, bound in sorted(item.get("max", {}).items()):
            yield from filter(None, [_maximum_request(item["type"], name, bound, requested)])


def _complaints(item: Manifest, requests: Resources, limits: Resources) -> Iterator[str]:
    bounds: tuple[tuple[str, Bound], ...] = (("min", _minimum), ("max", _maximum), ("maxLimitRequestRatio", _ratio))
    for field, bound in bounds:
        for name, text in sorted(item.get(field, {}).items()):
            if complaint := bound(item["type"], name, text, requests, limits):
                yield complaint


def _minimum(kind: str, name: str, bound: str, requests: Resources, limits: Resources) -> str:
    rule = f"minimum {name} usage per {kind} is {bound}"
    if name not in requests:
        return f"{rule}.  No request is specified"
    if amount(requests[name]) < amount(bound):
        return f"{rule}, but request is {requests[name]}"
    if name in limits and amount(limits[name]) < amount(bound):
        return f"{rule}, but limit is {limits[name]}"
    return ""


def _maximum(kind: str, name: str, bound: str, requests: Resources, limits: Resources) -> str:
    rule = f"maximum {name} usage per {kind} is {bound}"
    if name not in limits:
        return f"{rule}.  No limit is specified"
    if amount(limits[name]) > amount(bound):
        return f"{rule}, but limit is {limits[name]}"
    if name in requests and amount(requests[name]) > amount(bound):
        return f"{rule}, but request is {requests[name]}"
    return ""


def _maximum_request(kind: str, name: str, bound: str, requests: Resources) -> str:
    rule = f"maximum {name} usage per {kind} is {bound}"
    if name not in requests:
        return f"{rule}.  No request is specified"
    return f"{rule}, but request is {requests[name]}" if amount(requests[name]) > amount(bound) else ""


def _ratio(kind: str, name: str, bound: str, requests: Resources, limits: Resources) -> str:
    rule = f"{name} max limit to request ratio per {kind} is {bound}"
    if not (request := amount(requests.get(name, "0"))):
        return f"{rule}, but no request is specified or request is 0"
    if not (limit := amount(limits.get(name, "0"))):
        return f"{rule}, but no limit is specified or limit is 0"
    ratio = limit / request
    return f"{rule}, but provided ratio is {float(ratio):f}" if ratio > amount(bound) else ""
