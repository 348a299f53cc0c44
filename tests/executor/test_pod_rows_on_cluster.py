"""The row that stays of each worker pod says what the pod went through."""

from __future__ import annotations

import datetime
import json
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client import models as k8s

from crosswind.engine.fleet_snapshot import PodInFlight
from crosswind.executor import KubernetesExecutor
from crosswind.kube.resources import PODS
from crosswind.provider.fleet_rows import read_executors, read_fleet
from crosswind.provider.pod_rows import read_pods
from crosswind.provider.pod_views import look_at, read_details

pytestmark = pytest.mark.cluster

NOWHERE = {"no-such": "node"}


def row_of(bench: Any, key: Any) -> Any:
    """Return the only record of a task instance's pods, when it is written."""
    ti_id = str(uuid.UUID(bench.ids[key]))
    (record,) = bench.until(lambda: read_pods([ti_id]))
    return record


def in_flight(bench: Any) -> list[tuple[str, PodInFlight]]:
    """Return the rows of a test's own pods: tests of one process share a database, and job ids by chance."""
    return [(executor, pod) for executor, pod in read_fleet() if pod.namespace == bench.namespace]


def override(**spec: Any) -> dict[str, Any]:
    container = spec.pop("base", k8s.V1Container(name="base"))
    return {"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[container], **spec))}


def patch_status(bench: Any, status: dict[str, Any]) -> None:
    (pod,) = bench.until(bench.pods)
    where = {"namespace": bench.namespace, "subresource": "status"}
    bench.ask(lambda client: client.patch(PODS, pod["metadata"]["name"], {"status": status}, **where))


def terminated(code: int, reason: str) -> dict[str, Any]:
    # Of this day: rows older than [crosswind] archive_days are removed.
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    times = {"startedAt": now.isoformat(), "finishedAt": (now + datetime.timedelta(seconds=7)).isoformat()}
    times = {name: stamp.replace("+00:00", "Z") for name, stamp in times.items()}
    state = {"terminated": {"exitCode": code, "reason": reason, **times}}
    status = {"name": "base", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    return {"phase": "Failed", "containerStatuses": [status]}


def test_a_success_has_its_times_its_node_and_its_resources(running: Any) -> None:
    running.start()
    limits = k8s.V1ResourceRequirements(limits={"memory": "64Mi"}, requests={"cpu": "10m"})
    key = running.queue(config=override(base=k8s.V1Container(name="base", resources=limits)), queue="etl")
    running.state(key, "running")
    running.until(lambda: key not in running.executor.running)
    running.state(key, "success")
    record = row_of(running, key)
    assert (record.outcome, record.reason, record.exit_code) == ("success", "", 0)
    assert (record.dag_id, record.task_id, record.run_id, record.map_index, record.try_number, record.queue) == (
        *("dag", "task", "run", -1, 1),
        "etl",
    )
    assert record.namespace == running.namespace
    assert record.node
    assert record.cluster.startswith("http")
    assert record.detail["limits"] == {"memory": "64Mi"}
    assert record.detail["requests"]["cpu"] == "10m"
    assert record.detail["image"] == running.image
    times = record.detail["times"]
    assert {"queued", "created", "scheduled", "initialized", "started", "ended", "gone"} <= times.keys()
    assert list(times.values()) == sorted(times.values())
    assert abs(times["gone"] - times["created"]) < 120


def test_a_failure_has_its_exit_code_and_the_last_words_of_the_pod(running: Any) -> None:
    running.script("exit 3")
    running.start()
    key = running.queue()
    message = running.failure(key)
    record = row_of(running, key)
    assert (record.outcome, record.exit_code) == ("failed", 3)
    assert record.detail["message"] == message[:400]


@pytest.mark.parametrize(
    ("status", "outcome", "reason", "code"),
    [
        (terminated(137, "OOMKilled"), "failed", "OOMKilled", 137),
        (
            {**terminated(137, "Error"), "reason": "Evicted", "message": "The node was low on memory."},
            *("lost", "Evicted", 137),
        ),
    ],
    ids=["memory", "evicted"],
)
def test_a_pod_that_the_kernel_or_the_cluster_ended_has_the_reason(
    running: Any, status: dict[str, Any], outcome: str, reason: str, code: int
) -> None:
    running.set("kubernetes_executor", pod_launch_failure_retries="0")
    running.start()
    key = running.queue(config=override(node_selector=NOWHERE))
    patch_status(running, status)
    running.failure(key)
    record = row_of(running, key)
    assert (record.outcome, record.reason, record.exit_code) == (outcome, reason, code)
    assert record.detail["times"]["ended"] - record.detail["times"]["started"] == 7


def test_what_admission_added_is_named(running: Any) -> None:
    running.set("kubernetes_executor", pod_launch_failure_retries="0")
    running.start()
    config = override(node_selector=NOWHERE)
    config["pod_override"].metadata = k8s.V1ObjectMeta(labels={"sidecar.istio.io/inject": "true"})
    key = running.queue(config=config)
    patch_status(running, terminated(1, "Error"))
    running.failure(key)
    detail = row_of(running, key).detail
    assert {container["name"] for container in detail["containers"]} >= {"istio-proxy"}
    added = detail["added"]
    assert {"labels/security.istio.io/tlsMode", "annotations/sidecar.istio.io/status", "volumes/istio-envoy"} <= set(
        added
    )
    assert not [field for field in added if "crosswind" in field or "dag_id" in field or "istio-proxy" in field]


def test_a_pod_that_never_started_has_no_start_and_the_reason(running: Any) -> None:
    running.set("kubernetes_executor", pod_launch_failure_retries="0")
    running.start()
    key = running.queue(config=override(node_selector=NOWHERE))
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
    status = {"name": "base", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": waiting}
    patch_status(running, {"phase": "Pending", "containerStatuses": [status]})
    running.failure(key)
    record = row_of(running, key)
    assert (record.outcome, record.reason, record.exit_code) == ("failed", "ErrImagePull", None)
    assert "created" in record.detail["times"]
    assert "started" not in record.detail["times"]
    assert any(event["reason"] == "FailedScheduling" for event in record.detail["events"])


def test_a_task_that_gets_no_pod_has_a_row_without_one(running: Any) -> None:
    running.start()
    key = running.queue(config=override(priority_class_name="no-such-class"))
    running.failure(key)
    record = row_of(running, key)
    assert (record.outcome, record.reason, record.node) == ("failed", "NotLaunched", "")
    assert "created" not in record.detail["times"]


def test_each_launch_of_a_try_has_a_row(running: Any) -> None:
    running.set("kubernetes_executor", pod_launch_failure_retries="1", delete_worker_pods_on_failure="True")
    running.start()
    key = running.queue(config=override(node_selector=NOWHERE))
    for _ in range(2):
        running.until(lambda: [pod["status"]["phase"] for pod in running.pods()] == ["Pending"])
        patch_status(running, {"phase": "Failed", "reason": "Evicted", "message": "The node was low."})
    running.failure(key)
    ti_id = str(uuid.UUID(running.ids[key]))
    records = running.until(lambda: len(found := read_pods([ti_id])) == 2 and found)
    assert [(record.launch, record.reason) for record in records] == [(0, "Evicted"), (1, "Evicted")]
    assert len({record.pod for record in records}) == 2


def test_an_adopted_pod_has_one_row_and_so_has_one_that_went_while_no_scheduler_ran(running: Any) -> None:
    running.script("sleep 600")
    running.executor = KubernetesExecutor(parallelism=8)
    running.executor.job_id = 11
    running.executor.start()
    key = running.queue("stays")
    lost = running.queue("lost")
    running.until(lambda: len([pod for pod in running.pods() if pod["status"].get("phase") == "Running"]) == 2)
    running.database("update task_instance set queued_by_job_id = 11, state = 'running'")
    running.end()
    gone = next(pod for pod in running.pods() if pod["metadata"]["annotations"]["task_id"] == "lost")
    where = {"namespace": running.namespace, "grace_period": 0}
    running.ask(lambda client: client.delete(PODS, gone["metadata"]["name"], **where))
    running.executor = KubernetesExecutor(parallelism=8)
    running.executor.job_id = 12
    running.executor.start()
    adopt(running, key, lost)
    running.until(lambda: running.executor._engine.figures()["running"] == 1)
    (pod,) = running.pods()
    running.ask(lambda client: client.delete(PODS, pod["metadata"]["name"], namespace=running.namespace))
    running.state(key, "success")
    assert row_of(running, key).pod == pod["metadata"]["uid"]
    record = row_of(running, lost)
    assert (record.outcome, record.pod) == ("failed", gone["metadata"]["uid"])


def adopt(bench: Any, *keys: Any) -> None:
    """Do what core does with the tasks of a dead scheduler."""
    tis = []
    for key in keys:
        ((state, external),) = bench.rows(
            "select state, external_executor_id from task_instance where id = ?", bench.ids[key]
        )
        parts = {"dag_id": key.dag_id, "task_id": key.task_id, "run_id": key.run_id, "map_index": key.map_index}
        ti = SimpleNamespace(
            id=uuid.UUID(bench.ids[key]),
            try_number=1,
            state=state,
            external_executor_id=external,
            queue="default",
            **parts,
        )
        tis.append(ti)
    assert bench.executor.try_adopt_task_instances(tis) == []


def test_no_rows_are_kept_where_that_is_switched_off(running: Any) -> None:
    running.set("crosswind", pod_history="False")
    running.start()
    key = running.queue()
    running.state(key, "running")
    running.until(lambda: key not in running.executor.running)
    running.state(key, "success")
    running.until(running.is_empty)
    assert read_pods([str(uuid.UUID(running.ids[key]))]) == []


def test_a_row_stays_below_two_kilobytes(running: Any) -> None:
    running.script("head -c 5000 /dev/zero | tr '\\0' x > /dev/termination-log; exit 1")
    running.start()
    key = running.queue("t" * 200)
    running.failure(key)
    record = row_of(running, key)
    columns = [record.dag_id, record.task_id, record.run_id, record.name, record.cluster, record.node, record.queue]
    assert sum(map(len, columns)) + len(json.dumps(record.detail)) + 200 < 2048


def test_pods_in_flight_are_in_the_snapshot_until_they_are_gone(running: Any) -> None:
    running.executor = KubernetesExecutor(parallelism=8)
    running.executor.job_id = 21
    running.executor.start()
    key = running.queue(config=override(node_selector=NOWHERE))

    def mine() -> list[PodInFlight]:
        return [pod for executor, pod in in_flight(running) if executor == "21"]

    (pod,) = running.until(lambda: [pod for pod in mine() if pod.phase == "pending"])
    assert (pod.dag_id, pod.task_id, pod.namespace) == ("dag", "task", running.namespace)
    patch_status(running, {"phase": "Failed", "reason": "Evicted", "message": "The node was low."})
    running.set("kubernetes_executor", pod_launch_failure_retries="0")
    running.executor.change_state(key, "failed")
    running.until(lambda: not mine())
    assert "21" in {one.executor for one in read_executors()}


def test_a_living_pod_that_somebody_looks_at_is_described(running: Any) -> None:
    running.executor = KubernetesExecutor(parallelism=8)
    running.executor.job_id = 22
    running.executor.start()
    key = running.queue(config=override(node_selector=NOWHERE))
    ((executor, pod),) = running.until(lambda: in_flight(running))
    assert executor == "22"
    assert read_details([pod.unique_id]) == {}

    def described() -> dict[str, Any]:
        look_at({pod.unique_id: executor})
        return read_details([pod.unique_id]).get(pod.unique_id, {})

    detail = running.until(lambda: "events" in described() and described())
    assert "created" in detail["times"]
    assert detail["image"] == running.image
    assert any(event["reason"] == "FailedScheduling" for event in detail["events"])
    running.executor.change_state(key, "failed")
