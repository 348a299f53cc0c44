"""Adoption: no task of a dead scheduler is lost, and none runs twice."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from benchmarks.chaos.proxying import Proxy
from kubernetes.client import models as k8s
from sqlalchemy import update

from crosswind.engine.workload_secrets import SHIM_KEY
from crosswind.executor import KubernetesExecutor
from crosswind.kube.resources import NAMESPACES, PODS, Resource
from crosswind.testing import Cluster
from deadlines import scaled

pytestmark = pytest.mark.cluster

FORMER, NEW = 11, 12
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)


@pytest.fixture
def after(running: Any, cluster: Cluster, tmp_path: Path) -> Iterator[Any]:
    """A bench whose scheduler can be replaced by another one; all requests go through a proxy."""
    with Proxy(cluster.kubeconfig, tmp_path) as proxy:
        running.proxy = proxy
        running.set("kubernetes_executor", config_file=str(proxy.kubeconfig))
        running.scheduler = lambda job_id: scheduler(running, job_id)
        running.adopt = lambda *keys: adopt(running, *keys)
        running.orphan = lambda task_id, state, **more: orphan(running, task_id, state, **more)
        yield running
        running.end()


def scheduler(bench: Any, job_id: int) -> KubernetesExecutor:
    """End the current scheduler, and start another one."""
    bench.end()
    bench.executor = KubernetesExecutor(parallelism=50)
    bench.executor.job_id = job_id
    bench.executor.start()
    return bench.executor  # type: ignore[no-any-return]


def orphan(bench: Any, task_id: str, state: str, **more: Any) -> Any:
    """Queue a task with the current scheduler, set its state, and return its key."""
    key = bench.queue(task_id, **more)
    owner = bench.executor.job_id
    bench.database(
        "update task_instance set queued_by_job_id = ?, state = ? where id = ?", owner, state, bench.ids[key]
    )
    return key


def adopt(bench: Any, *keys: Any) -> list[Any]:
    """Adopt tasks of dead schedulers as core does; return those that it would reset."""
    tis = []
    for key in keys:
        query = "select state, external_executor_id from task_instance where id = ?"
        ((state, external),) = bench.rows(query, bench.ids[key])
        ti = SimpleNamespace(
            id=uuid.UUID(bench.ids[key]),
            dag_id=key.dag_id,
            task_id=key.task_id,
            run_id=key.run_id,
            map_index=key.map_index,
            state=state,
            external_executor_id=external,
        )
        tis.append(ti)
    back = bench.executor.try_adopt_task_instances(tis)
    for key in keys:
        statement = "update task_instance set queued_by_job_id = ? where id = ?"
        bench.database(statement, bench.executor.job_id, bench.ids[key])
    return list(back)


def owners(bench: Any) -> set[str]:
    return {pod["metadata"]["labels"]["airflow-worker"] for pod in bench.pods()}


def delete(bench: Any, pod: Any, grace_period: int | None = None) -> None:
    bench.ask(
        lambda client: client.delete(
            PODS, pod["metadata"]["name"], namespace=pod["metadata"]["namespace"], grace_period=grace_period
        )
    )


def test_pods_are_adopted_with_their_slots_and_watched_to_their_end(after: Any) -> None:
    after.script("exec sleep 60")
    after.scheduler(FORMER)
    keys = [after.orphan(f"task{number}", "running") for number in range(3)]
    after.until(lambda: len(after.pods()) == 3)
    after.scheduler(NEW)
    assert after.adopt(*keys) == []
    assert after.executor.running == set(keys)
    after.until(lambda: owners(after) == {str(NEW)})
    for pod in after.pods():
        delete(after, pod)
    for key in keys:
        assert "exit code" in after.failure(key)
    after.until(after.is_empty)
    assert after.secrets() == [], "the Secret went with the last pod that needed it"


def test_adoption_does_not_block_the_scheduler_while_the_server_does_not_answer(after: Any) -> None:
    after.script("sleep 60")
    after.scheduler(FORMER)
    key = after.orphan("task", "running")
    after.until(after.pods)
    after.end()
    after.proxy.fault = lambda method, path: 500
    after.scheduler(NEW)
    assert after.adopt(key) == []
    assert after.executor.running == {key}
    after.proxy.fault = lambda method, path: None
    after.until(lambda: owners(after) == {str(NEW)})


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_task_without_a_trace_of_a_pod_is_rescheduled_without_using_a_retry(after: Any, state: str) -> None:
    after.scheduler(FORMER)
    after.proxy.fault = lambda method, path: 500 if method == "POST" else None
    key = after.orphan("task", state)
    after.beat()
    after.end()
    after.proxy.fault = lambda method, path: None
    after.scheduler(NEW)
    assert after.adopt(key) == []
    after.until(lambda: not after.executor.running)
    assert after.events == {}
    query = "select state, queued_by_job_id, external_executor_id from task_instance where id != ?"
    assert after.rows(query, after.ids[key]) == [(None, None, None)]
    (text,) = [extra for event, extra, _ in after.event_log() if event == "pod lost"]
    assert "no pod of the task exists" in text


def test_a_task_that_has_ended_and_has_no_pod_frees_its_slot_without_an_event(after: Any) -> None:
    after.scheduler(FORMER)
    after.proxy.fault = lambda method, path: 500 if method == "POST" else None
    key = after.orphan("task", "running")
    after.beat()
    after.end()
    after.proxy.fault = lambda method, path: None
    after.scheduler(NEW)
    after.adopt(key)
    after.state(key, "success")
    after.until(lambda: not after.executor.running)
    assert after.events == {}


def test_pods_deleted_while_no_scheduler_watched_are_found_with_their_end(after: Any) -> None:
    after.script("while ! test -e /tmp/go; do sleep 0.1; done; test -z $GREEDY || head -c 200000000 /dev/zero | tail")
    base = k8s.V1Container(
        name="base",
        env=[k8s.V1EnvVar(name="GREEDY", value="yes")],
        resources=k8s.V1ResourceRequirements(limits={"memory": "32Mi"}),
    )
    greedy_pod = k8s.V1Pod(spec=k8s.V1PodSpec(containers=[base]))
    after.scheduler(FORMER)
    greedy = after.orphan("greedy", "running", config={"pod_override": greedy_pod})
    good = after.orphan("good", "running")
    after.until(lambda: phases(after) == ["Running"] * 2)
    after.end()  # keeps how far it has seen
    for pod in after.pods():
        go(after, pod)
    after.state(good, "success")
    eventually(lambda: phases(after) == ["Failed", "Succeeded"])
    for pod in after.pods():
        delete(after, pod)
    eventually(lambda: not after.pods())
    after.scheduler(NEW)
    after.adopt(greedy, good)
    reason = after.failure(greedy)
    assert "OOMKilled" in reason
    assert "32Mi" in reason
    after.until(lambda: not after.executor.running)
    assert good not in after.events


@pytest.mark.parametrize("swept", [False, True])
@pytest.mark.parametrize("deleted", ["False", "True"])
def test_an_end_that_airflow_did_not_get_is_reported_by_the_next_scheduler(
    after: Any, deleted: str, swept: bool
) -> None:
    """Core handles no event after the scheduler has ended. ``swept``: the next one sweeps before core adopts."""
    after.set("kubernetes_executor", delete_worker_pods_on_failure=deleted)
    after.script("while ! test -e /tmp/go; do sleep 0.1; done; exit 137")
    former = after.scheduler(FORMER)
    key = after.orphan("task", "running")
    after.until(lambda: phases(after) == ["Running"])
    go(after, after.pods()[0])
    eventually(lambda: former._engine.figures()["ended"] and not former._engine.figures()["cleaning up"])
    after.scheduler(NEW)
    if swept:
        sweep(after)
    after.adopt(key)
    assert "exit code 137" in after.failure(key)
    assert after.rows("select id, state from task_instance") == [(after.ids[key], "failed")]
    after.until(after.is_empty)
    assert [pod["metadata"]["labels"]["airflow_executor_done"] for pod in after.pods()] == ["True"] * (
        deleted == "False"
    )


def sweep(bench: Any) -> None:
    """Have the new scheduler sweep, and wait until it has handled the pods of dead ones: it lists its own last."""
    engine, own = bench.executor._engine, f"airflow-worker={NEW},airflow_executor_done"
    eventually(lambda: engine._session)
    engine._thread.post(engine._session._housekeeper.sweep_soon)
    eventually(lambda: any(own in unquote(path) for _, path in bench.proxy.seen))
    eventually(lambda: not engine.figures()["cleaning up"])


def test_pods_are_listed_if_the_servers_history_does_not_reach_back_to_the_position(after: Any) -> None:
    after.script("sleep 60")
    after.scheduler(FORMER)
    here, gone = after.orphan("here", "running"), after.orphan("gone", "queued")
    after.until(lambda: len(after.pods()) == 2)
    after.end()
    delete(after, pod_of(after, "gone"), grace_period=0)
    after.database("update crosswind_watch_position set version = '1'")
    after.proxy.fault = lambda method, path: 410 if "watch" in path and "resourceVersion=1&" in path + "&" else None
    after.scheduler(NEW)
    after.adopt(here, gone)
    after.until(lambda: owners(after) == {str(NEW)})
    after.until(lambda: after.executor.running == {here})
    assert any("resourceVersion=1&" in path + "&" for _, path in after.proxy.seen)
    assert after.events == {}


def test_pods_of_a_scheduler_that_died_while_it_adopted_are_found_under_their_former_label(after: Any) -> None:
    after.script("sleep 60")
    after.scheduler(FORMER)
    key = after.orphan("task", "running")
    after.until(after.pods)
    after.scheduler(NEW)
    after.proxy.fault = lambda method, path: 500 if method == "PATCH" else None
    after.adopt(key)
    after.end()
    assert owners(after) == {str(FORMER)}
    after.proxy.fault = lambda method, path: None
    after.scheduler(NEW + 1)
    after.adopt(key)
    after.until(lambda: owners(after) == {str(NEW + 1)})
    assert after.executor.running == {key}


@pytest.mark.parametrize("positions", [True, False])
def test_pods_in_namespaces_that_the_configuration_does_not_name_are_found(after: Any, positions: bool) -> None:
    elsewhere = f"{after.namespace}-{positions}".lower()
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": elsewhere}}
    after.ask(lambda client: client.create(NAMESPACES, body))
    after.script("sleep 60")
    after.scheduler(FORMER)
    there = k8s.V1Pod(metadata=k8s.V1ObjectMeta(namespace=elsewhere))
    key = after.orphan("task", "running", config={"pod_override": there})
    found = lambda: after.ask(lambda client: client.list(PODS, namespace=elsewhere)).items  # noqa: E731
    after.until(found)
    after.end()
    if not positions:  # the task's own config says where its pod is
        after.database("delete from crosswind_watch_position")
        with create_session(scoped=False) as session:
            row = update(TaskInstance).where(TaskInstance.id == uuid.UUID(after.ids[key]))
            session.execute(row.values(executor_config={"pod_override": there}))
    after.scheduler(NEW)
    after.adopt(key)
    after.until(lambda: found()[0]["metadata"]["labels"]["airflow-worker"] == str(NEW))
    after.ask(lambda client: client.delete(NAMESPACES, elsewhere))


def test_a_task_that_core_ends_during_its_adoption_loses_its_pod(after: Any) -> None:
    after.script("sleep 60")
    after.scheduler(FORMER)
    key = after.orphan("task", "queued")
    after.until(after.pods)
    after.scheduler(NEW)
    after.adopt(key)
    after.executor.revoke_task(ti=SimpleNamespace(key=key))
    after.until(lambda: not after.pods())
    after.until(after.is_empty)
    assert after.events == {}


def test_pods_of_a_live_sibling_are_not_adopted(after: Any) -> None:
    after.script("sleep 60")
    after.scheduler(FORMER)
    mine = after.orphan("mine", "running")
    after.until(lambda: len(after.pods()) == 1)
    after.scheduler(NEW)
    theirs = after.orphan("theirs", "running")
    after.until(lambda: phases(after) == ["Running"] * 2)
    before = pod_of(after, "theirs")["metadata"]["resourceVersion"]
    sibling, after.executor = after.executor, KubernetesExecutor(parallelism=8)
    after.executor.job_id = NEW + 1
    after.executor.start()
    try:
        after.adopt(mine)
        after.until(lambda: owners(after) == {str(NEW), str(NEW + 1)})
        assert pod_of(after, "theirs")["metadata"]["resourceVersion"] == before
        assert sibling.running == {theirs}
    finally:
        sibling.end()


def test_a_task_whose_adoption_is_requested_twice_is_adopted_once(after: Any) -> None:
    after.script("sleep 60")
    after.scheduler(FORMER)
    key = after.orphan("task", "running")
    after.until(after.pods)
    after.scheduler(NEW)
    after.adopt(key)
    after.adopt(key)  # as core does when its first commit failed
    after.until(lambda: owners(after) == {str(NEW)})
    assert after.executor._engine.figures()["created"] + after.executor._engine.figures()["running"] == 1


def test_a_secret_is_deleted_with_the_last_pod_that_needs_it_also_if_pods_are_adopted_one_by_one(after: Any) -> None:
    after.script("exec sleep 60")
    after.scheduler(FORMER)
    keys = [after.orphan(f"task{number}", "running") for number in range(2)]
    after.until(lambda: len(after.pods()) == 2)
    after.scheduler(NEW)
    for key, secrets in zip(keys, (1, 0), strict=True):
        after.adopt(key)
        after.until(lambda key=key: pod_of(after, key.task_id)["metadata"]["labels"]["airflow-worker"] == str(NEW))
        delete(after, pod_of(after, key.task_id))
        after.failure(key)
        after.until(after.is_empty)
        assert len(after.secrets()) == secrets


def test_without_an_engine_running_tasks_are_not_reset(after: Any) -> None:
    after.scheduler(FORMER)
    after.proxy.fault = lambda method, path: 500
    runs, waits = after.orphan("runs", "running"), after.orphan("waits", "queued")
    after.end()
    after.executor = KubernetesExecutor(parallelism=8)
    after.executor.job_id = NEW
    assert [ti.task_id for ti in after.adopt(runs, waits)] == ["waits"]


def go(bench: Any, pod: Any) -> None:
    """Let a pod's script continue."""
    name = pod["metadata"]["name"]
    bench.ask(
        lambda client: client.exec(
            name, ["touch", "/tmp/go"], namespace=bench.namespace, container="base", timeout=scaled(10)
        )
    )


