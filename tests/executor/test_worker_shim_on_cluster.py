"""The worker shim in the pods of a real Airflow: what the executor makes of its reports. Takes a minute or two."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.databases import sqlite
from whole_airflow import WholeAirflow

from crosswind.event_loop import run_in_own_loop
from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES, PODS, SERVICE_ACCOUNTS
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster
from deadlines import scaled

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

DAGS = {
    "shim": """
from datetime import timedelta
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, task

with DAG("held", schedule=None) as dag:
    BashOperator(task_id="once", bash_command="sleep 600; true")
    BashOperator(task_id="thrice", bash_command="sleep 600; true", retries=2, retry_delay=timedelta(hours=1))

with DAG("quick", schedule=None) as dag:
    @task
    def quick():
        print("hello")
    quick()
"""
}
NAMESPACE = "worker-shim"


@pytest.fixture(scope="module")
def airflow(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeAirflow]:
    if not cluster.host:
        pytest.skip("pods must reach the API server on this machine: name its address by --cluster-host")

    async def create(client: Client) -> None:
        await client.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
        await client.list(SERVICE_ACCOUNTS, namespace=NAMESPACE)

    ask(cluster, create)
    with (
        sqlite(tmp_path_factory.mktemp("db")) as engine,
        WholeAirflow(
            cluster,
            tmp_path_factory.mktemp("airflow"),
            NAMESPACE,
            engine,
            DAGS,
            AIRFLOW__KUBERNETES_EXECUTOR__DELETE_WORKER_PODS="False",
            AIRFLOW__CROSSWIND__INFRA_RETRIES="0",
        ) as airflow,
    ):
        yield airflow
    ask(cluster, lambda client: client.delete(NAMESPACES, NAMESPACE))


def ask(cluster: Cluster, work: Any) -> Any:
    async def connected() -> Any:
        async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
            return await work(client)

    return run_in_own_loop(connected, 60)


async def pods_of(client: Client, task_id: str) -> list[dict[str, Any]]:
    listed = await client.list(PODS, namespace=NAMESPACE, labels="kubernetes_executor=True")
    return [pod for pod in listed.items if pod["metadata"]["annotations"]["task_id"] == task_id]


def ended(pod: dict[str, Any]) -> dict[str, Any]:
    """Return how base ended, {} while it has not."""
    statuses = pod["status"].get("containerStatuses") or [{}]
    terminated: dict[str, Any] = (statuses[0].get("state") or {}).get("terminated") or {}
    return terminated


async def deleted(client: Client, task_id: str, reason: str | None) -> dict[str, Any]:
    """Delete a task's pod as an eviction does, with its mark, or as a person does; return how base ended."""
    (pod,) = await pods_of(client, task_id)
    name = pod["metadata"]["name"]
    if reason:
        condition = {"type": "DisruptionTarget", "status": "True", "reason": reason}
        status = {"status": {"conditions": [*pod["status"]["conditions"], condition]}}
        await client.patch(PODS, name, status, namespace=NAMESPACE, subresource="status")
    end: dict[str, Any] = {}
    async with asyncio.timeout(scaled(60)):
        listed = await client.list(PODS, namespace=NAMESPACE, fields=f"metadata.name={name}")
        await client.delete(PODS, name, namespace=NAMESPACE)
        async for event in client.watch(
            PODS, namespace=NAMESPACE, fields=f"metadata.name={name}", version=listed.version, timeout=60
        ):
            end = ended(event["object"]) or end
            if event["type"] == "DELETED":
                break
    return end


def test_a_quick_task_leaves_its_report(airflow: WholeAirflow, cluster: Cluster) -> None:
    airflow.trigger("quick", "report")
    airflow.state("quick", "report", "quick", "success")

    def over() -> Any:
        (pod,) = ask(cluster, lambda client: pods_of(client, "quick"))
        return ended(pod)

    end = airflow.until(over)
    record = json.loads(end["message"])
    assert end["exitCode"] == 0
    assert record["run"] >= 0
    assert record["imports"] > 0
    assert "reason" not in record


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("EvictionByEvictionAPI", "the pod was evicted by request"),
        (None, "was terminated (SIGTERM) while its task ran"),
    ],
)
def test_a_worker_that_is_terminated_leaves_the_failure_to_the_executor(
    airflow: WholeAirflow, cluster: Cluster, reason: str | None, says: str
) -> None:
    run_id = f"terminated-{reason}"
    airflow.trigger("held", run_id)
    for task_id, state in (("once", "failed"), ("thrice", "up_for_retry")):
        airflow.state("held", run_id, task_id, "running")
        airflow.until(lambda task_id=task_id: began(cluster, task_id))
        end = ask(cluster, lambda client, task_id=task_id: deleted(client, task_id, reason))
        assert end["exitCode"] == 143
        assert json.loads(end["message"])["reason"] == "terminated"
        airflow.state("held", run_id, task_id, state)

    def rows() -> Any:
        found = [row for row in airflow.event_log("held", "pod failed") if row["run_id"] == run_id]
        return found if {row["task_id"] for row in found} == {"once", "thrice"} else None

    assert all(says in row["extra"] for row in airflow.until(rows))


def began(cluster: Cluster, task_id: str) -> bool:
    """Whether the shell of a task's BashOperator runs: its log says so."""

    async def read(client: Client) -> bytes:
        (pod,) = [pod for pod in await pods_of(client, task_id) if not ended(pod)]
        return await client.log(pod["metadata"]["name"], namespace=NAMESPACE, container="base")

    return b"Running command" in ask(cluster, read)
