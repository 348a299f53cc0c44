"""``crosswind pods warm``: the pods that wait for tasks, by pool."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from crosswind.cli import main
from crosswind.cli.pod_warm import pool_rows
from crosswind.engine.warm_claim_patch import CLAIM_LABEL, NONCE_ANNOTATION, OWNER_LABEL, POOL_LABEL
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster, serve_in_thread
from crosswind.types import Manifest
from kubelocal.settings import LocalSettings


def a_pod(name: str, pool: str, *, owner: str = "7", started: bool = True, **labels: str) -> Manifest:
    base: dict[str, Any] = {"name": "base", "state": {"running": {}}, "started": started, "ready": started}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": name,
            "labels": {POOL_LABEL: pool, OWNER_LABEL: owner, **labels},
            "annotations": {NONCE_ANNOTATION: "00"},
            "creationTimestamp": "2026-11-29T12:00:00Z",
        },
        "spec": {"containers": [{"name": "base", "image": "my/airflow:1"}]},
        "status": {"phase": "Running", "containerStatuses": [base]},
    }


def ended(name: str, pool: str) -> Manifest:
    pod = a_pod(name, pool)
    state = {"terminated": {"exitCode": 78, "reason": "Error"}}
    pod["status"] = {"phase": "Failed", "containerStatuses": [{"name": "base", "state": state}]}
    return pod


def test_pods_are_counted_by_pool_and_scheduler() -> None:
    pods = [a_pod("a", "p1"), a_pod("b", "p1", started=False), ended("c", "p1"), a_pod("d", "p1", owner="8")]
    rows = [
        (row.pool, row.scheduler, row.ready, row.starting, row.ended) for row in pool_rows([*pods, a_pod("e", "p2")])
    ]
    assert rows == [("p1", "7", 1, 1, 1), ("p1", "8", 1, 0, 0), ("p2", "7", 1, 0, 0)]


@pytest.fixture(scope="module")
def waiting() -> Iterator[Cluster]:
    """A cluster with two waiting pods and a claimed one."""

    async def fill() -> None:
        async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
            for pod in (a_pod("a", "p1"), a_pod("b", "p1"), a_pod("c", "p1", **{CLAIM_LABEL: "x"})):
                await client.create(PODS, {**pod, "metadata": {**pod["metadata"], "uid": None}})

    with serve_in_thread(LocalSettings(simulate=1, simulated_start=3600)) as cluster:
        asyncio.run(fill())
        yield cluster


def call(cluster: Cluster, *arguments: str) -> Result:
    environment = {"KUBECONFIG": str(cluster.kubeconfig), "COLUMNS": "80"}
    return CliRunner().invoke(main, ["pods", "warm", *arguments], env=environment, catch_exceptions=False)


def test_a_line_for_each_pool(waiting: Cluster) -> None:
    result = call(waiting)
    header, row = result.stdout.splitlines()
    cells = dict(zip(header.split(), row.split(), strict=True))
    assert (cells["POOL"], cells["STARTING"], cells["IMAGE"]) == ("p1", "2", "my/airflow:1")


def test_json_has_everything(waiting: Cluster) -> None:
    (row,) = json.loads(call(waiting, "-o", "json").stdout)
    assert (row["namespace"], row["pool"], row["scheduler"], row["starting"]) == ("default", "p1", "7", 2)
    assert row["oldest"].startswith("20")


def test_no_waiting_pod_is_no_error(waiting: Cluster) -> None:
    result = call(waiting, "-n", "kube-system")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "No pod waits for a task in namespace kube-system" in result.stderr
