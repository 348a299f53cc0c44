"""Clear, mark and delete through the REST API of a real Airflow, and what its event logs say. Takes minutes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from whole_airflow import WholeAirflow

from crosswind.event_loop import run_in_own_loop
from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES, PODS, SERVICE_ACCOUNTS
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster
from deadlines import scaled

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

DAGS = {
    "sleeps": """
import time
from datetime import timedelta
from airflow.sdk import DAG, task

with DAG("sleeps", schedule=None) as dag:
    # A retry that costs the delay would be seen: it is longer than any test waits.
    @task(retries=1, retry_delay=timedelta(hours=1))
    def sleeps(ti=None):
        if ti.try_number == 1:
            time.sleep(600)

    sleeps()
""",
    "waits": """
from airflow.sdk import DAG, task
from kubernetes.client import models as k8s

nowhere = k8s.V1PodSpec(containers=[k8s.V1Container(name="base")], node_selector={"disk": "of-unobtainium"})

with DAG("waits", schedule=None) as dag:
    @task(executor_config={"pod_override": k8s.V1Pod(spec=nowhere)})
    def waits():
        pass

    waits()
""",
    "defers": """
from datetime import timedelta
from airflow.sdk import DAG
from airflow.sdk.bases.operator import BaseOperator
from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

class Defers(BaseOperator):
    def execute(self, context):
        if context["ti"].try_number == 1:
            self.defer(trigger=TimeDeltaTrigger(timedelta(hours=1)), method_name="execute")

with DAG("defers", schedule=None) as dag:
    Defers(task_id="defers")
""",
    "fails": """
from airflow.sdk import DAG, task
from kubernetes.client import models as k8s

broken = k8s.V1PodSpec(containers=[k8s.V1Container(name="base", command=["sh", "-c", "exit 3"], args=[])])

with DAG("fails", schedule=None) as dag:
    @task(executor_config={"pod_override": k8s.V1Pod(spec=broken)})
    def fails():
        pass

    fails()
