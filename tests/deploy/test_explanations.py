from __future__ import annotations

import re

import pytest
from deployments import NAMES, deployment, values_of

from crosswind.deploy.explanations import explain, yours


@pytest.mark.parametrize("name", NAMES)
def test_walk_names_each_object_with_its_reason(name: str) -> None:
    told = "\n".join(explain(values_of(name), deployment(name)))
    for number, rendered in enumerate(deployment(name), 1):
        assert re.search(rf"^ *{number}\. {rendered.manifest['kind']} ", told, re.M)
        assert rendered.reason in told


def test_walk_says_what_the_user_has_to_make() -> None:
    assert yours(values_of("minimal"), deployment("minimal")) == [
        ("Secret", "airflow", "airflow-database"),
        ("Secret", "airflow", "airflow-secrets"),
    ]
    found = yours(values_of("namespaces"), deployment("namespaces"))
    assert ("Secret", "team-orders", "dags-git") in found


def test_what_is_fetched_is_not_the_users_to_make() -> None:
    assert yours(values_of("eks-istio"), deployment("eks-istio")) == []
