"""Sets of fields as in ``metadata.managedFields``, and merging and removing by them.

A path is a tuple of elements in their ``FieldsV1`` form: ``f:NAME`` for a field or key, ``k:{"name":"base"}`` for the
item of a list that has keys, ``v:"x"`` for the value in a set. Leaves are scalars and atomic values, which are
owned, replaced and removed as a whole. Source: KEP-555, ``sigs.k8s.io/structured-merge-diff`` and the ``+listType``
marks of ``k8s.io/api``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from kubelocal.codec.schema import Type, struct
from kubelocal.types import Json, Manifest

__all__ = ["FieldSet", "Path", "changes", "field_set", "merge", "read_fields", "remove", "write_fields", "written_path"]

Path: TypeAlias = tuple[str, ...]
FieldSet: TypeAlias = frozenset[Path]

_CONTAINER_LISTS: dict[str, tuple[str, ...]] = {
    "env": ("name",),
    "ports": ("containerPort", "protocol"),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
}
_POD_LISTS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("containers", "initContainers", "ephemeralContainers", "volumes"), ("name",)),
    **dict.fromkeys(("imagePullSecrets", "schedulingGates", "resourceClaims"), ("name",)),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
KEYED: dict[tuple[str, str], tuple[str, ...]] = {
    **{("V1PodSpec", field): keys for field, keys in _POD_LISTS.items()},
    **{
        (owner, field): keys
        for owner in ("V1Container", "V1EphemeralContainer")
        for field, keys in _CONTAINER_LISTS.items()
    },
    ("V1NodeStatus", "addresses"): ("type",),
    ("V1ObjectMeta", "ownerReferences"): ("uid",),
    ("V1PodStatus", "podIPs"): ("ip",),
    ("V1ResourceRequirements", "claims"): ("name",),
    ("V1ServiceAccount", "secrets"): ("name",),
    ("V1ServiceSpec", "ports"): ("port", "protocol"),
    **{
        (f"V1{kind}Status", "conditions"): ("type",)
        for kind in (
            "DaemonSet",
            "Deployment",
            "Namespace",
            "Node",
            "Pod",
            "PodDisruptionBudget",
            "ReplicaSet",
            "StatefulSet",
        )
    },
}
"""The keys of lists whose items are merged, by type and field; all others are atomic, but for ``SETS``."""

DEFAULT_KEYS = {"protocol": "TCP"}
"""The default of a key that an item omits."""

SETS = frozenset({("V1ObjectMeta", "finalizers"), ("V1NodeSpec", "podCIDRs")})
ATOMIC_MAPS = frozenset({("V1PodSpec", "nodeSelector"), ("V1ServiceSpec", "selector")})
ATOMIC_STRUCTS = frozenset(
    {
        "V1ConfigMapKeySelector",
        "V1LabelSelector",
        "V1LocalObjectReference",
        "V1NodeSelector",
        "V1NodeSelectorTerm",
        "V1ObjectFieldSelector",
        "V1ObjectReference",
        "V1OwnerReference",
        "V1ResourceFieldSelector",
        "V1RoleRef",
        "V1ScopeSelector",
        "V1SecretKeySelector",
        "V1SecretReference",
        "V1TypedLocalObjectReference",
        "V1TypedObjectReference",
    }
)


def _below(value_type: Type, value: Json, place: tuple[str, str]) -> Iterator[tuple[str, Type, Json]] | None:
    """Yield path elements, types and values directly below a value; None for a leaf. ``place``: its type and field."""
    if isinstance(value, dict):
        return _fields(value_type, value, place)
    if isinstance(value, list) and value_type.inner:
        return _items(value_type.inner, value, place)
    return None


def _fields(value_type: Type, value: Manifest, place: tuple[str, str]) -> Iterator[tuple[str, Type, Json]] | None:
    if value_type.form == "struct":
        return None if value_type.name in ATOMIC_STRUCTS else _known_fields(value_type.name, value)
    inner = value_type if value_type.form == "any" else value_type.inner
    if inner is None or place in ATOMIC_MAPS:
        return None
    return ((f"f:{key}", inner, item) for key, item in value.items())


def _known_fields(name: str, value: Manifest) -> Iterator[tuple[str, Type, Json]]:
    fields = struct(name).fields
    return ((f"f:{key}", fields[key].type, item) for key, item in value.items() if key in fields)


def _items(inner: Type, value: list[Json], place: tuple[str, str]) -> Iterator[tuple[str, Type, Json]] | None:
    if keys := KEYED.get(place):
        return ((_item_element(item, keys), inner, item) for item in value)
    return ((f"v:{json.dumps(item)}", inner, item) for item in value) if place in SETS else None


def _item_element(item: Json, keys: Iterable[str]) -> str:
    key_values = {key: item.get(key, DEFAULT_KEYS.get(key, "")) for key in sorted(keys)}
    return f"k:{json.dumps(key_values, separators=(',', ':'))}"


def field_set(kind: Type, manifest: Manifest) -> FieldSet:
    """Return all paths of an object: its leaves, and the items of lists with keys."""
    return frozenset(_paths(kind, manifest, ("", ""), ()))


def _paths(value_type: Type, value: Json, place: tuple[str, str], path: Path) -> Iterator[Path]:
    below = _below(value_type, value, place)
    children = list(below) if below is not None else []
    if path and (not children or path[-1].startswith("k:")):
        yield path
    for element, inner, item in children:
        yield from _paths(inner, item, (value_type.name, element[2:]), (*path, element))


def changes(kind: Type, old: Manifest, new: Manifest, paths: Iterable[Path]) -> FieldSet:
    """Return the paths at which two states differ; an item of a list with keys differs when one state lacks it."""

    def differs(path: Path) -> bool:
        before, after = value_at(kind, old, path), value_at(kind, new, path)
        return (before is None) is not (after is None) if path[-1].startswith("k:") else before != after

    return frozenset(filter(differs, paths))


def value_at(kind: Type, manifest: Manifest, path: Path) -> Json:
    """Return the value at a path, None for a missing one."""
    value_type, value, place = kind, manifest, ("", "")
    for element in path:
        child = next(
            (candidate for candidate in _below(value_type, value, place) or () if candidate[0] == element), None
        )
        if child is None:
            return None
        place = (value_type.name, element[2:])
        _, value_type, value = child
    return value


# ----------------------------------------------------------------------------------------------------------- changing


def merge(kind: Type, live: Json, applied: Json, place: tuple[str, str] = ("", "")) -> Json:
    """Return an object with the applied fields merged in; neither argument is changed."""
    live_items, applied_items = _below(kind, live, place), _below(kind, applied, place)
    if live_items is None or applied_items is None:
        return applied
    present = {element: item for element, _, item in live_items}
    for element, inner, item in applied_items:
        if element in present:
            present[element] = merge(inner, present[element], item, (kind.name, element[2:]))
        else:
            present[element] = item
    return _built(kind, present)


def remove(kind: Type, manifest: Json, paths: FieldSet, place: tuple[str, str] = ("", "")) -> Json:
    """Return an object without these paths; containers that become empty are removed too."""
    below = _below(kind, manifest, place)
    if below is None:
        return manifest
    left: dict[str, Json] = {}
    for element, inner, item in below:
        deeper = frozenset(path[1:] for path in paths if path[0] == element)
        if not deeper:
            left[element] = item
        elif () not in deeper:  # else the item is removed as a whole
            kept = remove(inner, item, deeper, (kind.name, element[2:]))
            left |= {element: kept} if (kept := _with_keys(kept, item, KEYED.get(place, ()))) else {}
    return _built(kind, left)


def _with_keys(kept: Json, item: Json, keys: Iterable[str]) -> Json:
    """Return the kept part of a list's item with its keys, which a kept item needs regardless of their owner."""
    key_values = {key: item[key] for key in keys if key in item}
    return {**kept, **key_values} if key_values else kept


