"""Overrides of stock's methods are called where stock calls them, or refused."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.kubernetes_helper_functions import PodLaunchFailedException
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator as StockOperator
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodLaunchTimeoutException
from airflow.providers.common.compat.sdk import AirflowException
from kubernetes.client import models as k8s

from crosswind import operators
from crosswind.operators import KubernetesPodOperator
from crosswind.provider import pod_launcher, task_state

CALLED = (
    "get_or_create_pod",
    "find_pod",
    "await_pod_start",
    "await_init_containers_completion",
    "await_pod_completion",
    "extract_xcom",
    "post_complete_action",
    "cleanup",
    "process_pod_deletion",
)


def noting(*names: str) -> Any:
    """Return a subclass that notes the calls of its overrides."""
    calls: list[str] = []

    def override(name: str) -> Any:
        def call(self: Any, *args: Any, **options: Any) -> Any:
            calls.append(name)
            return getattr(KubernetesPodOperator, name)(self, *args, **options)

        return call

    return type("Mine", (KubernetesPodOperator,), {name: override(name) for name in names} | {"calls": calls})


@pytest.mark.cluster
def test_overrides_are_called_in_stock_s_order(runner: Any) -> None:
    kind = noting(*CALLED)
    assert runner.run("echo 1 > /airflow/xcom/return.json", kind=kind, do_xcom_push=True) == 1
    assert kind.calls == list(CALLED)


@pytest.mark.cluster
def test_overrides_are_called_when_the_task_was_deferred(runner: Any) -> None:
    kind = noting(*CALLED, "invoke_defer_method")
    options = {"kind": kind, "do_xcom_push": True, "deferrable": True}
    assert runner.run("echo 1 > /airflow/xcom/return.json", **options) == 1
    assert {"invoke_defer_method", "extract_xcom", "post_complete_action", "cleanup"} <= set(kind.calls)
    assert kind.calls.index("extract_xcom") < kind.calls.index("post_complete_action") < kind.calls.index("cleanup")


@pytest.mark.cluster
def test_a_cleanup_may_turn_a_failure_into_something_else(runner: Any) -> None:
    class Mine(KubernetesPodOperator):
        def cleanup(self, pod: Any, remote_pod: Any, xcom_result: Any = None, context: Any = None) -> None:
            try:
                super().cleanup(pod, remote_pod, xcom_result, context)
            except AirflowException as error:
                raise RuntimeError(f"mine: {error}") from error

    with pytest.raises(RuntimeError, match=r"mine: .*exit code 3"):
        runner.run("exit 3", kind=Mine)
    assert runner.pods() == []


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"image": "no/such:image"}, PodLaunchFailedException),
        ({"node_selector": {"no-such": "node"}, "schedule_timeout_seconds": 1}, PodLaunchTimeoutException),
    ],
    ids=["failed", "too-late"],
)
def test_a_start_that_fails_raises_stock_s_exceptions(
    runner: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    class Mine(KubernetesPodOperator):
        def await_pod_start(self, pod: Any) -> None:
            try:
                super().await_pod_start(pod)
            except error as problem:
                raise RuntimeError(f"mine: {problem}") from problem

    with pytest.raises(RuntimeError, match=r"mine: .*(no/such|node)"):
        runner.run(kind=Mine, **options)


@pytest.mark.cluster
def test_the_log_of_an_init_container_that_fails_is_printed(runner: Any, printed: Any) -> None:
    before = k8s.V1Container(name="before", image=runner.cluster.image, command=["sh", "-c", "echo why; exit 3"])
    with pytest.raises(PodLaunchFailedException, match=r"init container before failed with exit code 3"):
        runner.run(init_containers=[before], init_container_logs=True)
    assert printed.lines("before") == ["why"]


@pytest.mark.cluster
def test_the_pod_is_followed_to_its_end_although_an_override_did_not_wait(runner: Any, printed: Any) -> None:
    class Hasty(KubernetesPodOperator):
        def await_pod_start(self, pod: Any) -> None:
            pass

        def await_pod_completion(self, pod: Any) -> None:
            pass

    runner.run("echo begin; sleep 0.5; echo end", kind=Hasty)
    assert printed.lines() == ["begin", "end"]


@pytest.mark.cluster
def test_a_deferral_written_before_there_was_a_context_still_works(runner: Any) -> None:
    class Old(KubernetesPodOperator):
        def invoke_defer_method(self, last_log_time: Any = None) -> None:  # type: ignore[override]
            super().invoke_defer_method(last_log_time)

    runner.run("true", kind=Old, deferrable=True)


@pytest.mark.parametrize("name", sorted(operators._NEVER_CALLED))
def test_a_method_that_is_never_called_is_refused_with_its_name(name: str) -> None:
    kind = type("Mine", (KubernetesPodOperator,), {name: lambda self, *args, **options: None})
    with pytest.raises(TypeError, match=rf"Mine overrides {name}, which .* never calls"):
        kind(task_id="task")


def test_each_method_of_stock_s_is_ours_called_or_refused() -> None:
    """Looks at the source: a method that a new version of the provider brings shows up here."""
    source = "".join(map(inspect.getsource, (operators, pod_launcher, task_state)))
    ours = {**vars(pod_launcher.PodLauncher), **vars(KubernetesPodOperator)}
    within = {"execute", "dry_run", "container_logs", "_incluster_namespace", "_do_render_template_fields"}
    within |= {"_render_nested_template_fields", "_set_name"}  # called by stock's or core's own code
    names = {name for name, value in vars(StockOperator).items() if callable(value) or hasattr(value, "func")}
    names = {name for name in names if not name.startswith("__")}
    neither = {
        name
        for name in names - set(ours) - set(operators._NEVER_CALLED) - within
        if f".{name}(" not in source and f"self.{name}" not in source
    }
    assert neither == set()