def phases(bench: Any) -> list[str]:
    return sorted(pod["status"].get("phase", "") for pod in bench.pods())


def pod_of(bench: Any, task_id: str) -> Any:
    (found,) = [pod for pod in bench.pods() if pod["metadata"]["labels"]["task_id"] == task_id]
    return found


def eventually(happened: Callable[[], Any]) -> None:
    """Wait for a condition without heartbeats."""
    end = time.monotonic() + scaled(20)
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.05)


def claims_of(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))  # type: ignore[no-any-return]


def test_a_pod_that_waits_longer_than_its_token_is_valid_gets_a_new_one_from_the_next_scheduler(after: Any) -> None:
    label = f"crosswind-test-{uuid.uuid4().hex[:8]}"
    after.script("cat /run/crosswind/workload.json; echo; exec sleep 60")
    after.set("scheduler", task_queued_timeout="1")
    after.scheduler(FORMER)
    nowhere = k8s.V1Pod(spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base")], node_selector={label: "here"}))
    key = after.orphan("task", "queued", config={"pod_override": nowhere})
    (pod,) = after.until(after.pods)
    after.end()
    (secret,) = after.secrets()
    (payload,) = (value for key, value in secret["data"].items() if key != SHIM_KEY)
    first = json.loads(base64.b64decode(payload))
    after.set("scheduler", task_queued_timeout="600")
    after.scheduler(NEW)
    assert after.adopt(key) == []
    after.until(lambda: claims_of(first["token"])["exp"] < time.time())
    after.until(lambda: after.secrets()[0]["data"] != secret["data"])
    ((node, *_),) = (after.ask(lambda client: client.list(NODES)).items,)
    name = node["metadata"]["name"]
    after.ask(lambda client: client.patch(NODES, name, {"metadata": {"labels": {label: "here"}}}))
    where = {"namespace": after.namespace, "container": "base"}
    after.until(lambda: "running" in str(after.pods()[0]["status"].get("containerStatuses")))
    printed = after.until(lambda: after.ask(lambda client: client.log(pod["metadata"]["name"], **where)))
    workload, claims = json.loads(printed), claims_of(json.loads(printed)["token"])
    assert {**workload, "token": ""} == {**first, "token": ""}
    assert claims["exp"] > time.time() + 500
    assert (claims["sub"], claims["scope"]) == (workload["ti"]["id"], "workload")
    after.ask(lambda client: client.patch(NODES, name, {"metadata": {"labels": {label: None}}}))
    after.state(key, "success")
    delete(after, pod, grace_period=0)
    after.until(after.is_empty)
    assert after.events == {}


def test_adopted_pods_count_towards_their_queues_limit(after: Any) -> None:
    after.set("crosswind", queues='{"gpu": {"max_pods": 1}}')
    after.script("exec sleep 60")
    after.scheduler(FORMER)
    first = after.orphan("first", "running", queue="gpu")
    after.until(after.pods)
    after.scheduler(NEW)
    assert after.adopt(first) == []
    second, other = after.queue("second", queue="gpu"), after.queue("other")
    after.until(lambda: len(after.pods()) == 2)
    assert after.executor.running == {first, other}
    assert second in after.executor.queued_tasks
    delete(after, after.pods()[0] if "first" in after.pods()[0]["metadata"]["name"] else after.pods()[1])
    after.until(lambda: second in after.executor.running)
