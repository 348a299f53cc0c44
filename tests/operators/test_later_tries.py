"""A pod that is being deleted, or was given up, is nobody's living pod: what the next try does with what it finds."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.callbacks import KubernetesPodOperatorCallback
from airflow.providers.common.compat.sdk import AirflowException

from crosswind.kube.resources import NODES, PODS

pytestmark = pytest.mark.cluster

OBEYS = "trap 'sleep 3; exit 0' TERM; while :; do sleep 0.2 & wait $!; done"
STOPS = "trap 'exit 0' TERM; while :; do sleep 0.2 & wait $!; done"
DRAINS = "trap 'sleep 4; exit 0' TERM; while :; do sleep 0.2 & wait $!; done"


class Store(dict[str, Any]):
    """Core's task state store of one task instance."""

    def set(self, key: str, value: Any, **_: Any) -> None:
        self[key] = value


def until(happened: Callable[[], Any]) -> Any:
    end = time.monotonic() + 30
    while not (found := happened()):
        assert time.monotonic() < end, "it did not happen within 30 s"
        time.sleep(0.05)
    return found


def all_pods(stand: Any) -> list[Any]:
    return list(stand.ask(lambda client: client.list(PODS, namespace=stand.namespace)).items)


def base_of(pod: Any) -> dict[str, Any]:
    statuses = pod["status"].get("containerStatuses") or ()
    return next((one["state"] for one in statuses if one["name"] == "base"), {})


def create(stand: Any, script: str, context: Any = None, **given: Any) -> tuple[Any, str]:
    """Create a pod as a try does whose worker is lost right after; return its operator and its name."""
    operator = stand.operator(script, termination_grace_period=10, **given)
    context = context or stand.context
    operator.pod = operator.get_or_create_pod(operator.build_pod_request_obj(context), context)
    return operator, operator.pod.metadata.name


def next_try(stand: Any, printed: Any, context: Any = None, **given: Any) -> str:
    """Run the next try and return the name of its pod; its own program must have run unless it is said otherwise."""
    stand.instance.try_number += 1
    if context is None:
        stand.run("echo my own program", **given)
    else:
        stand.operator("echo my own program", **given).execute(context)
    return str(stand.instance.pushed["pod_name"])


@pytest.mark.parametrize("remembered", [False, True], ids=["by-labels", "by-the-task-state-store"])
@pytest.mark.parametrize("code", [0, 1])
def test_a_pod_that_is_being_deleted_is_not_followed(stand: Any, printed: Any, code: int, remembered: bool) -> None:
    context = stand.context | ({"task_state_store": Store()} if remembered else {})
    operator, name = create(stand, OBEYS.replace("exit 0", f"exit {code}"), context)
    until(lambda: any(base_of(pod).get("running") for pod in all_pods(stand)))
    operator.on_kill()
    assert "deletionTimestamp" in all_pods(stand)[0]["metadata"]
    assert next_try(stand, printed, context) != name
    assert "my own program" in printed.lines()


def test_a_deferred_try_does_not_wait_for_a_pod_that_is_being_deleted(stand: Any, printed: Any) -> None:
    operator, name = create(stand, OBEYS)
    until(lambda: any(base_of(pod).get("running") for pod in all_pods(stand)))
    operator.on_kill()
    assert next_try(stand, printed, deferrable=True) != name
    assert "my own program" in printed.lines()


def test_a_result_that_a_try_has_used_is_not_used_again_while_its_pod_drains(stand: Any, printed: Any) -> None:
    given = {"full_pod_spec": stand.beside(DRAINS), "termination_grace_period": 10}
    stand.run("echo first", **given)
    left = all_pods(stand)
    assert [pod["metadata"]["labels"]["already_checked"] for pod in left] == ["True"]
    assert next_try(stand, printed, **given) != left[0]["metadata"]["name"]
    assert "my own program" in printed.lines()


@pytest.mark.parametrize("wait", [0, 1])
def test_work_that_was_done_before_its_pod_was_deleted_is_not_done_again(stand: Any, printed: Any, wait: int) -> None:
    _, name = create(stand, "echo the work", full_pod_spec=stand.beside(DRAINS))
    ended = until(lambda: base_of(all_pods(stand)[0]).get("terminated"))["finishedAt"]
    due = datetime.datetime.fromisoformat(ended) + datetime.timedelta(seconds=wait)
    until(lambda: datetime.datetime.now(datetime.UTC) > due)
    stand.ask(lambda client: client.delete(PODS, name, namespace=stand.namespace))
    assert next_try(stand, printed) == name
    assert printed.lines() == ["the work"]


