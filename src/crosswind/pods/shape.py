"""Is this a pod? Structural checks that templates and overrides share, each with the field and the mend.

They find what would otherwise surface late or never: misspelt fields, unquoted values, containers without a name. What
Kubernetes itself checks well when the pod is created (quantities, enumerations, references) is left to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from crosswind.pods.fields import CONTAINER_FIELDS, METADATA_FIELDS, POD_FIELDS, SPEC_FIELDS, meant
from crosswind.types import Json

__all__ = ["Path", "Problem", "dotted", "problems"]

Path = tuple[str | int, ...]
"""Where a value is: ``("spec", "containers", 0, "image")``."""

_SPEC_LISTS = ("volumes", "imagePullSecrets", "tolerations", "hostAliases", "topologySpreadConstraints")
_CONTAINER_LISTS = ("env", "envFrom", "volumeMounts", "volumeDevices", "ports")
_TEXT_LISTS = ("command", "args")
_NAMED_LISTS = frozenset({"volumes", "env", "volumeMounts"})


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where, what, and how to mend it."""

    path: Path
    what: str
    mend: str


def dotted(path: Path) -> str:
    """Return a path as Kubernetes writes it: ``spec.containers[0].image``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.lstrip(".") or "the document"


def problems(pod: Json) -> Iterator[Problem]:
    """Yield what keeps ``pod`` from being shaped as a Pod, in the order of the document."""
    if not isinstance(pod, Mapping):
        yield Problem((), f"is {_kind(pod)}, not a Pod", "write a mapping with metadata and spec")
        return
    yield from _known(pod, (), POD_FIELDS)
    for field, expected in (("kind", "Pod"), ("apiVersion", "v1")):
        if pod.get(field, expected) != expected:
            yield Problem((field,), f"is {pod[field]!r}, not {expected!r}", f"write {field}: {expected}")
    yield from _metadata(pod.get("metadata"))
    yield from _spec(pod.get("spec"))


def _metadata(metadata: Json) -> Iterator[Problem]:
    path: Path = ("metadata",)
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


def _spec(spec: Json) -> Iterator[Problem]:
    path: Path = ("spec",)
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


def _containers(containers: Json, path: Path) -> Iterator[Problem]:
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
            yield Problem((*path, index, "name"), f"is {name!r} a second time", "give each container its own name")
        seen.add(str(name))


def _container(container: Mapping[str, Json], path: Path) -> Iterator[Problem]:
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


def _known(value: Mapping[Any, Json], path: Path, known: frozenset[str]) -> Iterator[Problem]:
    for name in value:
        if not isinstance(name, str):
            yield Problem(path, f"has the field {name!r}, which is not text", "put quotes around it")
        elif (guess := meant(name, known)) is not None:
            yield Problem((*path, name), "is not a field of Kubernetes", f"write {guess}")


def _map(value: Json, path: Path) -> Iterator[Problem]:
    if value is not None and not isinstance(value, Mapping):
        yield _wrong(path, value, "a mapping")


def _maps(value: Json, path: Path, *, named: bool = False) -> Iterator[Problem]:
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
            yield Problem((*path, index, "name"), "is missing or no text", "give it a name")


def _texts(value: Json, path: Path) -> Iterator[Problem]:
    """Check a mapping from text to text."""
    yield from _map(value, path)
    if isinstance(value, Mapping):
        for key, text in value.items():
            if not isinstance(key, str):
                yield Problem(path, f"has the key {key!r}, which is not text", "put quotes around it")
            elif not isinstance(text, str | None):
                yield _unquoted((*path, key), text)


def _text_list(value: Json, path: Path) -> Iterator[Problem]:
    if value is None:
        return
    if not isinstance(value, list):
        yield _wrong(path, value, "a list")
        return
    for index, text in enumerate(value):
        if not isinstance(text, str):
            yield _unquoted((*path, index), text)


def _unquoted(path: Path, value: Json) -> Problem:
    if isinstance(value, Mapping | list):
        return _wrong(path, value, "text")
    written = str(value).lower() if isinstance(value, bool) else value
    return Problem(path, f"is {_kind(value)}, Kubernetes wants text", f'put quotes around it: "{written}"')


def _wrong(path: Path, value: Json, expected: str) -> Problem:
    return Problem(path, f"is {_kind(value)}, not {expected}", f"write {expected}")


def _kind(value: Json) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "a boolean", type(None): "empty"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else f"a {type(value).__name__}")
