"""Pods that the cluster takes cost a real Airflow's tasks no retry. Takes minutes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from whole_airflow import WholeAirflow

from crosswind.errors import Conflict, NotFound
from crosswind.event_loop import run_in_own_loop
from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES, PODS, SERVICE_ACCOUNTS
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster
from deadlines import scaled

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

DAGS = {
    "lost": """
import os
import time
from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import DAG, BaseOperator, BaseSensorOperator, task


def called(context):
    # A failure that the executor reports has its callback run by the DAG processor, whose home is this machine's.
    Path(os.environ["AIRFLOW_HOME"], f"called-{context['run_id']}").touch()


def block(ti, tries):
    print("began", flush=True)
    if ti.try_number <= tries:
        time.sleep(600)


calls = {"on_failure_callback": called, "on_retry_callback": called}

with DAG("once", schedule=None) as dag:

    @task(retries=0, **calls)
    def once(ti=None):
        block(ti, 1)

    once()

with DAG("thrice", schedule=None) as dag:

    @task(retries=1, retry_delay=timedelta(seconds=0), **calls)
    def thrice(ti=None):
        block(ti, 1)
        if ti.try_number == 2:
            raise ValueError("the task's own failure")

    thrice()

with DAG("ever", schedule=None) as dag:

    @task(retries=0, executor_config={"crosswind": {"infra_retries": 1}})
    def ever(ti=None):
        block(ti, 99)

    ever()

with DAG("never", schedule=None) as dag:

    @task(retries=0, executor_config={"crosswind": {"infra_retries": 0}}, **calls)
    def never(ti=None):
        block(ti, 99)

    never()

with DAG("mapped", schedule=None) as dag:

    @task(retries=0)
    def mapped(number, ti=None):
        block(ti, 1 if number == 1 else 0)

    mapped.expand(number=[0, 1, 2])


class Sensor(BaseSensorOperator):
    def poke(self, context):
        if context["task_reschedule_count"] == 1 and context["ti"].try_number == 1:
            # Only here: the pod of the first poke, which has stored its reschedule and ends, is not the one to evict.
            print("began", flush=True)
            time.sleep(600)
        return context["ti"].try_number > 1 and context["task_reschedule_count"] >= 2


with DAG("sensor", schedule=None) as dag:
    Sensor(task_id="sensor", mode="reschedule", poke_interval=1, timeout=3600, retries=0)


class Defers(BaseOperator):
    def execute(self, context):
        print("executes", flush=True)
        self.defer(trigger=TimeDeltaTrigger(timedelta(seconds=1)), method_name="resume")

    def resume(self, context, event=None):
        print("began", flush=True)
        block(context["ti"], 1)


with DAG("defers", schedule=None) as dag:
    Defers(task_id="defers", retries=0)
