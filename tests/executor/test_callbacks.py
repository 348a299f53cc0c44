"""A deadline's callback in a pod, and a scheduler that ends meanwhile."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from airflow.executors.workloads import BundleInfo, ExecuteCallback
from airflow.executors.workloads.callback import CallbackDTO, CallbackFetchMethod

from crosswind.executor import KubernetesExecutor
from crosswind.kube.resources import PODS

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


@pytest.fixture
def callbacks(running: Any) -> Any:
    running.set("kubernetes_executor", pod_launch_failure_retries="0")
    yield running
    running.database("delete from callback")


def scheduler(bench: Any, job_id: int) -> KubernetesExecutor:
    bench.end()
    bench.executor = KubernetesExecutor(parallelism=8)
    bench.executor.job_id = job_id
    bench.executor.start()
    return bench.executor  # type: ignore[no-any-return]


def queue(bench: Any) -> str:
    callback_id = uuid.uuid4()
    data = {"path": "a.b", "dag_id": "sales", "dag_run_id": 1}
    bench.database(
        "insert into callback (id, type, fetch_method, data, state, priority_weight, created_at)"
        " values (?, 'executor', 'import_path', ?, 'queued', 1, '2026-01-01 00:00:00')",
        callback_id.hex,
        json.dumps(data),
    )
    workload = ExecuteCallback(
        callback=CallbackDTO(id=str(callback_id), fetch_method=CallbackFetchMethod.IMPORT_PATH, data=data),
        dag_rel_path=Path("dag.py"),
        bundle_info=BundleInfo(name="dags-folder"),
        log_path="callback.log",
        token="",
    )
    bench.ids[workload.key] = callback_id.hex
    bench.executor.queue_workload(workload, session=None)
    return str(callback_id)


def phases(bench: Any) -> list[str]:
    return [pod["status"].get("phase", "") for pod in bench.pods()]


def sweep(bench: Any) -> None:
    """Have the new scheduler sweep at once, in place of within half a minute."""
    engine = bench.executor._engine
    bench.until(lambda: engine._session)
    engine._thread.post(engine._session._housekeeper.sweep_soon)


@pytest.mark.parametrize(("code", "state"), [(0, "success"), (3, "failed")])
@pytest.mark.parametrize("when", ["seen", "before", "after"])
def test_the_next_scheduler_reports_the_end_of_a_callback(callbacks: Any, code: int, state: str, when: str) -> None:
    """``when``: whether it ends before or after that scheduler starts, or the first one sees it and cannot report."""
    callbacks.script(f"sleep {8 if when == 'after' else 2}; exit {code}")
    scheduler(callbacks, 11)
    callback_id = queue(callbacks)
    callbacks.until(lambda: phases(callbacks) == ["Running"])
    if when == "seen":
        callbacks.until(lambda: callbacks.executor._engine.figures()["ended"])
    callbacks.end()
    callbacks.events.clear()
    if when == "before":
        callbacks.executor = KubernetesExecutor()  # beats, and does nothing, until the pod is over
        callbacks.until(lambda: set(phases(callbacks)) <= {"Succeeded", "Failed"})
    scheduler(callbacks, 12)
    sweep(callbacks)
    callbacks.until(lambda: callbacks.events, 40)
    reported = {str(key): [event[0] for event in events] for key, events in callbacks.events.items()}
    assert reported[callback_id][0] == state
    callbacks.database("update callback set state = ?", state)
    callbacks.until(callbacks.is_empty)


def test_a_callback_whose_pod_is_deleted_before_it_starts_gets_another_one(callbacks: Any) -> None:
    callbacks.set("kubernetes_executor", pod_launch_failure_retries="1")
    callbacks.script("true")
    path = callbacks.folder / "template.yaml"
    startable = path.read_text()
    path.write_text(startable + "  nodeSelector: {disk: of-unobtainium}\n")
    callbacks.start()
    callback_id = queue(callbacks)
    (pod,) = callbacks.until(callbacks.pods)
    path.write_text(startable)
    name = pod["metadata"]["name"]
    callbacks.ask(lambda client: client.delete(PODS, name, namespace=callbacks.namespace, grace_period=0))
    callbacks.until(lambda: callbacks.events)
    assert {str(key): events[0][0] for key, events in callbacks.events.items()} == {callback_id: "success"}
    callbacks.database("update callback set state = 'success'")
    callbacks.until(callbacks.is_empty)


def test_a_callback_that_fails_has_one_pod(callbacks: Any) -> None:
    options = {"pod_launch_failure_retries": "3", "pod_launch_failure_excluded_container_reasons": ""}
    callbacks.set("kubernetes_executor", delete_worker_pods="False", **options)
    callbacks.script("exit 3")
    callbacks.start()
    queue(callbacks)
    callbacks.until(lambda: callbacks.events)
    assert [events[0][0] for events in callbacks.events.values()] == ["failed"]
    callbacks.database("update callback set state = 'failed'")
    callbacks.until(callbacks.is_empty)
    assert phases(callbacks) == ["Failed"]


def test_the_waiting_pod_of_a_callback_that_has_ended_or_was_deleted_is_deleted(callbacks: Any) -> None:
    scheduler(callbacks, 11)
    callbacks.template((callbacks.folder / "template.yaml").read_text() + "  nodeSelector: {disk: of-unobtainium}\n")
    queue(callbacks)
    callbacks.until(callbacks.pods)
    callbacks.end()
    callbacks.events.clear()
    callbacks.database("delete from callback")
    scheduler(callbacks, 12)
    sweep(callbacks)
    callbacks.until(lambda: not callbacks.pods())
    assert callbacks.events == {}
