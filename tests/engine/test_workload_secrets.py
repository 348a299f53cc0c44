from __future__ import annotations

from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswind.engine.workload_secrets import (
    SECRET_LIMIT,
    SecretBatch,
    SecretBatches,
    SecretWorkload,
    mounted_workload,
    secrets_of,
    split_payloads,
    workload_secret,
    workload_volume,
)
from crosswind.errors import ConfigError
from crosswind.types import Manifest
from crosswind.worker import shim


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


def test_a_secret_that_is_too_large_is_refused_with_the_fix() -> None:
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
def test_split_payloads_keep_their_order_and_fit(payloads: dict[str, bytes]) -> None:
    parts = list(split_payloads(payloads, limit=50))
    assert [item for part in parts for item in part.items()] == list(payloads.items())
    assert all(sum(map(len, part.values())) <= 50 for part in parts)


def test_the_shim_is_in_the_secret_once() -> None:
    secret = workload_secret("w-1", "airflow", {"a": b"{}", "b": b"{}"}, shim=True)
    assert set(secret["data"]) == {"a", "b", "worker.py"}
    assert b64decode(secret["data"]["worker.py"]) == Path(shim.__file__).read_bytes()
    volume, _ = workload_volume(SecretWorkload("w-1", "a", shim=True))
    assert mounted_workload({"spec": {"volumes": [volume]}}) == SecretWorkload("w-1", "a", shim=True)


def test_the_shim_is_small_beside_a_batch_of_workloads() -> None:
    assert Path(shim.__file__).stat().st_size <= 30_000


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
def test_the_mounted_workload_of_a_pod_is_found(spec: object, found: SecretWorkload | None) -> None:
    assert mounted_workload({"metadata": {}, "spec": spec}) == found


def test_secrets_of_pods_are_those_that_unfinished_pods_mount_as_their_workload() -> None:
    def mounting(secret: str, phase: str) -> Manifest:
        source = {"secretName": secret, "items": [{"key": "k", "path": "workload.json"}]}
        volumes = [{"name": "crosswind-workload", "secret": source}, {"name": "b", "secret": {"secretName": "other"}}]
        return {"metadata": {"namespace": "n"}, "spec": {"volumes": volumes}, "status": {"phase": phase}}

    pods = [mounting("runs", "Running"), mounting("over", "Failed"), {"metadata": {"namespace": "n"}, "spec": {}}]
    assert secrets_of(pods) == {("n", "runs")}


def two_users() -> SecretBatches:
    batches = SecretBatches()
    batches.add(SecretBatch("s", "ns", minted_at=10.0, users={"a": lambda: b"1", "b": lambda: b"2"}))
    return batches


def test_a_secret_is_unused_after_its_last_pod_has_released_it() -> None:
    batches = two_users()
    assert batches.release("ns", "s", "a") is None
    spent = batches.release("ns", "s", "b")
    assert spent is not None
    assert spent.name == "s"
    assert ("ns", "s") not in batches
    assert batches.release("ns", "s", "b") is None


def test_only_secrets_with_an_unread_key_need_new_tokens() -> None:
    batches = two_users()
    batches.mark_read("ns", "s", "a")
    assert [batch.unread for batch in batches.stale(minted_before=11.0)] == [{"b"}]
    assert not list(batches.stale(minted_before=10.0))
    batches.mark_read("ns", "s", "b")
    assert not list(batches.stale(minted_before=11.0))


def test_a_secret_that_is_being_created_is_not_unused_before_the_request_ends() -> None:
    batches = SecretBatches()
    batch = SecretBatch("s", "ns", minted_at=0.0, users={"a": lambda: b"1"}, pending=True)
    batches.add(batch)
    assert not batches.exists("ns", "s")
    assert not list(batches.stale(minted_before=1.0))
    assert batches.release("ns", "s", "a") is None
    assert batches.pending() == [batch]
    assert batches.creation_ended(batch) is batch
    assert ("ns", "s") not in batches


def test_a_created_secret_with_users_stays() -> None:
    batches = SecretBatches()
    batch = SecretBatch("s", "ns", minted_at=0.0, users={"a": lambda: b"1"}, pending=True)
    batches.add(batch)
    assert batches.creation_ended(batch) is None
    assert batches.exists("ns", "s")
