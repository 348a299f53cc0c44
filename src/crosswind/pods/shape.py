"""Checks that templates and overrides are shaped as a Pod. Each problem names the field and the fix.

The checks find what would otherwise fail late or never: misspelt fields, unquoted values, containers without a name.
They leave to the API server what it checks well itself: quantities, enumerations, references.

The tables of field names are Kubernetes 1.36's and serve to find misspellings only. A name that is merely unknown
passes, because it may come from a newer Kubernetes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from crosswind.documents import FieldPath, FieldProblem
from crosswind.types import Json

__all__ = [
    "CONTAINER_FIELDS",
    "METADATA_FIELDS",
    "POD_FIELDS",
    "SERVER_METADATA",
    "SPEC_FIELDS",
    "corrected_spelling",
    "problems",
]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


POD_FIELDS = _words("apiVersion kind metadata spec status")

SERVER_METADATA = _words(
    """
    creationTimestamp deletionGracePeriodSeconds deletionTimestamp generation managedFields resourceVersion selfLink uid
    """
)
"""Fields of ``metadata`` that only the API server sets; it refuses a create that has them."""

METADATA_FIELDS = SERVER_METADATA | _words("annotations finalizers generateName labels name namespace ownerReferences")

SPEC_FIELDS = _words(
    """
    activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig dnsPolicy enableServiceLinks
    ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers hostname hostnameOverride imagePullSecrets
    initContainers nodeName nodeSelector os overhead preemptionPolicy priority priorityClassName readinessGates
    resourceClaims resources restartPolicy runtimeClassName schedulerName schedulingGates schedulingGroup
    securityContext serviceAccount serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain
    terminationGracePeriodSeconds tolerations topologySpreadConstraints volumes
    """
)

CONTAINER_FIELDS = _words(
    """
    args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe resizePolicy
    resources restartPolicy restartPolicyRules securityContext startupProbe stdin stdinOnce terminationMessagePath
    terminationMessagePolicy tty volumeDevices volumeMounts workingDir
    """
)

_SPEC_LISTS = ("volumes", "imagePullSecrets", "tolerations", "hostAliases", "topologySpreadConstraints")
_CONTAINER_LISTS = ("env", "envFrom", "volumeMounts", "volumeDevices", "ports")
_TEXT_LISTS = ("command", "args")
_NAMED_LISTS = frozenset({"volumes", "env", "volumeMounts"})


def problems(pod: Json) -> Iterator[FieldProblem]:
    """Yield the problems that keep ``pod`` from being shaped as a Pod, in the order of the document."""
    if not isinstance(pod, Mapping):
        yield FieldProblem((), f"is {_kind(pod)}, not a Pod", "write a mapping with metadata and spec")
        return
    yield from _known(pod, (), POD_FIELDS)
    for field, expected in (("kind", "Pod"), ("apiVersion", "v1")):
        if pod.get(field, expected) != expected:
            yield FieldProblem((field,), f"is {pod[field]!r}, not {expected!r}", f"write {field}: {expected}")
    yield from _metadata(pod.get("metadata"))
    yield from _spec(pod.get("spec"))


def _metadata(metadata: Json) -> Iterator[FieldProblem]:
    path: FieldPath = ("metadata",)
    if metadata is None:
        return
    if not isinstance(metadata, Mapping):
        yield _wrong(path, metadata, "a mapping")
        return
    yield from _known(metadata, path, METADATA_FIELDS)
    for field in ("name", "namespace"):
        if not isinstance(metadata.get(field, ""), str | None):
            yield _unquoted((*path, field), metadata[field])
    for field in ("labels", "annotations"):
        yield from _texts(metadata.get(field), (*path, field))


def _spec(spec: Json) -> Iterator[FieldProblem]:
    path: FieldPath = ("spec",)
    if spec is None:
        return
    if not isinstance(spec, Mapping):
        yield _wrong(path, spec, "a mapping")
        return
    yield from _known(spec, path, SPEC_FIELDS)
    for field in ("initContainers", "containers"):
        yield from _containers(spec.get(field), (*path, field))
    for field in _SPEC_LISTS:
        yield from _maps(spec.get(field), (*path, field), named=field in _NAMED_LISTS)
    yield from _texts(spec.get("nodeSelector"), (*path, "nodeSelector"))
    for field in ("securityContext", "affinity", "dnsConfig", "overhead"):
        yield from _map(spec.get(field), (*path, field))


def _containers(containers: Json, path: FieldPath) -> Iterator[FieldProblem]:
    yield from _maps(containers, path, named=True)
    if not isinstance(containers, list):
        return
    seen: set[str] = set()
    for index, container in enumerate(containers):
        if not isinstance(container, Mapping):
            continue
        yield from _container(container, (*path, index))
        name = container.get("name")
        if isinstance(name, str) and name in seen:
            yield FieldProblem((*path, index, "name"), f"is {name!r} a second time", "give each container its own name")
        seen.add(str(name))


def _container(container: Mapping[str, Json], path: FieldPath) -> Iterator[FieldProblem]:
    yield from _known(container, path, CONTAINER_FIELDS)
    if not isinstance(container.get("image", ""), str | None):
        yield _unquoted((*path, "image"), container["image"])
    for field in _CONTAINER_LISTS:
        yield from _maps(container.get(field), (*path, field), named=field in _NAMED_LISTS)
    for field in _TEXT_LISTS:
        yield from _text_list(container.get(field), (*path, field))
    for index, variable in enumerate(_mappings(container.get("env"))):
        if not isinstance(variable.get("value", ""), str | None):
            yield _unquoted((*path, "env", index, "value"), variable["value"])
    for field in ("resources", "securityContext", "lifecycle"):
        yield from _map(container.get(field), (*path, field))
    for field in ("requests", "limits"):
        resources = container.get("resources")
        if isinstance(resources, Mapping):
            yield from _map(resources.get(field), (*path, "resources", field))


def _mappings(value: Json) -> list[Mapping[str, Json]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _known(value: Mapping[Any, Json], path: FieldPath, known: frozenset[str]) -> Iterator[FieldProblem]:
    for name in value:
        if not isinstance(name, str):
            yield FieldProblem(path, f"has the field {name!r}, which is not text", "put quotes around it")
        elif (guess := corrected_spelling(name, known)) is not None:
            yield FieldProblem((*path, name), "is not a field of Kubernetes", f"write {guess}")


def corrected_spelling(name: str, known: frozenset[str]) -> str | None:
    """Return the known field that ``name`` misspells, None when it is known itself or resembles none."""
    if name in known:
        return None
    folded = {field.lower(): field for field in known}
    close = get_close_matches(name.replace("_", "").lower(), folded, n=1, cutoff=0.85)
    return folded[close[0]] if close else None


def _map(value: Json, path: FieldPath) -> Iterator[FieldProblem]:
    if value is not None and not isinstance(value, Mapping):
        yield _wrong(path, value, "a mapping")


def _maps(value: Json, path: FieldPath, *, named: bool = False) -> Iterator[FieldProblem]:
    """Check a list of mappings; ``named``: each needs its ``name``."""
    if value is None:
        return
    if not isinstance(value, list):
        yield _wrong(path, value, "a list")
        return
    for index, item in enumerate(value):
        if not isinstance(item, Mapping):
            yield _wrong((*path, index), item, "a mapping")
        elif named and not (isinstance(item.get("name"), str) and item["name"]):
            yield FieldProblem((*path, index, "name"), "is missing or no text", "give it a name")


def _texts(value: Json, path: FieldPath) -> Iterator[FieldProblem]:
    """Check a mapping from text to text."""
    yield from _map(value, path)
    if isinstance(value, Mapping):
        for key, text in value.items():
            if not isinstance(key, str):
                yield FieldProblem(path, f"has the key {key!r}, which is not text", "put quotes around it")
            elif not isinstance(text, str | None):
                yield _unquoted((*path, key), text)


def _text_list(value: Json, path: FieldPath) -> Iterator[FieldProblem]:
    if value is None:
        return
    if not isinstance(value, list):
        yield _wrong(path, value, "a list")
        return
    for index, text in enumerate(value):
        if not isinstance(text, str):
            yield _unquoted((*path, index), text)


def _unquoted(path: FieldPath, value: Json) -> FieldProblem:
    if isinstance(value, Mapping | list):
        return _wrong(path, value, "text")
    written = str(value).lower() if isinstance(value, bool) else value
    return FieldProblem(path, f"is {_kind(value)}, Kubernetes wants text", f'put quotes around it: "{written}"')


def _wrong(path: FieldPath, value: Json, expected: str) -> FieldProblem:
    return FieldProblem(path, f"is {_kind(value)}, not {expected}", f"write {expected}")


def _kind(value: Json) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "a boolean", type(None): "empty"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")
