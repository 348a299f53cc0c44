from __future__ import annotations

import pytest
from kubernetes.client import models

from crosswind.pods.shape import CONTAINER_FIELDS, METADATA_FIELDS, POD_FIELDS, SPEC_FIELDS, corrected_spelling


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (models.V1Pod, POD_FIELDS),
        (models.V1ObjectMeta, METADATA_FIELDS),
        (models.V1PodSpec, SPEC_FIELDS),
        (models.V1Container, CONTAINER_FIELDS),
    ],
)
def test_the_fields_are_those_of_kubernetes(model: type, fields: frozenset[str]) -> None:
    assert set(model.attribute_map.values()) == fields  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("init_containers", "initContainers"),
        ("container", "containers"),
        ("serviceaccountname", "serviceAccountName"),
        ("containers", None),
        ("somethingNewInKubernetes", None),
    ],
)
def test_a_misspelling_is_corrected_and_an_unknown_name_passes(name: str, field: str | None) -> None:
    assert corrected_spelling(name, SPEC_FIELDS) == field
