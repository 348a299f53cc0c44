"""A pod that is being deleted, or was given up, is nobody's living pod: what the next try does with what it finds."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.callbacks import KubernetesPodOperatorCallback
from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException, TaskDeferred
from benchmarks.operator_cells import first_event
from kubernetes.client import ApiClient, Configuration, CoreV1Api

from crosswind.errors import CrosswindError, Forbidden, ServerError, Unreachable
from crosswind.kube.client import Client
from crosswind.kube.resources import NODES, PODS
from crosswind.podrun.reattach import CHECKED
from crosswind.provider.hook_client import run_with_client, to_plain_json
from deadlines import scaled

pytestmark = pytest.mark.cluster

OBEYS = "trap 'sleep 3; exit 0' TERM; while :; do sleep 0.2 & wait $!; done"
STOPS = "trap 'exit 0' TERM; while :; do sleep 0.2 & wait $!; done"
DRAINS = "trap 'sleep 4; exit 0' TERM; while :; do sleep 0.2 & wait $!; done"


class Store(dict[str, Any]):
    """Core's task state store of one task instance."""

    def set(self, key: str, value: Any, **_: Any) -> None:
        self[key] = value


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + scaled(30)
    while not (outcome := condition()):
        assert time.monotonic() < end, "it did not happen within 30 s"
        time.sleep(0.05)
    return outcome


def base_of(pod: Any) -> dict[str, Any]:
    statuses = pod["status"].get("containerStatuses") or ()
    return next((status["state"] for status in statuses if status["name"] == "base"), {})


def create(runner: Any, script: str, context: Any = None, **options: Any) -> tuple[Any, str]:
    """Create a pod as a try does whose worker is lost right after; return its operator and its name."""
    operator = runner.operator(script, termination_grace_period=10, **options)
    context = context or runner.context
    operator.pod = operator.get_or_create_pod(operator.build_pod_request_obj(context), context)
    return operator, operator.pod.metadata.name


def next_try(runner: Any, printed: Any, context: Any = None, **options: Any) -> str:
    """Run the next try and return the name of its pod; its own program must have run unless it is said otherwise."""
    runner.instance.try_number += 1
    if context is None:
        runner.run("echo my own program", **options)
    else:
        runner.operator("echo my own program", **options).execute(context)
    return str(runner.instance.pushed["pod_name"])


@pytest.mark.parametrize("remembered", [False, True], ids=["by-labels", "by-the-task-state-store"])
@pytest.mark.parametrize("code", [0, 1])
def test_a_pod_that_is_being_deleted_is_not_followed(runner: Any, printed: Any, code: int, remembered: bool) -> None:
    context = runner.context | ({"task_state_store": Store()} if remembered else {})
    operator, name = create(runner, OBEYS.replace("exit 0", f"exit {code}"), context)
    until(lambda: any(base_of(pod).get("running") for pod in runner.all_pods()))
    operator.on_kill()
    assert "deletionTimestamp" in runner.all_pods()[0]["metadata"]
    assert next_try(runner, printed, context) != name
    assert "my own program" in printed.lines()


def test_a_deferred_try_does_not_wait_for_a_pod_that_is_being_deleted(runner: Any, printed: Any) -> None:
    operator, name = create(runner, OBEYS)
    until(lambda: any(base_of(pod).get("running") for pod in runner.all_pods()))
    operator.on_kill()
    assert next_try(runner, printed, deferrable=True) != name
    assert "my own program" in printed.lines()


def test_a_result_that_a_try_has_used_is_not_used_again_while_its_pod_drains(runner: Any, printed: Any) -> None:
    options = {"full_pod_spec": runner.with_sidecar(DRAINS), "termination_grace_period": 10}
    runner.run("echo first", **options)
    left = runner.all_pods()
    assert [pod["metadata"]["labels"]["already_checked"] for pod in left] == ["True"]
    assert next_try(runner, printed, **options) != left[0]["metadata"]["name"]
    assert "my own program" in printed.lines()


@pytest.mark.parametrize("wait", [0, 1])
def test_work_that_was_done_before_its_pod_was_deleted_is_not_done_again(runner: Any, printed: Any, wait: int) -> None:
    _, name = create(runner, "echo the work", full_pod_spec=runner.with_sidecar(DRAINS))
    ended = until(lambda: base_of(runner.all_pods()[0]).get("terminated"))["finishedAt"]
    due = datetime.datetime.fromisoformat(ended) + datetime.timedelta(seconds=wait)
    until(lambda: datetime.datetime.now(datetime.UTC) > due)
    runner.call_api(lambda client: client.delete(PODS, name, namespace=runner.namespace))
    assert next_try(runner, printed) == name
    assert printed.lines() == ["the work"]


