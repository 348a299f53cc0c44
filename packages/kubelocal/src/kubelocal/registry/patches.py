"""The patch types: JSON patch (RFC 6902), JSON merge patch (RFC 7386), and Kubernetes' strategic merge patch.

The arguments are not changed; the result may share parts with them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TypeAlias

import jsonpatch
import jsonpointer
import orjson

from kubelocal.codec.status_errors import StatusError, bad_request, failure
from kubelocal.types import Json, Manifest

__all__ = ["APPLY", "PATCHES", "STRATEGIC", "json_patch", "merge_object", "merge_patch", "strategic_merge_patch"]

REJECTED = "the server rejected our request due to an error in our request"

MERGE_KEYS: dict[tuple[str, str], str] = {
    **{("", field): "name" for field in ("secrets",)},
    **{
        ("spec", field): "name"
        for field in (
            "containers",
            "initContainers",
            "ephemeralContainers",
            "volumes",
            "imagePullSecrets",
            "schedulingGates",
            "resourceClaims",
        )
    },
    ("spec", "hostAliases"): "ip",
    ("spec", "topologySpreadConstraints"): "topologyKey",
    ("spec", "ports"): "port",
    ("status", "conditions"): "type",
    ("status", "addresses"): "type",
    ("status", "podIPs"): "ip",
    ("status", "hostIPs"): "ip",
    ("status", "resourceClaimStatuses"): "name",
    ("metadata", "ownerReferences"): "uid",
    **{
        (containers, field): key
        for containers in ("containers", "initContainers", "ephemeralContainers")
        for field, key in (
            ("env", "name"),
            ("ports", "containerPort"),
            ("volumeMounts", "mountPath"),
            ("volumeDevices", "devicePath"),
        )
    },
}
"""``patchMergeKey`` of Kubernetes' types, by the field that holds the list and the one above it ("" for the object)."""

SETS = frozenset({("metadata", "finalizers"), ("spec", "podCIDRs")})
"""Lists of scalars with the patch strategy ``merge``."""

ORDER = "$setElementOrder/"
DELETE_FROM = "$deleteFromPrimitiveList/"
DIRECTIVE = "$patch"
RETAIN = "$retainKeys"

MAX_PATCH_OPERATIONS = 10_000
"""Operations of a JSON patch, as in Kubernetes' API server."""

MAX_COPIED_BYTES = 10 << 20
"""Bytes that all copy operations of a JSON patch may copy."""

_UNREADABLE = (
    jsonpatch.JsonPatchException,
    jsonpointer.JsonPointerException,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    RecursionError,
)
"""The exceptions of the two packages for malformed operations, and for operations that do not fit the object."""


def json_patch(document: Manifest, patch: Json) -> Json:
    """Apply a list of operations; raise 400 for malformed ones, 413 for too many, 422 for ones that do not fit."""
    if not isinstance(patch, list):
        message = f"cannot unmarshal {_form(patch)} into Go value of type jsonpatch.Patch"
        raise bad_request(f"error decoding patch: json: {message}")
    if len(patch) > MAX_PATCH_OPERATIONS:
        message = f"The allowed maximum operations in a JSON patch is {MAX_PATCH_OPERATIONS}, got {len(patch)}"
        raise failure(413, "RequestEntityTooLarge", f"Request entity too large: {message}")
    try:
        operations = [jsonpatch.JsonPatch([operation]) for operation in patch]
    except _UNREADABLE as problem:
        raise bad_request(f"error decoding patch: {problem}") from problem
    copied, patched = 0, copy.deepcopy(document)
    try:
        for operation, entry in zip(operations, patch, strict=True):
            if entry["op"] == "copy":  # a few dozen that each double the object would exhaust the memory
                copied += len(orjson.dumps(jsonpointer.resolve_pointer(patched, entry["from"])))
                if copied > MAX_COPIED_BYTES:
                    message = f"the operations copy more than {MAX_COPIED_BYTES} bytes"
                    raise failure(413, "RequestEntityTooLarge", f"Request entity too large: {message}")
            patched = operation.apply(patched, in_place=True)
    except _UNREADABLE as problem:
        raise failure(422, "Invalid", REJECTED, {}) from problem
    return patched


