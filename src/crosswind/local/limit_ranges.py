"""LimitRanges: the requests and limits that a namespace gives its containers, and the refusal of what is beyond them.

Source: the LimitRanger admission plug-in of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from crosswind.local.quantities import BINARY, DECIMAL, amount, written
from crosswind.local.quota import pod_needs
from crosswind.local.seams import Registry
from crosswind.local.statuses import forbidden
from crosswind.types import Manifest

__all__ = ["admit", "set_resources"]

ANNOTATION = "kubernetes.io/limit-ranger"
FIELDS = ("requests", "limits")
Resources: TypeAlias = Mapping[str, str]
Bound: TypeAlias = Callable[[str, str, str, Resources, Resources], str]
"""From a limit's type, a resource, its bound, and the requests and limits that are given, to a complaint or ""."""


def set_resources(pod: Manifest, registry: Registry) -> Manifest:
    """Give a pod's containers the requests and limits of the namespace's LimitRanges that they do not name."""
    told = list[str]()
    for limit_range in registry.list("LimitRange", pod["metadata"]["namespace"]):
        defaults = {"requests": _merged(limit_range, "defaultRequest"), "limits": _merged(limit_range, "default")}
        for field, what in (("containers", "container"), ("initContainers", "init container")):
            for container in pod["spec"].get(field, ()):
                told += _complete(container, what, defaults)
    if told:
        annotations = pod["metadata"].setdefault("annotations", {})
        annotations[ANNOTATION] = f"LimitRanger plugin set: {'; '.join(told)}"
    return pod


def _merged(limit_range: Manifest, field: str) -> Resources:
    items = (item for item in _items(limit_range) if item.get("type") == "Container")
    return {name: text for item in items for name, text in item.get(field, {}).items()}


def _items(limit_range: Manifest) -> Sequence[Manifest]:
    return limit_range.get("spec", {}).get("limits") or ()


def _complete(container: Manifest, what: str, defaults: Mapping[str, Resources]) -> Iterator[str]:
    """Set what a container lacks; yield what was set."""
    for field in FIELDS:
        given = container.get("resources", {}).get(field, {})
        lacking = sorted(defaults[field].keys() - given.keys())
        if lacking:
            added = {name: defaults[field][name] for name in lacking}
            container["resources"] = {**container.get("resources", {}), field: {**given, **added}}
            yield f"{', '.join(lacking)} {field.removesuffix('s')} for {what} {container['name']}"


def admit(new: Manifest, registry: Registry, old: Manifest | None = None) -> Sequence[str]:
    """Refuse (403) a new pod or claim that is beyond the bounds of a LimitRange."""
    if old is None and new["kind"] in ("Pod", "PersistentVolumeClaim"):
        for limit_range in registry.list("LimitRange", new["metadata"]["namespace"]):
            judge = _pod_complaints if new["kind"] == "Pod" else _claim_complaints
            found = [complaint for item in _items(limit_range) for complaint in judge(new, item)]
            if found:
                told = found[0] if len(found) == 1 else f"[{', '.join(found)}]"
                raise forbidden(new["kind"], new["metadata"].get("name", ""), told)
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
    """Return what a pod as a whole asks for, of each resource that one of its containers names."""
    containers = (*spec.get("containers", ()), *spec.get("initContainers", ()))
    names = {name for container in containers for name in container.get("resources", {}).get(field, {})}
    return {name: written(pod_needs(spec, field, name), DECIMAL if name == "cpu" else BINARY) for name in names}


def _claim_complaints(claim: Manifest, item: Manifest) -> Iterator[str]:
    if item.get("type") == "PersistentVolumeClaim":
        asked = claim["spec"].get("resources", {}).get("requests", {})
        for name, bound in sorted(item.get("min", {}).items()):
            yield from filter(None, [_minimum(item["type"], name, bound, asked, {})])
        for name, bound in sorted(item.get("max", {}).items()):
            yield from filter(None, [_maximum_request(item["type"], name, bound, asked)])


def _complaints(item: Manifest, requests: Resources, limits: Resources) -> Iterator[str]:
    bounds: tuple[tuple[str, Bound], ...] = (("min", _minimum), ("max", _maximum), ("maxLimitRequestRatio", _ratio))
    for field, bound in bounds:
        for name, text in sorted(item.get(field, {}).items()):
            if complaint := bound(item["type"], name, text, requests, limits):
                yield complaint


def _minimum(kind: str, name: str, bound: str, requests: Resources, limits: Resources) -> str:
    told = f"minimum {name} usage per {kind} is {bound}"
    if name not in requests:
        return f"{told}.  No request is specified"
    if amount(requests[name]) < amount(bound):
        return f"{told}, but request is {requests[name]}"
    if name in limits and amount(limits[name]) < amount(bound):
        return f"{told}, but limit is {limits[name]}"
    return ""


def _maximum(kind: str, name: str, bound: str, requests: Resources, limits: Resources) -> str:
    told = f"maximum {name} usage per {kind} is {bound}"
    if name not in limits:
        return f"{told}.  No limit is specified"
    if amount(limits[name]) > amount(bound):
        return f"{told}, but limit is {limits[name]}"
    if name in requests and amount(requests[name]) > amount(bound):
        return f"{told}, but request is {requests[name]}"
    return ""


def _maximum_request(kind: str, name: str, bound: str, requests: Resources) -> str:
    told = f"maximum {name} usage per {kind} is {bound}"
    if name not in requests:
        return f"{told}.  No request is specified"
    return f"{told}, but request is {requests[name]}" if amount(requests[name]) > amount(bound) else ""


def _ratio(kind: str, name: str, bound: str, requests: Resources, limits: Resources) -> str:
    told = f"{name} max limit to request ratio per {kind} is {bound}"
    if not (request := amount(requests.get(name, "0"))):
        return f"{told}, but no request is specified or request is 0"
    if not (limit := amount(limits.get(name, "0"))):
        return f"{told}, but no limit is specified or limit is 0"
    ratio = limit / request
    return f"{told}, but provided ratio is {float(ratio):f}" if ratio > amount(bound) else ""