def test_a_program_that_ends_in_the_second_of_its_deletion_has_not_done_its_work(runner: Any, printed: Any) -> None:
    _, name = create(runner, STOPS, full_pod_spec=runner.with_sidecar(DRAINS))
    until(lambda: any(base_of(pod).get("running") for pod in runner.all_pods()))
    until(lambda: datetime.datetime.now(datetime.UTC).microsecond < 100_000)  # the end comes in the same second
    runner.call_api(lambda client: client.delete(PODS, name, namespace=runner.namespace))
    until(lambda: base_of(runner.all_pods()[0]).get("terminated"))
    assert next_try(runner, printed) != name
    assert "my own program" in printed.lines()


@pytest.mark.parametrize("reason", ["Evicted", "DeadlineExceeded", "OutOfcpu"])
def test_a_dead_pod_without_a_state_of_its_containers_is_put_away(runner: Any, printed: Any, reason: str) -> None:
    context = runner.context | {"task_state_store": Store()}
    options = {"on_finish_action": "keep_pod", "node_selector": {"no-such": "node"}}
    _, name = create(runner, "true", context, **options)
    status = {"status": {"phase": "Failed", "reason": reason, "message": "the node said so"}}
    runner.call_api(lambda client: client.patch(PODS, name, status, namespace=runner.namespace, subresource="status"))
    assert next_try(runner, printed, context, on_finish_action="keep_pod") != name
    assert "my own program" in printed.lines()
    labels = {pod["metadata"]["name"]: pod["metadata"]["labels"] for pod in runner.all_pods()}
    assert labels[name]["already_checked"] == "True"


def test_of_two_pods_the_living_one_is_followed_and_the_other_is_nobody_s(runner: Any, printed: Any) -> None:
    _, failed = create(runner, "exit 3", on_finish_action="keep_pod")
    until(lambda: base_of(runner.all_pods()[0]).get("terminated"))
    label = {"metadata": {"labels": {"already_checked": "True"}}}
    runner.call_api(lambda client: client.patch(PODS, failed, label, namespace=runner.namespace))
    _, living = create(runner, "sleep 1; echo the living one")
    unlabel = {"metadata": {"labels": {"already_checked": None}}}
    runner.call_api(lambda client: client.patch(PODS, failed, unlabel, namespace=runner.namespace))
    assert next_try(runner, printed, on_finish_action="keep_pod") == living
    assert printed.lines() == ["the living one"]
    assert {pod["metadata"]["labels"].get("already_checked") for pod in runner.all_pods()} == {"True"}


@pytest.mark.parametrize("action", ["keep_pod", "delete_succeeded_pod", "delete_active_pod", "delete_pod"])
@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
@pytest.mark.parametrize("on_kill", ["delete_pod", "keep_pod"])
def test_a_pod_that_never_began_goes_whatever_on_finish_action_says(
    runner: Any, action: str, deferrable: bool, on_kill: str
) -> None:
    options = {"node_selector": {"no-such": "node"}, "schedule_timeout_seconds": 1, "deferrable": deferrable}
    options["on_kill_action"] = on_kill
    with pytest.raises(AirflowException, match="schedule_timeout_seconds"):
        runner.run("true", on_finish_action=action, **options)
    assert runner.all_pods() == []


def test_a_program_of_a_pod_that_was_given_up_never_runs_beside_the_next(runner: Any, printed: Any) -> None:
    label = f"pool-{runner.namespace}"
    node = runner.call_api(lambda client: client.list(NODES)).items[0]["metadata"]["name"]
    options = {"node_selector": {label: "yes"}, "on_finish_action": "keep_pod"}
    with pytest.raises(AirflowException, match="schedule_timeout_seconds"):
        runner.run("echo too late", schedule_timeout_seconds=1, **options)
    runner.call_api(lambda client: client.patch(NODES, node, {"metadata": {"labels": {label: "yes"}}}))
    try:
        name = next_try(runner, printed, **options)
        assert [pod["metadata"]["name"] for pod in runner.all_pods()] == [name]
    finally:
        runner.call_api(lambda client: client.patch(NODES, node, {"metadata": {"labels": {label: None}}}))


def test_an_image_that_comes_late_starts_no_pod_that_was_given_up(runner: Any) -> None:
    with pytest.raises(AirflowException, match="no/such:image"):
        runner.run(image="no/such:image", on_finish_action="keep_pod")
    assert runner.all_pods() == []


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_error_before_the_pod_was_looked_at_leaves_none_that_could_start(runner: Any, deferrable: bool) -> None:
    class Bad(KubernetesPodOperatorCallback):
        @staticmethod
        def on_pod_creation(**_: Any) -> None:
            raise RuntimeError("callback")

    with pytest.raises(RuntimeError, match="callback"):
        runner.run(
            "true",
            callbacks=Bad,
            node_selector={"no-such": "node"},
            on_finish_action="keep_pod",
            deferrable=deferrable,
        )
    assert runner.all_pods() == []