def merge_patch(document: Json, patch: Json) -> Json:
    """Apply a merge patch: objects merge, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def merge_object(document: Manifest, patch: Json) -> Json:
    """Apply a merge patch to an object; raise 400 for a malformed one."""
    return merge_patch(document, _object(patch))


def strategic_merge_patch(document: Manifest, patch: Json) -> Manifest:
    """Apply a strategic merge patch with the merge keys and directives of Kubernetes' built-in types.

    Raises 400 or 422 for a malformed patch.
    """
    return _merge_maps(document, _object(patch), "")


def _object(patch: Json) -> Manifest:
    if isinstance(patch, dict):
        return patch
    message = f"cannot unmarshal {_form(patch)} into Go value of type map[string]interface {{}}"
    raise bad_request(f"error decoding patch: json: {message}")


def _form(value: Json) -> str:
    names = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}
    return "null" if value is None else names[type(value)]


def _merge_maps(current: Json, patch: Manifest, parent: str) -> Manifest:
    directive = patch.get(DIRECTIVE)
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != DIRECTIVE}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise _unknown_directive(directive)
    merged = _retained(current if isinstance(current, dict) else {}, patch)
    for key, value in patch.items():
        if not key.startswith("$"):
            _merge_field(merged, key, value, patch, parent)
    for key, value in patch.items():
        if key.startswith(DELETE_FROM):
            _delete_from(merged, key.removeprefix(DELETE_FROM), _list(key, value))
        elif key.startswith(ORDER):
            order = _list(key, value)
            if isinstance(merged.get(field := key.removeprefix(ORDER)), list):
                merged[field] = _ordered(merged[field], order, MERGE_KEYS.get((parent, field)))
    return merged


def _list(directive: str, value: Json) -> list[Json]:
    if isinstance(value, list):
        return value
    raise bad_request(f"invalid patch: {directive} takes a list, not {_form(value)}")


def _retained(current: Manifest, patch: Manifest) -> Manifest:
    if RETAIN not in patch:
        return dict(current)
    kept = _list(RETAIN, patch[RETAIN])
    return {key: value for key, value in current.items() if key in kept}


def _merge_field(merged: Manifest, key: str, value: Json, patch: Manifest, parent: str) -> None:
    if value is None:
        merged.pop(key, None)
    elif isinstance(value, dict):
        if value.get(DIRECTIVE) == "delete":
            merged.pop(key, None)
        else:
            merged[key] = _merge_maps(merged.get(key), value, key)
    elif isinstance(value, list):
        current = merged.get(key)
        merged[key] = _merge_lists(current if isinstance(current, list) else [], value, key, parent)
    else:
        merged[key] = value


def _merge_lists(current: list[Json], patch: list[Json], field: str, parent: str) -> list[Json]:
    if (parent, field) in SETS:
        return [*current, *(value for value in patch if value not in current)]
    merge_key = MERGE_KEYS.get((parent, field))
    if merge_key is None:
        return patch
    if {DIRECTIVE: "replace"} in patch:
        return [item for item in patch if item != {DIRECTIVE: "replace"}]
    return _merge_items(current, patch, field, merge_key)


def _merge_items(current: list[Json], patch: list[Json], field: str, merge_key: str) -> list[Json]:
    merged = list(current)
    for item in patch:
        if not isinstance(item, dict):
            raise bad_request(f"invalid patch: an item of {field} is no object")
        if merge_key not in item:
            raise failure(422, "Invalid", f"map: {item} does not contain declared merge key: {merge_key}")
        at = next((i for i, other in enumerate(merged) if _key(other, merge_key) == item[merge_key]), None)
        if item.get(DIRECTIVE) == "delete":
            merged = [other for other in merged if _key(other, merge_key) != item[merge_key]]
        elif at is None:
            merged.append(_merge_maps({}, item, field))
        else:
            merged[at] = _merge_maps(merged[at], item, field)
    return merged


def _delete_from(merged: Manifest, field: str, values: list[Json]) -> None:
    present = merged.get(field)
    left = [value for value in present if value not in values] if isinstance(present, list) else []
    if left:
        merged[field] = left
    else:
        merged.pop(field, None)


def _ordered(items: list[Json], order: list[Json], merge_key: str | None) -> list[Json]:
    """Sort the items that ``order`` names; each other one stays behind its predecessor."""
    keys = [_key(item, merge_key) for item in order]
    ranks: list[int] = []
    for item in items:
        key = _key(item, merge_key)
        ranks.append(keys.index(key) if key in keys else ranks[-1] if ranks else -1)
    return [item for _, item in sorted(zip(ranks, items, strict=True), key=lambda pair: pair[0])]


def _key(item: Json, merge_key: str | None) -> Json:
    return item.get(merge_key) if merge_key and isinstance(item, dict) else item


def _unknown_directive(directive: Json) -> StatusError:
    return failure(422, "Invalid", f"Unknown patch type: {directive}")


Patch: TypeAlias = Callable[[Manifest, Json], Json]

APPLY = "application/apply-patch+yaml"
"""The media type of server-side apply, which is not one of ``PATCHES``; see ``server_side_apply``."""

STRATEGIC = "application/strategic-merge-patch+json"
PATCHES: dict[str, Patch] = {
    "application/json-patch+json": json_patch,
    "application/merge-patch+json": merge_object,
    STRATEGIC: strategic_merge_patch,
}
"""The function that applies a patch, by media type."""
