"""The executor on a cluster: pods run, end, and are deleted."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes.client import models as k8s

from crosswind.kube.resources import NAMESPACES, PODS, RESOURCE_QUOTAS

pytestmark = pytest.mark.cluster

FOREVER = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.2; done"]


def sidecar(image: str) -> k8s.V1Pod:
    containers = [k8s.V1Container(name="base"), k8s.V1Container(name="mesh", image=image, command=FOREVER)]
    return k8s.V1Pod(spec=k8s.V1PodSpec(containers=containers))


def finish(bench: Any, key: Any) -> None:
    """Report success, as the worker does before it ends."""
    bench.state(key, "success")


def test_pods_run_end_and_are_deleted_with_their_secrets(running: Any) -> None:
    running.start()
    keys = [running.queue(f"task{number}") for number in range(5)]
    for key in keys:
        finish(running, key)
    running.beat()
    assert len(running.executor.running) == 5
    running.until(lambda: not running.executor.running)
    running.until(running.is_empty)
    assert running.pods() == []
    assert running.secrets() == []
    assert running.events == {}


def test_one_secret_serves_a_batch_and_each_pod_mounts_its_own_key(running: Any) -> None:
    running.script("sleep 60")
    running.start()
    for number in range(4):
        running.queue(f"task{number}")
    running.until(lambda: len(running.pods()) == 4)
    (secret,) = running.secrets()
    keys = set()
    for pod in running.pods():
        (volume,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "crosswind-workload"]
        assert volume["secret"]["secretName"] == secret["metadata"]["name"]
        keys.add(volume["secret"]["items"][0]["key"])
        assert "token" not in str(pod["spec"])
    assert keys | {"worker.py"} == set(secret["data"])  # the shim, once for all


def test_a_sidecar_that_never_ends_keeps_neither_slot_nor_pod(running: Any) -> None:
    running.start()
    finish(running, running.queue(config={"pod_override": sidecar(running.image)}))
    running.beat()
    running.until(lambda: not running.executor.running)
    running.until(running.is_empty)
    assert running.pods() == []


def test_a_kept_pod_is_labelled_as_done_and_its_sidecar_shut_down(running: Any) -> None:
    running.set("kubernetes_executor", delete_worker_pods="False")
    running.start()
    finish(running, running.queue(config={"pod_override": sidecar(running.image)}))
    running.beat()
    running.until(lambda: not running.executor.running)
    running.until(running.is_empty)
    running.until(lambda: running.pods()[0]["status"]["phase"] == "Succeeded")
    assert running.pods()[0]["metadata"]["labels"]["airflow_executor_done"] == "True"


def test_a_worker_that_fails_before_the_task_began_fails_it_with_the_reason(running: Any) -> None:
    running.script("exit 3")
    running.start()
    reason = running.failure(running.queue())
    assert "exit code 3" in reason
    assert not running.executor.running
    running.until(running.is_empty)
    assert len(running.pods()) == 1  # kept, by delete_worker_pods_on_failure


def test_an_outcome_is_told_until_the_database_agrees(running: Any) -> None:
    running.script("exit 3")
    running.start()
    key = running.queue()
    running.failure(key)
    running.state(key, "running")  # as when core lost the event
    running.until(lambda: len(running.events[key]) == 2)


def test_a_worker_that_ended_without_a_report_fails_its_task(running: Any) -> None:
    running.start()
    key = running.queue()
    running.state(key, "running")
    assert "exit code 0" in running.failure(key)


@pytest.mark.usefixtures("serialized")  # else core could not run it again
def test_the_end_of_a_cleared_task_is_reported_so_that_it_runs_again(running: Any) -> None:
    running.script("exit 1")
    running.start()
    key = running.queue()
    running.state(key, "restarting")
    assert running.until(lambda: running.events.get(key))[0][0] == "success"
    running.state(key, "success")


def test_a_pod_of_a_task_that_was_queued_again_is_not_reported(running: Any) -> None:
    running.script("exit 1")
    running.start()
    key = running.queue()
    running.database("update task_instance set external_executor_id = 'another' where id = ?", running.ids[key])
    running.beat()
    running.until(lambda: not running.executor.running)
    running.until(running.is_empty)
    assert running.events == {}


def test_a_pod_deleted_before_its_task_began_is_replaced_once(running: Any) -> None:
    running.script("sleep 60")
    running.start()
    key = running.queue()
    first = running.until(running.pods)[0]["metadata"]["name"]

    def another() -> str:
        names = [pod["metadata"]["name"] for pod in running.pods() if "deletionTimestamp" not in pod["metadata"]]
        return "".join(name for name in names if name != first)

    running.ask(lambda client: client.delete(PODS, first, namespace=running.namespace, grace_period=0))
    second = running.until(another)
    assert running.executor.has_task is not None
    assert key in running.executor.running
    running.ask(lambda client: client.delete(PODS, second, namespace=running.namespace, grace_period=0))
    assert "deleted" in running.failure(key)


def test_a_revoked_task_leaves_no_pod_and_no_event(running: Any) -> None:
    running.script("sleep 60")
    running.start()
    key = running.queue()
    running.until(running.pods)
    running.executor.revoke_task(ti=type("TI", (), {"key": key})())
    assert key not in running.executor.running
    running.until(running.is_empty)
    assert running.pods() == []
    assert running.events == {}


def test_a_task_that_core_fails_loses_its_pod(running: Any) -> None:
    running.script("sleep 60")
    running.start()
    key = running.queue()
    running.until(running.pods)
    running.executor.fail(key)
    running.until(running.is_empty)
    assert running.pods() == []


def test_an_image_that_cannot_be_pulled_fails_the_task_and_leaves_no_pod(running: Any) -> None:
    running.set("kubernetes_executor", pod_launch_failure_retries="0")
    running.script("true", image="no-such-registry.invalid/nothing:none")
    running.start()
    reason = running.failure(running.queue())
    assert "no-such-registry.invalid/nothing:none" in reason
    running.until(running.is_empty)
    assert running.pods() == []


def test_a_worker_killed_for_its_memory_fails_its_task_with_the_limit(running: Any) -> None:
    base = k8s.V1Container(name="base", resources=k8s.V1ResourceRequirements(limits={"memory": "32Mi"}))
    override = k8s.V1Pod(spec=k8s.V1PodSpec(containers=[base]))
    running.script("head -c 200000000 /dev/zero | tail")
    running.start()
    key = running.queue(config={"pod_override": override})
    running.state(key, "running")
    reason = running.failure(key)
    assert "OOMKilled" in reason
    assert "32Mi" in reason


def test_a_namespace_that_does_not_exist_fails_the_task_with_its_name(running: Any) -> None:
    override = k8s.V1Pod(metadata=k8s.V1ObjectMeta(namespace="nowhere"))
    running.start()
    assert "nowhere" in running.failure(running.queue(config={"pod_override": override}))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"pod_override": {"spec": {}}}, "must be a kubernetes.client.models.V1Pod"),
        ({"pod_template_file": "/no/such/file.yaml"}, "/no/such/file.yaml"),
        (
            {
                "pod_override": k8s.V1Pod(
                    spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base", image="Bad Image")])
                )
            },
            "image",
        ),
    ],
)
def test_a_bad_executor_config_fails_its_task_and_no_other(running: Any, config: dict[str, Any], message: str) -> None:
    running.set("kubernetes_executor", pod_launch_failure_retries="0")
    running.start()
    bad = running.queue("bad", config)
    good = running.queue("good")
    finish(running, good)
    assert message in running.failure(bad)
    running.until(running.is_empty)
    assert good not in running.events


def test_a_template_of_the_task_replaces_the_global_one(running: Any) -> None:
    bench = running
    own = bench.folder / "own.yaml"
    own.write_text((bench.folder / "template.yaml").read_text().replace("kind: Pod", "kind: Pod", 1))
    bench.script("exit 9")
    bench.start()
    key = bench.queue(config={"pod_template_file": str(own)})
    finish(bench, key)
    bench.beat()
    bench.until(bench.is_empty)
    assert bench.events == {}


def test_a_broken_template_fails_tasks_until_it_is_fixed(running: Any) -> None:
    good = (running.folder / "template.yaml").read_text()
    path = running.template("kind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: other, image: a}]}\n")
    running.start()
    reason = running.failure(running.queue("before"))
    assert str(path) in reason
    assert "base" in reason
    path.write_text(good)
    after = running.queue("after")
    finish(running, after)
    running.beat()
    running.until(running.is_empty)
    assert after not in running.events


def test_pods_wait_for_a_used_up_quota(running: Any) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "one"},
        "spec": {"hard": {"pods": "1"}},
    }
    running.ask(lambda client: client.create(RESOURCE_QUOTAS, quota, namespace=running.namespace))
    running.start()
    keys = [running.queue(f"task{number}") for number in range(2)]
    for key in keys:
        finish(running, key)
    running.beat()
    running.until(running.is_empty)
    assert running.events == {}


def test_the_log_of_a_running_task_is_read_without_start_in_any_namespace(running: Any) -> None:
    from types import SimpleNamespace

    from crosswind.executor import KubernetesExecutor

    elsewhere = running.namespace + "-b"
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": elsewhere}}
    running.ask(lambda client: client.create(NAMESPACES, body))
    override = k8s.V1Pod(metadata=k8s.V1ObjectMeta(namespace=elsewhere))
    running.script("echo one; echo two; sleep 60")
    running.start()
    running.queue(config={"pod_override": override})
    ti = SimpleNamespace(
        dag_id="dag",
        task_id="task",
        run_id="run",
        map_index=-1,
        executor_config={"pod_override": override},
        queue="default",
        external_executor_id=None,
    )
    reader = KubernetesExecutor()

    def read() -> str:
        return reader.get_task_log(ti, 1)[1][0]  # type: ignore[arg-type]

    assert running.until(lambda: read() if "two" in read() else "") == "one\ntwo\n"
    running.ask(lambda client: client.delete(NAMESPACES, elsewhere))