def _built(kind: Type, parts: Mapping[str, Json]) -> Json:
    if kind.form == "list":
        return list(parts.values())
    return {element[2:]: item for element, item in parts.items()}


# ------------------------------------------------------------------------------------------------------------ written


def write_fields(paths: FieldSet) -> Manifest:
    """Write a set as ``fieldsV1``."""
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
        node["."] = {}
    return {element: _without_dots(node) for element, node in tree.items()}


def _without_dots(node: dict[str, Any]) -> dict[str, Any]:
    """Drop the redundant dot of a leaf."""
    if node.keys() == {"."}:
        return {}
    return {element: inner if element == "." else _without_dots(inner) for element, inner in node.items()}


def read_fields(fields: Json) -> FieldSet:
    """Read ``fieldsV1``."""
    return frozenset(_read(fields, ())) if isinstance(fields, dict) else frozenset()


def _read(node: Manifest, path: Path) -> Iterator[Path]:
    if path and (not node or "." in node):
        yield path
    for element, inner in node.items():
        if element != "." and isinstance(inner, dict):
            yield from _read(inner, (*path, element))


def written_path(path: Path) -> str:
    """Write a path as messages do: ``.spec.containers[name="base"].image``."""
    return "".join(map(_written, path))


def _written(element: str) -> str:
    sort, text = element[:2], element[2:]
    if sort == "f:":
        return f".{text}"
    if sort == "v:":
        return f"[={text}]"
    keys = ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(text).items())
    return f"[{keys}]"
