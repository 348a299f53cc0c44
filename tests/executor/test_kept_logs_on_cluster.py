"""Logs that outlive their pods: an executor on a cluster, and Airflow's own reader of logs."""

from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client import models as k8s

from crosswind.kube.resources import PODS
from crosswind.pods.kept_logs import lines_of
from crosswind.provider.log_store import read_logs

pytestmark = pytest.mark.cluster


def kept(bench: Any, key: Any) -> list[str]:
    """Return the stored lines of a task's log."""
    return [line for one in read_logs(uuid.UUID(bench.ids[key])) for line in lines_of(one.content)]


def run(bench: Any, state: str = "success", **queued: Any) -> list[str]:
    """Run one task to its end; return its stored log after its pod is cleaned up."""
    bench.start()
    key = bench.queue(**queued)
    bench.state(key, state)
    bench.beat()
    bench.until(lambda: not bench.executor.running)
    if state == "running":
        bench.until(lambda: bench.events.get(key))
    bench.until(bench.is_empty)
    return kept(bench, key)


def test_the_log_of_a_task_outlives_its_pod(running: Any) -> None:
    running.script("echo one; echo two")
    assert run(running) == ["one", "two"]
    assert running.pods() == []


def test_a_log_without_a_final_newline_is_stored_whole(running: Any) -> None:
    running.script("echo first; printf last")
    assert run(running) == ["first", "last"]


def test_the_stored_log_of_a_failed_task_ends_with_the_reason(running: Any) -> None:
    running.script("echo before; exit 3")
    lines = run(running, "running")
    assert lines[0] == "before"
    assert len(lines) == 2
    assert '"level": "error"' in lines[1]
    assert "exit code 3" in lines[1]


def test_the_log_of_a_worker_killed_for_its_memory_is_stored(running: Any) -> None:
    base = k8s.V1Container(name="base", resources=k8s.V1ResourceRequirements(limits={"memory": "32Mi"}))
    running.script("echo before; head -c 200000000 /dev/zero | tail")
    lines = run(running, "running", config={"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[base]))})
    assert lines[0] == "before"
    assert "OOMKilled" in lines[-1]


def test_the_log_of_a_pod_deleted_by_a_user_is_stored_to_its_end(running: Any) -> None:
    running.script("trap 'echo last words; exit 0' TERM; echo before; while :; do sleep 0.1; done")
    running.start()
    key = running.queue()
    running.state(key, "running")
    name = running.until(running.pods)[0]["metadata"]["name"]
    running.until(lambda: running.pods()[0]["status"].get("phase") == "Running")
    running.until(lambda: running.executor._engine.figures()["running"])
    running.ask(lambda client: client.delete(PODS, name, namespace=running.namespace, grace_period=5))
    running.until(lambda: running.events.get(key))
    running.until(lambda: len(kept(running, key)) > 1)
    assert kept(running, key)[:2] == ["before", "last words"]


def test_the_log_of_a_task_that_core_ended_is_stored(running: Any) -> None:
    running.script("echo before; sleep 60")
    running.start()
    key = running.queue()
    running.until(lambda: running.executor._engine.figures()["running"])
    running.until(lambda: b"before" in log_of(running))
    running.executor.fail(key)
    running.until(running.is_empty)
    assert kept(running, key) == ["before"]
    assert running.pods() == []


def log_of(bench: Any) -> bytes:
    name = bench.pods()[0]["metadata"]["name"]
    return bytes(bench.ask(lambda client: client.log(name, namespace=bench.namespace)))


def test_a_log_that_is_too_long_is_stored_without_its_middle_with_a_mark(running: Any) -> None:
    running.set("crosswind", archive_limit="4000")
    running.script("i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done")
    lines = run(running)
    (gap,) = [line for line in lines if not line.startswith("line ")]
    assert "of 8890 bytes are left out here" in gap
    assert "[crosswind] archive_limit = 4000" in gap
    numbers = [int(line.split()[1]) for line in lines if line != gap]
    cut = lines.index(gap)
    assert numbers[:cut] == list(range(cut))
    assert numbers[cut:] == list(range(1000 - len(numbers[cut:]), 1000))
    assert 2000 < sum(len(line) + 1 for line in lines if line != gap) <= 5000


def test_a_task_that_never_got_a_pod_has_the_reason_as_its_log(running: Any) -> None:
    running.start()
    key = running.queue(config={"pod_template_file": "/no/such/file.yaml"})
    running.failure(key)
    (line,) = running.until(lambda: kept(running, key))
    assert "/no/such/file.yaml" in line


def test_the_stored_log_names_an_image_that_cannot_be_pulled(running: Any) -> None:
    running.set("kubernetes_executor", pod_launch_failure_retries="0")
    running.script("true", image="no-such-registry.invalid/nothing:none")
    running.start()
    key = running.queue()
    running.failure(key)
    (line,) = running.until(lambda: kept(running, key))
    assert "no-such-registry.invalid/nothing:none" in line


@pytest.mark.parametrize(
    "options",
    [
        {"logging": {"remote_logging": "True"}},
        {"crosswind": {"archive_logs": "never"}},
    ],
)
def test_no_log_is_stored_with_remote_logging_or_if_the_option_is_never(running: Any, options: Any) -> None:
    for section, values in options.items():
        running.set(section, **values)
    running.script("echo one")
    assert run(running) == []


@pytest.mark.parametrize(("source", "found"), [({"empty_dir": {}}, 1), ({"host_path": {"path": "/tmp"}}, 0)])
def test_no_log_is_stored_of_a_worker_with_a_persistent_log_volume(running: Any, source: Any, found: int) -> None:
    mount = k8s.V1VolumeMount(name="logs", mount_path=str(running.folder / "logs"))
    volume = k8s.V1Volume(name="logs", **source)
    base = k8s.V1Container(name="base", volume_mounts=[mount])
    override = k8s.V1Pod(spec=k8s.V1PodSpec(containers=[base], volumes=[volume]))
    running.script("echo one")
    assert len(run(running, config={"pod_override": override})) == found


def test_the_log_of_an_evicted_pod_is_stored(running: Any) -> None:
    running.script("echo before; sleep 60")
    running.start()
    key = running.queue()
    running.state(key, "running")
    running.until(lambda: running.executor._engine.figures()["running"])
    running.until(lambda: b"before" in log_of(running))
    name = running.pods()[0]["metadata"]["name"]
    evicted = {"status": {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}}
    patch = {"namespace": running.namespace, "subresource": "status"}
    running.ask(lambda client: client.patch(PODS, name, evicted, **patch))
    assert "evicted the pod" in running.failure(key)
    first, last = running.until(lambda: kept(running, key))
    assert first == "before"
    assert "low on resource: memory" in last


def test_the_log_of_an_ended_task_is_read_from_its_pod_while_that_exists(running: Any) -> None:
    running.set("crosswind", archive_logs="never")
    running.set("kubernetes_executor", delete_worker_pods="False", running_pod_log_lines="1")
    running.script("echo one; echo two")
    assert run(running) == []
    ti = SimpleNamespace(
        dag_id="dag",
        task_id="task",
        run_id="run",
        map_index=-1,
        external_executor_id=None,
        executor_config=None,
        queue="default",
    )
    assert running.executor.read_pod_log(ti, 1)[1] == ["one\ntwo\n"]
    assert running.executor.get_task_log(ti, 1)[1] == ["two\n"]