""",
}


@pytest.fixture(scope="module")
def airflow(
    metadata_database: Engine, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WholeAirflow]:
    if not cluster.host:
        pytest.skip("pods must reach the API server on this machine: name its address by --cluster-host")
    name = f"whole-{metadata_database.dialect.name}"

    async def create(client: Client) -> None:
        await client.create(NAMESPACES, {"metadata": {"name": name}})
        await client.list(SERVICE_ACCOUNTS, namespace=name)

    ask(cluster, create)
    home: Path = tmp_path_factory.mktemp("airflow")
    with WholeAirflow(cluster, home, name, metadata_database, DAGS) as airflow:
        airflow.pods = lambda: pods(cluster, name)  # type: ignore[attr-defined]
        yield airflow
    ask(cluster, lambda client: client.delete(NAMESPACES, name))


def ask(cluster: Cluster, work: Any) -> Any:
    async def connected() -> Any:
        async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
            return await work(client)

    return run_in_own_loop(connected, scaled(30))


def pods(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """Return the pods that are not over, by the task that they are for."""
    found = ask(cluster, lambda client: client.list(PODS, namespace=namespace)).items
    living = [pod for pod in found if pod["status"].get("phase") in ("Pending", "Running")]
    return {pod["metadata"]["annotations"]["run_id"]: pod for pod in living}


@pytest.mark.sqlite_too
def test_a_task_cleared_while_it_runs_runs_again_at_once(airflow: Any) -> None:
    airflow.trigger("sleeps", "clear")
    airflow.state("sleeps", "clear", "sleeps", "running")
    first = airflow.pods()["clear"]["metadata"]["uid"]
    airflow.clear("sleeps", "clear", "sleeps")

    def ended() -> bool:
        now = airflow.pods().get("clear")
        return now is None or now["metadata"]["uid"] != first

    airflow.until(ended, 60)
    at = time.monotonic()
    airflow.until(lambda: airflow.task("sleeps", "clear", "sleeps").get("try_number") == 2, 60)
    assert time.monotonic() - at < scaled(5)
    assert airflow.state("sleeps", "clear", "sleeps", "success", "failed")["state"] == "success"


@pytest.mark.sqlite_too
def test_a_waiting_pod_is_deleted_when_its_task_is_marked_cleared_or_deleted(airflow: Any) -> None:
    runs = ("marked", "cleared", "remade", "deleted", "again")
    for run in runs:
        airflow.trigger("waits", run)
    before = airflow.until(lambda: found if len(found := airflow.pods()) == len(runs) else None)
    uids = {run: before[run]["metadata"]["uid"] for run in runs}
    airflow.until(lambda: len(airflow.event_log("waits", "pod waits")) == len(runs))
    airflow.mark("waits", "marked", "waits", "failed")
    airflow.clear("waits", "cleared", "waits")
    airflow.delete_task("waits", "remade", "waits")  # core makes it again, as the DAG has it
    airflow.delete_run("waits", "deleted")
    airflow.delete_run("waits", "again")
    airflow.trigger("waits", "again")  # the same key, of another row

    def right() -> bool:
        now = airflow.pods()
        if set(now) != {"cleared", "remade", "again"}:
            return False
        return all(now[run]["metadata"]["uid"] != uids[run] for run in now)

    airflow.until(right, 60)
    ids = {run: pod["metadata"]["annotations"]["task_instance_id"] for run, pod in airflow.pods().items()}
    assert {run: airflow.task("waits", run, "waits")["id"] for run in ids} == ids
    for run in ids:
        airflow.delete_run("waits", run)
    airflow.until(lambda: not airflow.pods(), 60)


def test_a_task_cleared_while_it_is_deferred_runs_again(airflow: Any) -> None:
    airflow.trigger("defers", "clear")
    airflow.state("defers", "clear", "defers", "deferred")
    airflow.clear("defers", "clear", "defers")
    assert airflow.state("defers", "clear", "defers", "success", "failed")["state"] == "success"


def test_a_task_marked_while_it_runs_keeps_its_state_and_its_pod_ends(airflow: Any) -> None:
    airflow.trigger("sleeps", "mark")
    airflow.state("sleeps", "mark", "sleeps", "running")
    airflow.mark("sleeps", "mark", "sleeps", "success")
    airflow.until(lambda: "mark" not in airflow.pods(), 60)
    assert airflow.task("sleeps", "mark", "sleeps")["state"] == "success"


def test_tasks_cleared_during_their_launch_run_in_the_end_and_leave_no_pod(airflow: Any) -> None:
    for number in range(3):
        airflow.trigger("defers", f"launch{number}")
    for number in range(3):
        airflow.until(lambda number=number: airflow.task("defers", f"launch{number}", "defers").get("state"))
        airflow.clear("defers", f"launch{number}", "defers")
    for number in range(3):
        found = airflow.state("defers", f"launch{number}", "defers", "deferred", "success", "failed")
        assert found["state"] != "failed"
    airflow.until(lambda: not airflow.pods())


@pytest.mark.sqlite_too
def test_the_reason_of_a_failed_pod_is_in_the_event_log(airflow: Any) -> None:
    airflow.trigger("fails", "why")
    airflow.state("fails", "why", "fails", "failed")
    (row,) = airflow.until(lambda: airflow.event_log("fails", "pod failed"))
    assert (row["task_id"], row["run_id"], row["try_number"]) == ("fails", "why", 1)
    assert "exit code 3" in row["extra"]


def test_a_task_cleared_without_a_scheduler_runs_again_when_a_scheduler_is_back(airflow: Any) -> None:
    airflow.trigger("sleeps", "away")
    airflow.state("sleeps", "away", "sleeps", "running")
    airflow.kill_scheduler()
    airflow.clear("sleeps", "away", "sleeps")
    airflow.until(lambda: "away" not in airflow.pods(), 60)
    airflow.start_scheduler()
    assert airflow.state("sleeps", "away", "sleeps", "success", "failed")["state"] == "success"