def test_a_program_that_ends_in_the_second_of_its_deletion_has_not_done_its_work(stand: Any, printed: Any) -> None:
    _, name = create(stand, STOPS, full_pod_spec=stand.beside(DRAINS))
    until(lambda: any(base_of(pod).get("running") for pod in all_pods(stand)))
    until(lambda: datetime.datetime.now(datetime.UTC).microsecond < 100_000)  # the end comes in the same second
    stand.ask(lambda client: client.delete(PODS, name, namespace=stand.namespace))
    until(lambda: base_of(all_pods(stand)[0]).get("terminated"))
    assert next_try(stand, printed) != name
    assert "my own program" in printed.lines()


@pytest.mark.parametrize("reason", ["Evicted", "DeadlineExceeded", "OutOfcpu"])
def test_a_dead_pod_without_a_state_of_its_containers_is_put_away(stand: Any, printed: Any, reason: str) -> None:
    context = stand.context | {"task_state_store": Store()}
    given = {"on_finish_action": "keep_pod", "node_selector": {"no-such": "node"}}
    _, name = create(stand, "true", context, **given)
    status = {"status": {"phase": "Failed", "reason": reason, "message": "the node said so"}}
    stand.ask(lambda client: client.patch(PODS, name, status, namespace=stand.namespace, subresource="status"))
    assert next_try(stand, printed, context, on_finish_action="keep_pod") != name
    assert "my own program" in printed.lines()
    labels = {pod["metadata"]["name"]: pod["metadata"]["labels"] for pod in all_pods(stand)}
    assert labels[name]["already_checked"] == "True"


def test_of_two_pods_the_living_one_is_followed_and_the_other_is_nobody_s(stand: Any, printed: Any) -> None:
    _, failed = create(stand, "exit 3", on_finish_action="keep_pod")
    until(lambda: base_of(all_pods(stand)[0]).get("terminated"))
    label = {"metadata": {"labels": {"already_checked": "True"}}}
    stand.ask(lambda client: client.patch(PODS, failed, label, namespace=stand.namespace))
    _, living = create(stand, "sleep 1; echo the living one")
    unlabel = {"metadata": {"labels": {"already_checked": None}}}
    stand.ask(lambda client: client.patch(PODS, failed, unlabel, namespace=stand.namespace))
    assert next_try(stand, printed, on_finish_action="keep_pod") == living
    assert printed.lines() == ["the living one"]
    assert {pod["metadata"]["labels"].get("already_checked") for pod in all_pods(stand)} == {"True"}


@pytest.mark.parametrize("action", ["keep_pod", "delete_succeeded_pod", "delete_active_pod", "delete_pod"])
@pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])
def test_a_pod_that_never_began_goes_whatever_on_finish_action_says(stand: Any, action: str, deferrable: bool) -> None:
    given = {"node_selector": {"no-such": "node"}, "schedule_timeout_seconds": 1, "deferrable": deferrable}
    with pytest.raises(AirflowException, match="schedule_timeout_seconds"):
        stand.run("true", on_finish_action=action, **given)
    assert all_pods(stand) == []


def test_a_program_of_a_pod_that_was_given_up_never_runs_beside_the_next(stand: Any, printed: Any) -> None:
    label = f"pool-{stand.namespace}"
    node = stand.ask(lambda client: client.list(NODES)).items[0]["metadata"]["name"]
    given = {"node_selector": {label: "yes"}, "on_finish_action": "keep_pod"}
    with pytest.raises(AirflowException, match="schedule_timeout_seconds"):
        stand.run("echo too late", schedule_timeout_seconds=1, **given)
    stand.ask(lambda client: client.patch(NODES, node, {"metadata": {"labels": {label: "yes"}}}))
    try:
        name = next_try(stand, printed, **given)
        assert [pod["metadata"]["name"] for pod in all_pods(stand)] == [name]
    finally:
        stand.ask(lambda client: client.patch(NODES, node, {"metadata": {"labels": {label: None}}}))


def test_an_image_that_comes_late_starts_no_pod_that_was_given_up(stand: Any) -> None:
    with pytest.raises(AirflowException, match="no/such:image"):
        stand.run(image="no/such:image", on_finish_action="keep_pod")
    assert all_pods(stand) == []


def test_an_error_before_the_pod_was_looked_at_leaves_none_that_could_start(stand: Any) -> None:
    class Bad(KubernetesPodOperatorCallback):
        @staticmethod
        def on_pod_creation(**_: Any) -> None:
            raise RuntimeError("callback")

    with pytest.raises(RuntimeError, match="callback"):
        stand.run("true", callbacks=Bad, node_selector={"no-such": "node"}, on_finish_action="keep_pod")
    assert all_pods(stand) == []


def test_labels_of_the_author_s_own_narrow_the_search(stand: Any) -> None:
    create(stand, "sleep 30", labels={"part": "one"})
    assert stand.operator("true", labels={"part": "two"}).find_pod(stand.namespace, stand.context) is None
