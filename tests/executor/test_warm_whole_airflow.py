"""Tasks of a real Airflow in pods that waited for them. Takes a minute or two."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from test_worker_shim_on_cluster import ask
from tests.databases import sqlite
from whole_airflow import WholeAirflow

from crosswind.engine.warm_claim_patch import CLAIM_LABEL, POOL_LABEL
from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES, PODS, SERVICE_ACCOUNTS
from crosswind.testing import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

NAMESPACE = "warm-airflow"
CHAIN = "step", "second", "join"
DAGS = {
    "warm": """
from airflow.sdk import DAG, task

with DAG("chain", schedule=None) as dag:
    @task
    def step(number):
        print("step", number)
        return number
    @task
    def join(number):
        return number
    join(join.override(task_id="second")(step(1)))

with DAG("failing", schedule=None) as dag:
    @task
    def fails():
        raise ValueError("its own fault")
    fails()
"""
}


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
            AIRFLOW__CROSSWIND__WARM=json.dumps({"min": 2, "max": 3}),
            AIRFLOW__KUBERNETES_EXECUTOR__DELETE_WORKER_PODS="False",
            AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME="0.1",
        ) as airflow,
    ):
        yield airflow
    ask(cluster, lambda client: client.delete(NAMESPACES, NAMESPACE))


def pods(cluster: Cluster, label: str) -> list[Any]:
    found = ask(cluster, lambda client: client.list(PODS, namespace=NAMESPACE, labels=label))
    return list(found.items)


def ready(cluster: Cluster) -> list[Any]:
    def started(pod: Any) -> bool:
        return any(status.get("started") for status in pod["status"].get("containerStatuses") or ())

    return [pod for pod in pods(cluster, POOL_LABEL) if started(pod)]


def test_a_task_that_fails_in_a_claimed_pod_has_failed(airflow: WholeAirflow, cluster: Cluster) -> None:
    airflow.until(lambda: ready(cluster))
    airflow.trigger("failing", "one")
    airflow.state("failing", "one", "fails", "failed")
    # The first request of an API server takes longer than a claim may: then the task has had a pod of its own.
    pod, *_ = pods(cluster, "task_id=fails")
    assert pod["metadata"]["labels"]["run_id"] == "one"


def test_a_chain_of_tasks_runs_in_waiting_pods_one_task_each(airflow: WholeAirflow, cluster: Cluster) -> None:
    airflow.until(lambda: len(ready(cluster)) >= 2)  # three after a test whose tasks started cold
    airflow.trigger("chain", "one")
    for task in CHAIN:
        airflow.state("chain", "one", task, "success")
    claimed = pods(cluster, f"{CLAIM_LABEL},run_id=one,dag_id=chain")
    assert claimed, "a busy machine may be late for one task of the three, not for all"
    assert len({pod["metadata"]["labels"][CLAIM_LABEL] for pod in claimed}) == len(claimed)
    # Of this run alone: the row of a pod that a second scheduler adopted, in another test, has no time of a claim.
    rows = airflow.rows(
        "select detail from crosswind_pod where dag_id = 'chain' and run_id = 'one' and name like 'crosswind-warm-%'"
    )
    for (detail,) in rows:
        times = json.loads(detail)["times"]
        assert times["queued"] <= times["claimed"] < times["ended"] + 1  # the kubelet writes whole seconds


def test_a_killed_scheduler_costs_no_task_in_a_claimed_pod(airflow: WholeAirflow, cluster: Cluster) -> None:
    airflow.until(lambda: len(ready(cluster)) >= 2)  # three after a test whose tasks started cold
    airflow.trigger("chain", "two")
    airflow.until(lambda: pods(cluster, f"{CLAIM_LABEL},run_id=two"))
    airflow.kill_scheduler()
    airflow.start_scheduler()
    for task in CHAIN:
        airflow.state("chain", "two", task, "success")
    tries = airflow.rows("select task_id, try_number, state from task_instance where run_id = 'two'")
    assert {state for _, _, state in tries} == {"success"}
