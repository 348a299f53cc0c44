"""OpenAPI v3 documents of the served kinds, made from the type tables, as kubectl's apply and explain need them.

kubectl reads from them which fields exist, by which keys lists are merged, and that PATCH knows ``fieldValidation``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from hashlib import sha256

import orjson

from kubelocal.codec.kinds import GROUP_VERSIONS, SERVED, VERSION, Kind
from kubelocal.codec.schema import Field, Type, describe, struct, type_of
from kubelocal.registry.patches import APPLY, MERGE_KEYS, PATCHES, SETS
from kubelocal.types import Json, Manifest

__all__ = ["document", "index"]

META = "io.k8s.apimachinery.pkg.apis.meta.v1"
# types of apimachinery that all groups share
META_TYPES = frozenset(
    {
        "V1Condition",
        "V1LabelSelector",
        "V1LabelSelectorRequirement",
        "V1ManagedFieldsEntry",
        "V1ObjectMeta",
        "V1OwnerReference",
    }
)
KEEPS_KEYS = frozenset({"volumes", "resourceClaims"})  # lists of unions: a patch removes an item's other keys
SCALARS: dict[str, Manifest] = {
    "any": {"type": "object"},
    "bool": {"type": "boolean"},
    "bytes": {"type": "string", "format": "byte"},
    "float": {"type": "number", "format": "double"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "micro": {"type": "string", "format": "date-time"},
    "port": {"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"},
    "quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
    "string": {"type": "string"},
    "time": {"type": "string", "format": "date-time"},
}
QUERY = ("dryRun", "fieldManager", "fieldValidation", "force", "pretty")


def index() -> Manifest:
    """Answer ``/openapi/v3``: the path of each group version's document, with a hash of its content."""
    paths = {}
    for group, version in GROUP_VERSIONS:
        path = _path(group, version)
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={_hash(path)}"}
    return {"paths": paths}


@cache
def document(path: str) -> Manifest | None:
    """Answer ``/openapi/v3/PATH``, such as ``api/v1`` or ``apis/batch/v1``; None for an unknown one."""
    kinds = [kind for kind in SERVED if _path(kind.group, kind.version) == path]
    if not kinds:
        return None
    schemas: dict[str, Manifest] = {}
    for kind in kinds:
        name = type_of(kind.kind, kind.group).name
        _describe_type(name, "", schemas)
        identity = {"group": kind.group, "kind": kind.kind, "version": kind.version}
        schemas[_reference(name)]["x-kubernetes-group-version-kind"] = [identity]
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": {path: operations for kind in kinds if kind.stored for path, operations in _operations(kind)},
        "components": {"schemas": schemas},
    }


def _path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


@cache
def _hash(path: str) -> str:
    return sha256(orjson.dumps(document(path))).hexdigest()[:32].upper()


# ---------------------------------------------------------------------------------------------- schemas


def _describe_type(name: str, parent: str, schemas: dict[str, Manifest]) -> None:
    """Add a type and the types below it; ``parent`` is the field that leads to it, on which merge keys depend."""
    reference = _reference(name)
    if reference in schemas:
        return
    shape, descriptions = struct(name), describe(name)
    properties: dict[str, Manifest] = {}
    schemas[reference] = {"type": "object", "properties": properties}
    if required := sorted(field.name for field in shape.fields.values() if field.required):
        schemas[reference]["required"] = required
    for field in shape.fields.values():
        properties[field.name] = {
            "description": descriptions.get(field.name, ""),
            **_describe_field(field.type),
            **_merging(parent, field),
        }
        inner = field.type.inner or field.type
        if inner.form == "struct":
            _describe_type(inner.name, field.name, schemas)


def _describe_field(field_type: Type) -> Manifest:
    match field_type:
        case Type(form="list", inner=Type() as inner):
            return {"type": "array", "items": _describe_field(inner)}
        case Type(form="map", inner=Type() as inner):
            return {"type": "object", "additionalProperties": _describe_field(inner)}
        case Type(form="struct", name=name):
            return {"allOf": [{"$ref": f"#/components/schemas/{_reference(name)}"}]}
    return SCALARS[field_type.form]


def _merging(parent: str, field: Field) -> Manifest:
    place = (parent, field.name)
    if field.type.form == "list" and (key := MERGE_KEYS.get(place)):
        how = "merge,retainKeys" if field.name in KEEPS_KEYS else "merge"
        return {"x-kubernetes-patch-merge-key": key, "x-kubernetes-patch-strategy": how}
    return {"x-kubernetes-patch-strategy": "merge"} if place in SETS else {}


def _reference(name: str) -> str:
    """Return a type's name in Kubernetes' documents: ``io.k8s.api.core.v1.Pod``."""
    if name in META_TYPES:
        return f"{META}.{struct(name).go}"
    return f"io.k8s.api.{_homes().get(name, 'core')}.v1.{struct(name).go}"


@cache
def _homes() -> dict[str, str]:
    """Return the group of each type: that of a kind that uses it, the core group first."""
    homes: dict[str, str] = {}
    for kind in sorted(SERVED, key=lambda kind: kind.group):
        _settle(type_of(kind.kind, kind.group).name, kind.group.partition(".")[0] or "core", homes)
    return homes


def _settle(name: str, group: str, homes: dict[str, str]) -> None:
    if name not in homes and name not in META_TYPES:
        homes[name] = group
        for field in struct(name).fields.values():
            inner = field.type.inner or field.type
            if inner.form == "struct":
                _settle(inner.name, group, homes)


# ---------------------------------------------------------------------------------------------- paths


def _operations(kind: Kind) -> Iterator[tuple[str, Manifest]]:
    where = "/namespaces/{namespace}" if kind.namespaced else ""
    collection = f"{kind.path}{where}/{kind.plural}"
    schema = {"$ref": f"#/components/schemas/{_reference(type_of(kind.kind, kind.group).name)}"}
    yield collection, {"get": _operation(kind, "list", schema), "post": _operation(kind, "post", schema)}
    verbs = {"get": "get", "put": "put", "patch": "patch", "delete": "delete"}
    yield f"{collection}/{{name}}", {method: _operation(kind, action, schema) for method, action in verbs.items()}


def _operation(kind: Kind, action: str, schema: Manifest) -> Manifest:
    operation: dict[str, Json] = {
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": {"group": kind.group, "kind": kind.kind, "version": kind.version},
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}},
    }
    if action in ("post", "put", "patch"):
        media = (*PATCHES, APPLY) if action == "patch" else ("application/json",)
        operation["requestBody"] = {
            "content": {media_type: {"schema": schema} for media_type in media},
            "required": True,
        }
        operation["parameters"] = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in QUERY]
    return operation
