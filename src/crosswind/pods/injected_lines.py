"""The YAML of a pod as the executor creates it, with what injectors and admission added marked. Pure."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import yaml

from crosswind.pods.added_fields import field_names
from crosswind.pods.fields import mapping, mappings, text
from crosswind.types import Manifest

__all__ = ["YamlLine", "yaml_lines"]

_REMARK = "  # added in the cluster, by an injector or an admission controller; only its name is kept"
_PLACE = re.compile(r"cw-added-(\d+)-(: null)?")
"""What stands for an added field while the manifest is written: YAML would quote its text, and others may equal it."""
_KEYS = {"env": "name", "volumes": "name", "volumeMounts": "mountPath"}


class YamlLine(NamedTuple):
    """One line of a manifest."""

    text: str
    injected: bool = False


def yaml_lines(
    manifest: Manifest,
    seen: Iterable[Mapping[str, Any]] = (),
    added: Iterable[str] = (),
    redact: Callable[[str], str] = str,
) -> list[YamlLine]:
    """Return the lines of a manifest, with one for each thing that the pod had in the cluster and the manifest has not.

    ``seen``: the pod's containers, with name and kind. ``added``: other fields, as ``added_fields`` names them. Each
    stands at the end of its section. ``redact``: hides secrets in the whole text.
    """
    shown = copy.deepcopy(dict(manifest))
    declared = set(field_names(shown))
    lines: list[str] = []

    def place(line: str) -> str:
        lines.append(redact(line) + _REMARK)
        return f"cw-added-{len(lines) - 1}-"

    for container in seen:
        name = text(container.get("name"))
        if name and f"containers/{name}" not in declared:
            kind = "containers" if container.get("kind") == "ordinary" else "initContainers"
            _append(_object(shown, "spec"), kind, place(f"name: {_scalar(name)}"))
    for field in added:
        if field not in declared:
            _add(shown, field, place)
    written = redact(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)).splitlines()
    return [
        YamlLine(_PLACE.sub(lambda match: lines[int(match[1])], line), injected=_PLACE.search(line) is not None)
        for line in written
    ]


def _add(shown: dict[str, Any], field: str, place: Callable[[str], str]) -> None:
    """Add a field to its section; one of a container that the manifest lacks is left out."""
    kind, _, name = field.partition("/")
    if kind in ("labels", "annotations"):
        _object(_object(shown, "metadata"), kind)[place(f"{_scalar(name)}:")] = None
    elif kind == "volumes":
        _append(_object(shown, "spec"), kind, place(f"name: {_scalar(name)}"))
    elif kind in _KEYS:
        container, _, name = name.partition("/")
        spec = mapping(shown.get("spec"))
        for declared in (*mappings(spec.get("initContainers")), *mappings(spec.get("containers"))):
            if declared.get("name") == container:
                _append(declared, kind, place(f"{_KEYS[kind]}: {_scalar(name)}"))


def _object(parent: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an object of a manifest, which is made where there is none."""
    if not isinstance(parent.get(name), dict):
        parent[name] = {}
    child: dict[str, Any] = parent[name]
    return child


def _append(parent: dict[str, Any], name: str, item: str) -> None:
    parent[name] = [*(parent[name] if isinstance(parent.get(name), list) else []), item]


def _scalar(value: str) -> str:
    return yaml.safe_dump(value, allow_unicode=True, width=10**6).splitlines()[0]