""",
}


@pytest.fixture(scope="module")
def airflow(metadata_database: Engine, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not cluster.host:
        pytest.skip("pods must reach the API server on this machine: name its address by --cluster-host")
    name = f"losses-{metadata_database.dialect.name}"

    async def create(client: Client) -> None:
        await client.create(NAMESPACES, {"metadata": {"name": name}})
        await client.list(SERVICE_ACCOUNTS, namespace=name)

    ask(cluster, create)
    home: Path = tmp_path_factory.mktemp("airflow")
    with WholeAirflow(cluster, home, name, metadata_database, DAGS) as airflow:
        yield Losses(airflow, cluster, name, home)
    ask(cluster, lambda client: client.delete(NAMESPACES, name))


def ask(cluster: Cluster, work: Any) -> Any:
    async def connected() -> Any:
        async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
            return await work(client)

    return run_in_own_loop(connected, scaled(60))


class Losses:
    """Takes the pods of tasks as the cluster does."""

    def __init__(self, airflow: WholeAirflow, cluster: Cluster, namespace: str, home: Path) -> None:
        self.airflow, self.cluster, self.namespace, self.home = airflow, cluster, namespace, home

    def pod(self, task_id: str, run_id: str, map_index: int = -1) -> dict[str, Any] | None:
        """Return the pod in which a task runs its own code, None while there is none."""

        async def find(client: Client) -> dict[str, Any] | None:
            for pod in (await client.list(PODS, namespace=self.namespace)).items:
                facts, metadata = pod["metadata"]["annotations"], pod["metadata"]
                mine = (facts["task_id"], facts["run_id"], int(facts.get("map_index", -1)))
                running = pod["status"].get("phase") == "Running" and "deletionTimestamp" not in metadata
                if mine == (task_id, run_id, map_index) and running:
                    log = await client.log(metadata["name"], namespace=self.namespace, container="base")
                    return pod if b"began" in log else None
            return None

        found: dict[str, Any] | None = ask(self.cluster, find)
        return found

    def evict(self, dag_id: str, run_id: str, map_index: int = -1) -> str:
        """Evict the pod of a run's task once it runs its own code; return the task instance's id."""
        pod = self.airflow.until(lambda: self.pod(dag_id, run_id, map_index))
        ask(self.cluster, lambda client: evict(client, self.namespace, pod["metadata"]["name"]))
        return str(pod["metadata"]["annotations"]["task_instance_id"])

    def evict_if_there(self, run_id: str) -> None:
        """Evict the pod of a task that may be about to end by itself."""

        async def try_to(client: Client) -> None:
            for pod in (await client.list(PODS, namespace=self.namespace)).items:
                if pod["metadata"]["annotations"]["run_id"] == run_id:
                    with contextlib.suppress(NotFound, Conflict):
                        await evict(client, self.namespace, pod["metadata"]["name"])

        ask(self.cluster, try_to)

    def event(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        rows = self.airflow.event_log(dag_id, "pod lost")
        return sorted((row for row in rows if row["run_id"] == run_id), key=lambda row: row["try_number"])

    def tries(self, dag_id: str, run_id: str) -> list[Any]:
        """Return try number, most tries and state of the only task of a run."""
        query = "select try_number, max_tries, state from task_instance where dag_id = :dag and run_id = :run"
        return self.airflow.rows(query, dag=dag_id, run=run_id)

    def base_end(self, ti_id: str) -> datetime.datetime:
        """Return when the base container of a lost try ended, as the row of its pod has it."""
        query = "select ended_at from crosswind_pod where ti_id = :ti_id and outcome = 'lost'"
        ((moment,),) = self.airflow.until(lambda: self.airflow.rows(query, ti_id=ti_id))
        ended = datetime.datetime.fromisoformat(str(moment))
        return ended if ended.tzinfo else ended.replace(tzinfo=datetime.UTC)

    def called(self, run_id: str) -> bool:
        return (self.home / f"called-{run_id}").exists()


async def evict(client: Client, namespace: str, name: str) -> None:
    """Do what the eviction subresource does: mark the pod, then delete it."""
    pod = await client.get(PODS, name, namespace=namespace)
    mark = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "drained"}
    status = {"status": {"conditions": [*pod["status"]["conditions"], mark]}}
    await client.patch(PODS, name, status, namespace=namespace, subresource="status")
    async with asyncio.timeout(scaled(30)):
        await client.delete(PODS, name, namespace=namespace)


@pytest.mark.sqlite_too
def test_a_task_without_retries_succeeds_in_its_second_pod(airflow: Losses) -> None:
    airflow.airflow.trigger("once", "evicted")
    lost_id = airflow.evict("once", "evicted")
    end = airflow.airflow.state("once", "evicted", "once", "success", "failed")
    assert (end["state"], end["try_number"]) == ("success", 2)
    assert end["id"] != lost_id
    assert airflow.tries("once", "evicted") == [(2, 1, "success")]
    (row,) = airflow.event("once", "evicted")
    assert (row["task_id"], row["try_number"]) == ("once", 1)
    assert "evicted by request" in row["extra"]
    assert row["extra"].endswith("without using up a retry (loss 1 of 3)")
    ended = airflow.base_end(lost_id)
    replaced = datetime.datetime.fromisoformat(row["when"]) - ended
    assert replaced.total_seconds() < scaled(5), replaced
    mismatches = airflow.airflow.event_log("once", "state mismatch")
    assert [row for row in mismatches if row["run_id"] == "evicted"] == []  # other tests mark tasks of this DAG
    assert not airflow.called("evicted")


def test_a_loss_leaves_the_retries_to_the_tasks_own_failures(airflow: Losses) -> None:
    airflow.airflow.trigger("thrice", "budget")
    airflow.evict("thrice", "budget")
    end = airflow.airflow.state("thrice", "budget", "thrice", "success", "failed")
    assert (end["state"], end["try_number"]) == ("success", 3)
    assert len(airflow.event("thrice", "budget")) == 1


def test_a_task_that_is_lost_more_often_than_it_may_fails_with_the_reason(airflow: Losses) -> None:
    airflow.airflow.trigger("ever", "limit")
    airflow.evict("ever", "limit")
    airflow.evict("ever", "limit")
    end = airflow.airflow.state("ever", "limit", "ever", "success", "failed")
    assert (end["state"], end["try_number"]) == ("failed", 2)
    (row,) = airflow.airflow.until(lambda: airflow.airflow.event_log("ever", "pod failed"))
    assert "evicted by request" in row["extra"]
    assert row["extra"].endswith("It gets no further try: it is loss 2 in a row, and infra_retries is 1")


def test_a_task_that_must_not_run_twice_fails_at_its_first_loss(airflow: Losses) -> None:
    airflow.airflow.trigger("never", "zero")
    airflow.evict("never", "zero")
    end = airflow.airflow.state("never", "zero", "never", "success", "failed")
    assert (end["state"], end["try_number"]) == ("failed", 1)
    airflow.airflow.until(lambda: airflow.called("zero"))


def test_of_mapped_tasks_only_the_lost_one_runs_again(airflow: Losses) -> None:
    airflow.airflow.trigger("mapped", "map")
    airflow.evict("mapped", "map", map_index=1)
    query = "select map_index, try_number, state from task_instance where run_id = 'map' order by map_index"
    expected = [(0, 1, "success"), (1, 2, "success"), (2, 1, "success")]
    airflow.airflow.until(lambda: airflow.airflow.rows(query) == expected)


def test_a_sensor_that_is_lost_keeps_its_start(airflow: Losses) -> None:
    airflow.airflow.trigger("sensor", "start")

    def reschedules() -> list[Any]:
        query = """select r.start_date from task_reschedule r join task_instance t on t.id = r.ti_id
        where t.run_id = 'start' order by r.id"""
        return airflow.airflow.rows(query)

    first = airflow.airflow.until(reschedules)[0]
    airflow.evict("sensor", "start")
    airflow.airflow.until(lambda: len(reschedules()) >= 2)
    assert reschedules()[0] == first
    end = airflow.airflow.state("sensor", "start", "sensor", "success", "failed")
    assert (end["state"], end["try_number"]) == ("success", 2)
    assert reschedules()[0] == first


def test_a_task_that_is_lost_after_its_deferral_executes_from_its_beginning(airflow: Losses) -> None:
    airflow.airflow.trigger("defers", "again")
    airflow.evict("defers", "again")
    end = airflow.airflow.state("defers", "again", "defers", "success", "failed")
    assert (end["state"], end["try_number"]) == ("success", 2)
    answer = airflow.airflow.api.get("/api/v2/dags/defers/dagRuns/again/taskInstances/defers/logs/2?full_content=true")
    assert "executes" in json.dumps(answer.json())


@pytest.mark.parametrize("state", ["success", "failed"])
def test_what_a_person_marks_while_the_pod_ends_stays(airflow: Losses, state: str) -> None:
    run_id = f"marked-{state}"
    airflow.airflow.trigger("once", run_id)
    airflow.airflow.until(lambda: airflow.pod("once", run_id))
    airflow.airflow.mark("once", run_id, "once", state)
    airflow.evict_if_there(run_id)
    airflow.airflow.until(lambda: airflow.pod("once", run_id) is None)
    assert airflow.airflow.task("once", run_id, "once")["state"] == state
    assert airflow.event("once", run_id) == []


@pytest.mark.sqlite_too
def test_a_task_that_a_person_clears_while_its_pod_ends_is_cleared(airflow: Losses) -> None:
    airflow.airflow.trigger("once", "cleared")
    airflow.airflow.until(lambda: airflow.pod("once", "cleared"))
    airflow.airflow.clear("once", "cleared", "once")
    airflow.evict_if_there("cleared")
    end = airflow.airflow.state("once", "cleared", "once", "success", "failed")
    assert (end["state"], end["try_number"]) == ("success", 2)
    assert airflow.event("once", "cleared") == []


def test_a_pod_that_is_taken_while_no_scheduler_runs_costs_no_retry_either(airflow: Losses) -> None:
    airflow.airflow.trigger("once", "away")
    airflow.airflow.until(lambda: airflow.pod("once", "away"))
    airflow.airflow.kill_scheduler()
    airflow.evict("once", "away")
    airflow.airflow.until(lambda: airflow.pod("once", "away") is None)
    airflow.airflow.start_scheduler()
    end = airflow.airflow.state("once", "away", "once", "success", "failed")
    assert (end["state"], end["try_number"]) == ("success", 2)
    (row,) = airflow.event("once", "away")
    assert row["extra"].endswith("without using up a retry (loss 1 of 3)")