@pytest.mark.parametrize("error", [Forbidden("no /version", status=403), ServerError("a new leader", status=503)])
def test_a_server_that_does_not_tell_the_time_stops_no_deferral(
    runner: Any, error: CrosswindError, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def now(_: Any) -> float:
        raise error

    monkeypatch.setattr(Client, "now", now)
    options = {"deferrable": True, "do_xcom_push": True, "execution_timeout": datetime.timedelta(minutes=5)}
    assert runner.run("echo 7 > /airflow/xcom/return.json", **options) == 7


@pytest.mark.parametrize("action", ["keep_pod", "delete_succeeded_pod", "delete_pod"])
@pytest.mark.parametrize("on_kill", ["delete_pod", "keep_pod"])
def test_a_pod_that_runs_when_the_deferred_task_s_time_is_up_is_treated_as_on_kill_treats_it(
    runner: Any, action: str, on_kill: str
) -> None:
    options = {"on_finish_action": action, "on_kill_action": on_kill, "deferrable": True}
    with pytest.raises(AirflowException, match="execution_timeout"):
        runner.run("sleep 600", execution_timeout=datetime.timedelta(seconds=4), **options)
    pods = [pod for pod in runner.all_pods() if "deletionTimestamp" not in pod["metadata"]]
    if "delete_pod" in (on_kill, action):
        assert pods == []
    else:  # it runs on, and the next try attaches to it
        assert [CHECKED in pod["metadata"]["labels"] for pod in pods] == [False]


@pytest.mark.parametrize("script", ["sleep 60", "true", "exit 3"])
def test_a_pod_of_another_run_that_took_the_name_is_left_alone(runner: Any, printed: Any, script: str) -> None:
    context = runner.context | {"task_state_store": Store()}
    _, name = create(runner, script, context | {"run_id": "other"})
    until(lambda: base_of(runner.all_pods()[0]))
    assert next_try(runner, printed, context) != name
    assert printed.lines() == ["my own program"]
    (left,) = [pod["metadata"] for pod in runner.all_pods() if pod["metadata"]["name"] == name]
    assert ("deletionTimestamp" in left, CHECKED in left["labels"]) == (False, False)


def test_a_pod_that_took_the_name_of_a_deferred_one_is_left_alone(runner: Any, printed: Any) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        runner.operator("true", deferrable=True).execute(runner.context)
    event = asyncio.run(first_event(*deferred.value.trigger.serialize()))
    name = event["name"]
    runner.call_api(lambda client: client.delete(PODS, name, namespace=runner.namespace, grace_period=0))
    until(lambda: not runner.all_pods())
    other = runner.operator("echo of another task; sleep 60").build_pod_request_obj(runner.context)
    other.metadata.name = name
    taken = to_plain_json(other)
    runner.call_api(lambda client: client.create(PODS, taken, namespace=runner.namespace))
    until(lambda: base_of(runner.all_pods()[0]).get("running"))
    assert runner.operator("true", deferrable=True).trigger_reentry(runner.context, event) is None
    assert printed.lines() == []
    (left,) = [pod["metadata"] for pod in runner.all_pods()]
    assert ("deletionTimestamp" in left, CHECKED in left["labels"]) == (False, False)


class KillsAtTeardown(KubernetesPodOperatorCallback):
    """Airflow ends the task after its program has ended, and the pod is gone before anything more is read."""

    @staticmethod
    def on_pod_teardown(*, operator: Any, pod: Any, **_: Any) -> None:
        operator.on_kill()
        name, namespace = pod.metadata.name, pod.metadata.namespace
        until(lambda: not operator.client.list_namespaced_pod(namespace, field_selector=f"metadata.name={name}").items)


@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
@pytest.mark.parametrize(
    ("script", "options", "error"),
    [
        ("exit 3", {}, AirflowException),
        ("exit 3", {"skip_on_exit_code": 3}, AirflowSkipException),
        ("echo 7 > /airflow/xcom/return.json", {"do_xcom_push": True}, AirflowException),
    ],
    ids=["failed", "skipped", "xcom"],
)
def test_a_task_that_is_killed_after_its_program_has_ended_is_no_success(
    runner: Any, script: str, options: Any, error: type[Exception], deferrable: bool
) -> None:
    # the sidecar holds the value back until the deletion
    options = options | {"full_pod_spec": runner.with_sidecar("sleep 60"), "deferrable": deferrable}
    with pytest.raises(error) as raised:
        runner.run(script, callbacks=KillsAtTeardown, **options)
    assert type(raised.value) is error


def test_labels_of_the_author_s_own_narrow_the_search(runner: Any) -> None:
    create(runner, "sleep 30", labels={"part": "one"})
    assert runner.operator("true", labels={"part": "two"}).find_pod(runner.namespace, runner.context) is None


def test_requests_of_the_operator_that_take_for_ever_fail_with_a_sentence() -> None:
    api = CoreV1Api(ApiClient(Configuration(host="http://127.0.0.1:1")))
    with pytest.raises(Unreachable, match=r"did not answer all requests within 0\.1 s"):
        run_with_client(api, lambda _: asyncio.sleep(60), timeout=0.1)
