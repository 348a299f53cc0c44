"""The types of fragments of pods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from crosswind.pods.field_types import FIELD_TYPES
from crosswind.pods.fragment_shape import fragment_problems, without_nulls
from crosswind.pods.units import is_quantity

SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
DEFINITIONS: dict[str, Any] = {
    name.rpartition(".")[2]: definition
    for name, definition in json.loads((SCHEMAS / "v1.37.0-local" / "_definitions.json").read_text())["$defs"].items()
    if name.startswith(("io.k8s.api.core.v1.", "io.k8s.apimachinery.pkg.apis.meta.v1."))
}
STRICTER = {
    ("ConfigMapVolumeSource", "name"),
    ("ConfigMapKeySelector", "name"),
    ("SecretKeySelector", "name"),
    ("ConfigMapProjection", "name"),
    ("SecretProjection", "name"),
    ("SecretVolumeSource", "secretName"),
    ("ConfigMapEnvSource", "name"),
    ("SecretEnvSource", "name"),
}
"""Fields that the API server requires although its schema does not."""
LAXER = {("ISCSIVolumeSource", "lun"), ("PodSpec", "containers")}
"""A number of which 0 is valid: the API server reads a missing one as 0. An override may have no containers."""
NOT_CHECKED = {("ObjectMeta", "managedFields"), ("Pod", "status"), ("PodSpec", "ephemeralContainers")}


def _kind(schema: dict[str, Any]) -> str:
    """Return the type of a field in the notation of the table."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition(".")[2]
        if name in {"Quantity", "Time", "IntOrString"}:
            return {"Quantity": "quantity", "Time": "text", "IntOrString": "port"}[name]
        return name if "properties" in DEFINITIONS[name] else "any"
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    (name,) = (name for name in names if name != "null")
    if name == "array":
        element = _kind(schema["items"])
        return "texts" if element == "text" else f"[{element}]"
    if name == "object":
        return {"text": "map", "quantity": "quantities"}[_kind(schema["additionalProperties"])]
    return {"string": "text", "integer": "int", "boolean": "bool"}[name]


@pytest.mark.parametrize("name", FIELD_TYPES)
def test_the_table_is_that_of_kubernetes(name: str) -> None:
    schema = DEFINITIONS[name]
    required = {*schema.get("required", [])}
    required |= {field for kind, field in STRICTER if kind == name}
    required -= {field for kind, field in LAXER if kind == name}
    expected = {
        field: ("any" if (name, field) in NOT_CHECKED else _kind(definition), field in required)
        for field, definition in schema["properties"].items()
    }
    assert FIELD_TYPES[name] == expected


def test_each_type_that_a_field_has_is_in_the_table() -> None:
    scalars = {"text", "texts", "int", "bool", "port", "quantity", "quantities", "map", "any"}
    kinds = {kind.strip("[]") for fields in FIELD_TYPES.values() for kind, _ in fields.values()}
    assert kinds - scalars <= FIELD_TYPES.keys()


@pytest.mark.parametrize("value", ["500m", "2Gi", "1.5", ".5", "5.", "1e3", "+1", "-1", "1E", "100n", 5, 0.5])
def test_quantities(value: object) -> None:
    assert is_quantity(value)


@pytest.mark.parametrize("value", ["", "1GB", "1K", "two", " 1", "1 Gi", "٣", True, None, float("inf"), [1]])
def test_no_quantities(value: object) -> None:
    assert not is_quantity(value)


def test_a_null_in_a_map_is_kept_and_a_null_field_is_dropped() -> None:
    selector = {"matchLabels": {"a": None}, "matchExpressions": None}
    assert without_nulls("LabelSelector", selector) == {"matchLabels": {"a": None}}
    assert not [*fragment_problems("LabelSelector", selector)]


@pytest.mark.parametrize("fragment", [None, 5, "x", [], {1: "x"}, {"name": {}}, {"valueFrom": [None]}, {"value": None}])
def test_any_fragment_is_checked_without_an_exception(fragment: Any) -> None:
    assert [*fragment_problems("EnvVar", fragment)]
    without_nulls("EnvVar", fragment)
