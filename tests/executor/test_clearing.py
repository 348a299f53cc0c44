"""A task that is cleared, marked or deleted while it has a pod: the report to Airflow, and the end of the pod.

The rows change here as core changes them; in ``test_whole_airflow.py`` core changes them.
"""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client import models as k8s

from crosswind.executor import KubernetesExecutor
from crosswind.kube.resources import Resource
from crosswind.testing import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(90)]

NOWHERE = {
    "pod_override": k8s.V1Pod(
        spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base")], node_selector={"disk": "of-unobtainium"})
    )
}
FORMER, NEW = 11, 12


@pytest.fixture
def clearing(running: Any) -> Any:
    """A bench that compares its pods with the database soon, and keeps failed pods."""
    running.set("crosswind", settle_interval="0.5")
    running.script("exec sleep 60")
    return running


def clear(bench: Any, key: Any) -> None:
    """Clear as ``clear_task_instances`` does: the row gets a new id, and a running one keeps its other columns."""
    was_running = bench.rows("select state from task_instance where id = ?", bench.ids[key]) == [("running",)]
    new = uuid.uuid4().hex
    if was_running:
        bench.database("update task_instance set id = ?, state = 'restarting' where id = ?", new, bench.ids[key])
    else:
        statement = "update task_instance set id = ?, state = null, external_executor_id = null where id = ?"
        bench.database(statement, new, bench.ids[key])
    bench.ids[key] = new


def delete_row(bench: Any, key: Any) -> None:
    bench.database("delete from task_instance where id = ?", bench.ids[key])


def started(bench: Any, count: int = 1) -> Any:
    """Call heartbeats until so many workers run."""

    def begun() -> bool:
        figures = bench.executor._engine.figures()
        return bool(figures["running"] == count)

    return bench.until(begun)


def freed(bench: Any, timeout: float = 20.0) -> None:
    """Call heartbeats until the executor has no task and no pod, for as long as a comparison may take."""
    bench.until(lambda: not bench.executor.running and bench.is_empty() and not bench.pods(), timeout)


@pytest.mark.usefixtures("serialized")
@pytest.mark.parametrize("script", ["sleep 2", "sleep 2; exit 1"])
def test_a_task_cleared_while_it_runs_is_reported_as_success_until_its_row_changes(clearing: Any, script: str) -> None:
    clearing.script(script)
    clearing.start()
    key = clearing.queue()
    started(clearing)
    clearing.state(key, "running")
    clear(clearing, key)
    clearing.until(lambda: len(clearing.events.get(key, ())) >= 2)
    assert {event[0] for event in clearing.events[key]} == {"success"}
    clearing.state(key, "scheduled")
    clearing.until(clearing.is_empty)
    assert clearing.executor.running == set()


def test_a_cleared_task_whose_dag_is_not_serialized_is_rescheduled(clearing: Any) -> None:
    """Core does not find the DAG, and would store a reported SUCCESS as the task's result."""
    clearing.script("sleep 2; exit 1")
    scheduler(clearing, NEW)
    key = clearing.queue()
    started(clearing)
    clearing.database("update task_instance set queued_by_job_id = ?, state = 'running', max_tries = 2", NEW)
    clear(clearing, key)
    clearing.until(clearing.is_empty)
    assert clearing.events == {}
    columns = "state, external_executor_id, queued_by_job_id, max_tries, id"
    assert clearing.rows(f"select {columns} from task_instance") == [(None, None, None, 3, clearing.ids[key])]


@pytest.mark.parametrize("end", ["failed", "success", "skipped"])
def test_an_unstarted_pod_is_deleted_when_its_task_is_marked(clearing: Any, end: str) -> None:
    clearing.start()
    key = clearing.queue(config=NOWHERE)
    clearing.until(clearing.pods)
    clearing.state(key, end)
    freed(clearing)
    assert clearing.events == {}


def test_an_unstarted_pod_is_deleted_when_its_task_is_cleared(clearing: Any) -> None:
    clearing.start()
    key = clearing.queue(config=NOWHERE)
    clearing.until(clearing.pods)
    clear(clearing, key)
    freed(clearing)
    assert clearing.events == {}


def test_a_pod_is_deleted_with_its_task_instance_started_or_not(clearing: Any) -> None:
    clearing.set("kubernetes_executor", delete_worker_pods="True", delete_worker_pods_on_failure="False")
    clearing.script("exec sleep 2")
    clearing.start()
    waiting, running = clearing.queue("waiting", config=NOWHERE), clearing.queue("running")
    started(clearing)
    clearing.state(running, "running")
    delete_row(clearing, waiting)
    delete_row(clearing, running)
    freed(clearing)
    assert clearing.events == {}


