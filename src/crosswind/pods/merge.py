"""Merges a ``pod_override`` into a pod, field by field, on JSON with Kubernetes' own names (camelCase).

The tables below hold one rule per field; a field without a rule is replaced. A field that the override leaves out, or
sets to null, stays. A field that it sets wins, also when it is ``False``, ``0`` or ``""``.

- Lists are extended by key: an item with a known key replaces the old item in its place, as a whole, so that a
  variable's ``value`` never mixes with an old ``valueFrom``; a new item goes to the end. An empty list adds nothing.
- Containers and init containers merge by name, in any position; an unknown name is a new container.
- Maps merge per key, nested maps too (resources, security contexts, affinity), as Kubernetes' strategic merge does.
  Fields that hold one of several kinds (``seccompProfile``, ``appArmorProfile``, handlers) are replaced as a whole.

Tolerations are extended too, where a strategic merge would replace them. Otherwise a task that adds one more pool of
nodes would lose the tolerations that all pods of the deployment need.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeAlias

from crosswind.errors import OverrideError
from crosswind.pods.shape import SERVER_METADATA, problems
from crosswind.types import Json, Manifest

__all__ = ["check_override", "merge_pods"]

Merge: TypeAlias = Callable[[Json, Json], Json]
Key: TypeAlias = Callable[[Mapping[str, Any]], Hashable]

_UNION_FIELDS = frozenset({"seccompProfile", "appArmorProfile", "postStart", "preStop"})


def merge_pods(base: Manifest, override: Manifest) -> Manifest:
    """Return ``base`` with ``override`` merged into it; neither argument is changed.

    The result shares its unchanged parts with both arguments: copy it before you change it in place.
    Raises ``OverrideError`` when ``override`` is not shaped as a pod; the message names the field and the fix.
    """
    check_override(override)
    merged: Manifest = _POD(base, override)
    return merged


def check_override(override: Json, where: str = "pod_override") -> None:
    """Raise ``OverrideError``, with field and fix, unless ``override`` is shaped as a pod or a part of one."""
    errors = [f"{where}: {problem}" for problem in problems(override)]
    if not errors:
        errors = [
            f"{where}: {field} cannot be overridden, the API server sets it; leave it out"
            for field in _server_fields(override)
        ]
    if errors:
        raise OverrideError("\n".join(errors))


def _server_fields(override: Manifest) -> list[str]:
    metadata = override.get("metadata") or {}
    present = [f"metadata.{field}" for field in sorted(SERVER_METADATA) if metadata.get(field) is not None]
    return ["status", *present] if override.get("status") else present


def _replace(_base: Json, override: Json) -> Json:
    return override


def _fields(rules: Mapping[str, Merge]) -> Merge:
    """Merge two objects field by field; fields without one of the ``rules`` are replaced."""

    def merge(base: Json, override: Json) -> Json:
        merged = dict(base or {})
        for field, value in override.items():
            if value is not None:
                merged[field] = rules.get(field, _replace)(merged.get(field), value)
        return merged

    return merge


def _deep(base: Json, override: Json) -> Json:
    """Merge maps per key, at every depth; lists and plain values are replaced."""
    if not (isinstance(base, Mapping) and isinstance(override, Mapping)):
        return override
    merged = dict(base)
    for key, value in override.items():
        if value is not None:
            merged[key] = value if key in _UNION_FIELDS else _deep(merged.get(key), value)
    return merged


def _by(*keys: Key, combine: Merge = _replace) -> Merge:
    """Extend a list by key: an item that shares any of ``keys`` with an old one is combined with it in place.

    A key of None never matches. Further old items that share a key are dropped: Kubernetes refuses duplicates.
    """

    def merge(base: Json, override: Json) -> Json:
        items = list(base or ())
        for item in override:
            item_keys = [(key, key(item)) for key in keys]
            hits = [
                place
                for place, old in enumerate(items)
                if any(value is not None and key(old) == value for key, value in item_keys)
            ]
            if hits:
                items[hits[0]] = combine(items[hits[0]], item)
                items = [old for place, old in enumerate(items) if place not in hits[1:]]
            else:
                items.append(combine({}, item))
        return items

    return merge


def _field(*names: str) -> Key:
    """Return the key made of one or more fields, None when all of them are missing."""

    def key(item: Mapping[str, Any]) -> Hashable:
        values = tuple(str(item.get(name, "")) for name in names)
        return values if any(values) else None

    return key


def _mount_path(mount: Mapping[str, Any]) -> Hashable:
    path = str(mount.get("mountPath", ""))
    return path.rstrip("/") or path or None


def _port(port: Mapping[str, Any]) -> Hashable:
    return (port.get("containerPort"), port.get("protocol") or "TCP")


def _toleration(item: Mapping[str, Any]) -> Hashable:
    return (item.get("key") or "", item.get("operator") or "Equal", item.get("value") or "", item.get("effect") or "")


def _env_source(source: Mapping[str, Any]) -> Hashable:
    names = tuple((source.get(kind) or {}).get("name", "") for kind in ("configMapRef", "secretRef"))
    return (source.get("prefix") or "", names)


def _union(base: Json, override: Json) -> Json:
    """Extend a list of plain values by those that it lacks."""
    return [*(base or ()), *(value for value in override if value not in (base or ()))]


_CONTAINER = _fields(
    {
        "env": _by(_field("name")),
        "envFrom": _by(_env_source),
        "volumeMounts": _by(_mount_path),
        "volumeDevices": _by(_field("devicePath")),
        "ports": _by(_port, _field("name")),
        "resources": _deep,
        "securityContext": _deep,
        "lifecycle": _deep,
    }
)

_SPEC = _fields(
    {
        "containers": _by(_field("name"), combine=_CONTAINER),
        "initContainers": _by(_field("name"), combine=_CONTAINER),
        "volumes": _by(_field("name")),
        "imagePullSecrets": _by(_field("name")),
        "tolerations": _by(_toleration),
        "hostAliases": _by(_field("ip")),
        "topologySpreadConstraints": _by(_field("topologyKey", "whenUnsatisfiable")),
        "readinessGates": _by(_field("conditionType")),
        "schedulingGates": _by(_field("name")),
        "resourceClaims": _by(_field("name")),
        "nodeSelector": _deep,
        "securityContext": _deep,
        "affinity": _deep,
        "dnsConfig": _deep,
        "overhead": _deep,
        "resources": _deep,
    }
)

_METADATA = _fields(
    {"labels": _deep, "annotations": _deep, "finalizers": _union, "ownerReferences": _by(_field("uid"))}
)

_POD = _fields({"metadata": _METADATA, "spec": _SPEC})
