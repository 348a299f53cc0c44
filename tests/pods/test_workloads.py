from __future__ import annotations

from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswind.errors import ConfigError
from crosswind.pods.workloads import (
    SECRET_LIMIT,
    SecretWorkload,
    batches,
    mounted_workload,
    secrets_of,
    workload_secret,
    workload_volume,
)
from crosswind.types import Manifest


def test_a_secret_carries_each_workload_under_its_own_key() -> None:
    secret = workload_secret("w-1", "airflow", {"a": b'{"x": 1}', "b": b"{}"}, {"airflow-worker": "5"})
    assert {key: b64decode(value) for key, value in secret["data"].items()} == {"a": b'{"x": 1}', "b": b"{}"}
    assert secret["metadata"] == {
        "name": "w-1",
        "namespace": "airflow",
        "labels": {
            "airflow-worker": "5",
            "app.kubernetes.io/managed-by": "crosswind",
            "app.kubernetes.io/component": "workloads",
        },
    }
    assert "immutable" not in secret, "a token is renewed while the pod waits"


def test_a_secret_that_kubernetes_would_refuse_for_its_size_is_refused_with_the_mend() -> None:
    with pytest.raises(ConfigError, match=r"Secret airflow/w-1: 900001 bytes.*workload_delivery = args"):
        workload_secret("w-1", "airflow", {"a": b"x" * (SECRET_LIMIT + 1)})


def test_a_pod_mounts_its_own_key_alone() -> None:
    volume, mount = workload_volume(SecretWorkload("w-1", "a"))
    assert volume["secret"] == {
        "secretName": "w-1",
        "items": [{"key": "a", "path": "workload.json"}],
        "defaultMode": 0o444,
    }
    assert mount["readOnly"] is True
    assert "subPath" not in mount, "a file mounted by subPath would never be renewed"


@given(st.dictionaries(st.text(max_size=5), st.binary(max_size=40), max_size=30))
def test_batches_keep_order_lose_nothing_and_fit(payloads: dict[str, bytes]) -> None:
    parts = list(batches(payloads, limit=50))
    assert [item for part in parts for item in part.items()] == list(payloads.items())
    assert all(sum(map(len, part.values())) <= 50 for part in parts)


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ({"volumes": [workload_volume(SecretWorkload("s", "k"))[0]]}, SecretWorkload("s", "k")),
        (
            {"volumes": [{"name": "crosswind-workload", "emptyDir": {}}, {"name": "x", "secret": {}}]},
            None,
        ),
        ({"volumes": [{"name": "crosswind-workload", "secret": {"secretName": "y"}}]}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_workload_that_a_pod_mounts_is_found(spec: object, found: SecretWorkload | None) -> None:
    assert mounted_workload({"metadata": {}, "spec": spec}) == found


def test_secrets_are_those_that_pods_which_are_not_over_mount_as_their_workload() -> None:
    def mounting(secret: str, phase: str) -> Manifest:
        source = {"secretName": secret, "items": [{"key": "k", "path": "workload.json"}]}
        volumes = [{"name": "crosswind-workload", "secret": source}, {"name": "b", "secret": {"secretName": "other"}}]
        return {"metadata": {"namespace": "n"}, "spec": {"volumes": volumes}, "status": {"phase": phase}}

    pods = [mounting("runs", "Running"), mounting("over", "Failed"), {"metadata": {"namespace": "n"}, "spec": {}}]
    assert secrets_of(pods) == {("n", "runs")}
