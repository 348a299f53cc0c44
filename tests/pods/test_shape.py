from __future__ import annotations

import pytest
from kubernetes.client import models

from crosswind.pods.field_types import FIELD_TYPES, corrected_spelling


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (models.V1Pod, "Pod"),
        (models.V1ObjectMeta, "ObjectMeta"),
        (models.V1PodSpec, "PodSpec"),
        (models.V1Container, "Container"),
    ],
)
def test_the_fields_of_the_python_client_are_known(model: type, kind: str) -> None:
    assert set(model.attribute_map.values()) <= FIELD_TYPES[kind].keys()  # type: ignore[attr-defined]


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
    assert corrected_spelling(name, FIELD_TYPES["PodSpec"]) == field
