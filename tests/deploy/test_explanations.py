from __future__ import annotations

import re

import pytest
from deployments import NAMES, deployment, values_of

from crosswind.deploy.explanations import explain, missing_objects


@pytest.mark.parametrize("name", NAMES)
def test_the_explanation_names_each_object_with_its_reason(name: str) -> None:
    text = "\n".join(explain(values_of(name), deployment(name)))
    for number, rendered in enumerate(deployment(name), 1):
        assert re.search(rf"^ *{number}\. {rendered.manifest['kind']} ", text, re.M)
        assert rendered.reason in text


def test_the_explanation_lists_the_objects_that_the_user_creates() -> None:
    assert missing_objects(values_of("minimal"), deployment("minimal")) == [
        ("Secret", "airflow", "airflow-database"),
        ("Secret", "airflow", "airflow-secrets"),
    ]
    missing = missing_objects(values_of("namespaces"), deployment("namespaces"))
    assert ("Secret", "team-orders", "dags-git") in missing


def test_a_secret_that_is_fetched_is_not_missing() -> None:
    assert missing_objects(values_of("eks-istio"), deployment("eks-istio")) == []
