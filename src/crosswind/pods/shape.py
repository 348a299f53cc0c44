"""Checks that templates and overrides are shaped as a Pod. Each problem names the field and the fix.

The checks find what would otherwise fail late, once for each task, or never: misspelt fields, values of another type,
values that the API server refuses. Quotas, admission and references to other objects are left to the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from crosswind.documents import FieldPath, FieldProblem
from crosswind.pods.field_rules import may_be_overcommitted
from crosswind.pods.fragment_shape import fragment_problems
from crosswind.types import Json, Manifest

__all__ = ["SERVER_METADATA", "problems", "problems_of_references"]

SERVER_METADATA = frozenset(
    (
        *("creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "managedFields"),
        *("resourceVersion", "selfLink", "uid"),
    )
)
"""Fields of ``metadata`` that only the API server sets; it refuses a create that has them."""

_CONTAINERS = ("initContainers", "containers")


def problems(pod: Json) -> Iterator[FieldProblem]:
    """Yield the problems that keep ``pod``, which may be a part of one, from being shaped as a Pod."""
    if not isinstance(pod, Mapping):
        kind = {list: "a list", str: "text", bool: "a boolean", type(None): "empty"}.get(type(pod), "a number")
        yield FieldProblem((), f"is {kind}, not a Pod", "write a mapping with metadata and spec")
        return
    for field, expected in (("kind", "Pod"), ("apiVersion", "v1")):
        if pod.get(field, expected) != expected:
            yield FieldProblem((field,), f"is {pod[field]!r}, not {expected!r}", f"write {field}: {expected}")
    shape = fragment_problems("Pod", _without_server_metadata(pod))
    yield from shape or _repeated_containers(pod.get("spec") or {})


def problems_of_references(spec: Manifest, path: FieldPath = ()) -> Iterator[FieldProblem]:
    """Yield the problems between the parts of a whole pod's spec in which ``problems`` finds none."""
    volumes: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or ()):
        if volume["name"] in volumes:
            place = (*path, "volumes", index, "name")
            yield FieldProblem(place, f"is {volume['name']!r} a second time", "give each volume its own name")
        volumes.add(volume["name"])
    for field in _CONTAINERS:
        for index, container in enumerate(spec.get(field) or ()):
            yield from _mounts(container, volumes, (*path, field, index))
            yield from _exact_limits(container.get("resources") or {}, (*path, field, index, "resources"))


def _without_server_metadata(pod: Mapping[str, Json]) -> Mapping[str, Json]:
    """Leave out fields that are dropped or refused as a whole: YAML may have read their times as dates."""
    metadata = pod.get("metadata")
    if not isinstance(metadata, Mapping) or SERVER_METADATA.isdisjoint(metadata):
        return pod
    return {**pod, "metadata": {name: value for name, value in metadata.items() if name not in SERVER_METADATA}}


def _repeated_containers(spec: Mapping[str, Json]) -> Iterator[FieldProblem]:
    for field in _CONTAINERS:
        seen: set[str] = set()
        for index, container in enumerate(spec.get(field) or ()):
            name = container["name"]
            if name in seen:
                place = ("spec", field, index, "name")
                yield FieldProblem(place, f"is {name!r} a second time", "give each container its own name")
            seen.add(name)


def _mounts(container: Manifest, volumes: set[str], path: FieldPath) -> Iterator[FieldProblem]:
    for field in ("volumeMounts", "volumeDevices"):
        target = "mountPath" if field == "volumeMounts" else "devicePath"
        seen: set[str] = set()
        for index, mount in enumerate(container.get(field) or ()):
            place, folder = (*path, field, index), mount[target].rstrip("/") or "/"
            if mount["name"] not in volumes:
                fix = "add it to volumes, or correct the name"
                yield FieldProblem((*place, "name"), f"is {mount['name']!r}, which is no volume of the pod", fix)
            if folder in seen:
                fix = "give each mount its own path"
                yield FieldProblem((*place, target), f"is {mount[target]!r} a second time", fix)
            seen.add(folder)


def _exact_limits(resources: Manifest, path: FieldPath) -> Iterator[FieldProblem]:
    limits = resources.get("limits") or {}
    for name, request in (resources.get("requests") or {}).items():
        if request is not None and limits.get(name) is None and not may_be_overcommitted(name):
            place = (*path, "limits", name)
            yield FieldProblem(
                place, "is missing beside the request, to which it must be equal", f"write {name}: {request}"
            )