def test_a_started_pod_ends_by_itself_when_its_task_is_marked(clearing: Any) -> None:
    clearing.script("sleep 4; exit 1")
    clearing.set("kubernetes_executor", delete_worker_pods_on_failure="False")
    clearing.start()
    key = clearing.queue()
    started(clearing)
    clearing.state(key, "failed")
    clearing.until(lambda: not clearing.executor.running)
    (pod,) = clearing.pods()
    assert pod["status"]["phase"] == "Failed"
    assert clearing.events == {}


def test_a_row_created_again_under_the_same_key_gets_its_own_pod(clearing: Any) -> None:
    clearing.start()
    key = clearing.queue(config=NOWHERE)
    (before,) = clearing.until(clearing.pods)
    delete_row(clearing, key)
    assert clearing.queue(config=NOWHERE) == key

    def replaced() -> bool:
        pods = clearing.pods()
        return len(pods) == 1 and pods[0]["metadata"]["uid"] != before["metadata"]["uid"]

    clearing.until(replaced)
    assert clearing.executor.running == {key}
    assert clearing.events == {}


def test_the_launch_of_a_pod_that_a_quota_refuses_is_given_up_when_its_task_is_cleared(
    clearing: Any, cluster: Cluster
) -> None:
    if not cluster.local:
        pytest.skip("the quota would hold up other tests")
    quotas = Resource("", "v1", "resourcequotas", "ResourceQuota")
    quota = {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    clearing.ask(lambda client: client.create(quotas, quota, namespace=clearing.namespace))
    clearing.start()
    key = clearing.queue()
    clearing.until(lambda: clearing.executor._engine.figures()["waiting"])
    clear(clearing, key)
    clearing.until(lambda: not clearing.executor.running)
    clearing.ask(lambda client: client.delete(quotas, "none", namespace=clearing.namespace))
    freed(clearing)
    assert clearing.events == {}


def test_a_task_cleared_between_its_launch_and_its_start_leaves_no_pod(clearing: Any) -> None:
    clearing.start(parallelism=30)
    keys = [clearing.queue(f"task{number}", config=NOWHERE) for number in range(20)]
    clearing.beat()  # some are composed, some are being created
    for key in keys:
        clear(clearing, key)
    freed(clearing, 40)
    assert clearing.events == {}


def scheduler(bench: Any, job_id: int) -> None:
    bench.end()
    bench.executor = KubernetesExecutor(parallelism=8)
    bench.executor.job_id = job_id
    bench.executor.start()


def adopt(bench: Any, key: Any) -> None:
    query = "select state, external_executor_id from task_instance where id = ?"
    ((state, external),) = bench.rows(query, bench.ids[key])
    parts = {"dag_id": key.dag_id, "task_id": key.task_id, "run_id": key.run_id, "map_index": key.map_index}
    ti = SimpleNamespace(id=uuid.UUID(bench.ids[key]), state=state, external_executor_id=external, **parts)
    assert bench.executor.try_adopt_task_instances([ti]) == []
    bench.database("update task_instance set queued_by_job_id = ? where id = ?", NEW, bench.ids[key])


@pytest.mark.usefixtures("serialized")
def test_the_next_scheduler_reports_a_task_that_was_cleared_without_a_scheduler(clearing: Any) -> None:
    clearing.script("exec sleep 12")
    scheduler(clearing, FORMER)
    key = clearing.queue()
    clearing.database("update task_instance set queued_by_job_id = ?", FORMER)
    started(clearing)
    clearing.state(key, "running")
    (pod,) = clearing.pods()
    clearing.end()
    clear(clearing, key)
    scheduler(clearing, NEW)
    adopt(clearing, key)
    started(clearing)
    assert [one["metadata"]["uid"] for one in clearing.pods()] == [pod["metadata"]["uid"]]
    clearing.until(lambda: clearing.events.get(key), 40)
    assert clearing.events[key][0][0] == "success"


def test_the_waiting_pod_of_an_ended_task_is_deleted_by_the_next_scheduler(clearing: Any) -> None:
    """Its task was marked while no scheduler ran, so that nobody requests its adoption."""
    scheduler(clearing, FORMER)
    wanted, unwanted = (clearing.queue(name, config=NOWHERE) for name in ("wanted", "unwanted"))
    clearing.until(lambda: len(clearing.pods()) == 2)
    clearing.end()
    clearing.state(unwanted, "failed")
    scheduler(clearing, NEW)
    engine = clearing.executor._engine
    clearing.until(lambda: engine._session)
    engine._thread.post(engine._session._housekeeper.sweep_soon)
    (left,) = clearing.until(lambda: pods if len(pods := clearing.pods()) == 1 else None)
    assert left["metadata"]["annotations"]["task_id"] == wanted.task_id
