from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from airflow.providers.cncf.kubernetes.callbacks import KubernetesPodOperatorCallback
from airflow.providers.cncf.kubernetes.operators import pod as stock_module
from airflow.providers.common.compat.sdk import AirflowException, AirflowSkipException
from benchmarks.chaos.proxying import Proxy
from kubernetes.client import models as k8s

from crosswind.kube.resources import PODS
from deadlines import scaled

pytestmark = pytest.mark.cluster


def until_running(runner: Any) -> dict[str, Any]:
    """Return the one pod once it runs."""
    while not (pods := runner.pods()) or pods[0]["status"].get("phase") != "Running":
        time.sleep(0.05)
    return dict(pods[0])


STAYS = "trap 'exit 0' TERM; while :; do sleep 0.2 & wait $!; done"


def both(test: Any) -> Any:
    return pytest.mark.parametrize("deferrable", [False, True], ids=["sync", "deferrable"])(test)


@both
def test_the_base_container_decides_by_its_name(runner: Any, deferrable: bool) -> None:
    pod = k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(),
        spec=k8s.V1PodSpec(
            containers=[
                k8s.V1Container(name="work"),
                k8s.V1Container(name="base", image=runner.cluster.image, command=["sh", "-c", STAYS]),
            ]
        ),
    )
    runner.run("exit 0", base_container_name="work", full_pod_spec=pod, deferrable=deferrable)
    with pytest.raises(AirflowException, match="work ended with exit code 4"):
        runner.run("exit 4", base_container_name="work", full_pod_spec=pod, deferrable=deferrable)


def test_a_sidecar_that_fails_fails_no_task(runner: Any) -> None:
    runner.run("sleep 0.5", full_pod_spec=runner.with_sidecar("exit 143"))


@both
def test_a_pod_that_somebody_deletes_fails_the_task(runner: Any, deferrable: bool) -> None:
    def delete() -> None:
        name = until_running(runner)["metadata"]["name"]
        runner.call_api(lambda client: client.delete(PODS, name, namespace=runner.namespace, grace_period=0))

    helper = threading.Thread(target=delete)
    helper.start()
    with pytest.raises(AirflowException, match=r"failed: .*delete"):
        runner.run("sleep 20", deferrable=deferrable)
    helper.join()


@both
def test_a_start_that_takes_too_long_fails_with_what_it_waits_for(runner: Any, deferrable: bool) -> None:
    resources = k8s.V1ResourceRequirements(requests={"cpu": "900"})
    with pytest.raises(AirflowException, match=r"schedule_timeout_seconds = 1\. .*cpu"):
        runner.run(container_resources=resources, schedule_timeout_seconds=1, deferrable=deferrable)
    assert runner.pods() == []


@both
def test_an_image_that_is_not_there_fails_at_once(runner: Any, deferrable: bool) -> None:
    began = time.monotonic()
    with pytest.raises(AirflowException, match="no/such:image"):
        runner.run(image="no/such:image", deferrable=deferrable)
    assert time.monotonic() - began < scaled(10)


@both
def test_the_exit_code_may_skip_the_task_whose_xcom_is_pushed(runner: Any, deferrable: bool) -> None:
    options = {"skip_on_exit_code": [9], "do_xcom_push": True, "deferrable": deferrable}
    with pytest.raises(AirflowSkipException, match="exit code 9"):
        runner.run("echo 5 > /airflow/xcom/return.json; exit 9", **options)
    assert runner.instance.pushed["return_value"] == 5
    assert runner.pods() == []


@pytest.mark.parametrize(
    ("action", "script", "kept"),
    [
        ("delete_pod", "exit 1", 0),
        ("keep_pod", "exit 0", 1),
        ("delete_succeeded_pod", "exit 0", 0),
        ("delete_succeeded_pod", "exit 1", 1),
        ("delete_active_pod", "exit 0", 1),
    ],
)
def test_on_finish_action_decides_whether_the_pod_stays(runner: Any, action: str, script: str, kept: int) -> None:
    try:
        runner.run(script, on_finish_action=action, full_pod_spec=runner.with_sidecar(STAYS))
    except AirflowException:
        assert script == "exit 1"
    pods = runner.pods()
    assert len(pods) == kept
    for pod in pods:
        assert pod["metadata"]["labels"]["already_checked"] == "True"
        assert pod["status"]["phase"] == ("Succeeded" if script == "exit 0" else "Failed")


def test_a_retry_takes_over_the_pod_of_a_lost_worker_while_it_runs(runner: Any) -> None:
    first = runner.operator("sleep 1; echo done")
    request = first.build_pod_request_obj(runner.context)
    first.get_or_create_pod(request, runner.context)
    runner.instance.try_number = 2
    runner.run("echo never run")
    assert runner.instance.pushed["pod_name"] == request.metadata.name


@pytest.mark.parametrize(("script", "taken"), [("exit 0", True), ("exit 1", False)])
def test_a_retry_takes_over_a_finished_pod_only_if_it_succeeded(runner: Any, script: str, taken: bool) -> None:
    first = runner.operator(script)
    request = first.build_pod_request_obj(runner.context)
    first.get_or_create_pod(request, runner.context)
    while runner.pods()[0]["status"].get("phase") not in ("Succeeded", "Failed"):
        time.sleep(0.05)
    runner.instance.try_number = 2
    runner.run("exit 0")
    assert (runner.instance.pushed["pod_name"] == request.metadata.name) is taken


def test_a_try_with_a_fixed_name_waits_until_the_pod_before_is_gone(runner: Any) -> None:
    slow = "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.1; done"
    options = {"name": "fixed", "random_name_suffix": False, "termination_grace_period": 5}
    first = runner.operator(slow, **options)
    first.get_or_create_pod(first.build_pod_request_obj(runner.context), runner.context)
    until_running(runner)
    runner.call_api(lambda client: client.delete(PODS, "fixed", namespace=runner.namespace, grace_period=5))
    runner.instance.try_number = 2
    runner.run("echo new", durable=False, **options)
    assert runner.instance.pushed["pod_name"] == "fixed"


def test_a_name_that_a_kept_pod_has_is_reported_with_the_fix(runner: Any) -> None:
    options = {"name": "fixed", "random_name_suffix": False, "on_finish_action": "keep_pod"}
    runner.run("true", **options)
    runner.instance.try_number = 2
    with pytest.raises(AirflowException, match=r"fixed is there already \(dag_id table, .*try_number 1\): delete it"):
        runner.run("true", **options)
    assert len(runner.pods()) == 1


def test_a_pod_whose_creation_was_answered_too_late_is_this_try_s(runner: Any, tmp_path: Path) -> None:
    lost = iter(["lost"])
    with Proxy(runner.cluster.kubeconfig, tmp_path) as proxy:
        proxy.fault = lambda method, path: next(lost, None) if method == "POST" and "/pods" in path else None
        operator = runner.operator("echo once", do_xcom_push=False, config_file=str(proxy.kubeconfig))
        operator.execute(runner.context)
        runner.close()
    assert proxy.injected == 1
    assert runner.pods() == []


def test_a_task_that_is_killed_before_its_pod_is_there_leaves_none(runner: Any) -> None:
    class Kill(KubernetesPodOperatorCallback):
        @staticmethod
        def on_pod_manifest_created(*, operator: Any, **_: Any) -> None:
            operator.on_kill()

    with pytest.raises(AirflowException, match="killed"):
        runner.run("sleep 20", callbacks=Kill)
    assert runner.pods() == []


@contextmanager
def killed_when_it_runs(runner: Any, operator: Any, afterwards: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Have a signal handler call ``on_kill``, as in a worker, once the pod runs; ``afterwards`` runs beside it."""
    main = threading.main_thread().ident
    assert main is not None

    def kill() -> None:
        until_running(runner)
        signal.pthread_kill(main, signal.SIGUSR1)
        afterwards()

    before = signal.signal(signal.SIGUSR1, lambda *_: operator.on_kill())
    helper = threading.Thread(target=kill, daemon=True)
    helper.start()
    try:
        yield
        helper.join(scaled(20))
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_killing_the_task_ends_the_wait_and_deletes_the_pod(runner: Any) -> None:
    operator = runner.operator("sleep 600")
    began = time.monotonic()
    with killed_when_it_runs(runner, operator), pytest.raises(AirflowException, match="killed"):
        operator.execute(runner.context)
    assert time.monotonic() - began < scaled(15)
    assert runner.pods() == []


def test_a_program_that_ends_well_by_the_deletion_is_no_success_of_a_killed_task(runner: Any, tmp_path: Path) -> None:
    def answer_late() -> None:
        while runner.all_pods():
            time.sleep(0.05)
        time.sleep(0.5)  # the follower has seen the end, and on_kill still waits for its answer
        proxy.release()

    with Proxy(runner.cluster.kubeconfig, tmp_path) as proxy:
        proxy.fault = lambda method, path: "late" if method == "DELETE" and "/pods/" in path else None
        operator = runner.operator(STAYS, do_xcom_push=False, config_file=str(proxy.kubeconfig))
        with (
            killed_when_it_runs(runner, operator, answer_late),
            pytest.raises(AirflowException, match="killed"),
        ):
            operator.execute(runner.context)
        runner.close()
    assert proxy.injected == 1


@both
def test_a_task_that_is_killed_before_it_waits_does_not_succeed(runner: Any, deferrable: bool) -> None:
    class Kill(KubernetesPodOperatorCallback):
        @staticmethod
        def on_pod_creation(*, operator: Any, **_: Any) -> None:
            until_running(runner)
            operator.on_kill()

    with pytest.raises(AirflowException, match="The task was killed"):
        runner.run(STAYS, callbacks=Kill, deferrable=deferrable)
    assert runner.pods() == []


def test_an_exception_in_the_worker_cleans_up(runner: Any) -> None:
    class Bad(KubernetesPodOperatorCallback):
        @staticmethod
        def on_pod_starting(**_: Any) -> None:
            raise RuntimeError("callback")

    with pytest.raises(RuntimeError, match="callback"):
        runner.run("sleep 30", callbacks=Bad)
    assert runner.pods() == []


@both
def test_callbacks_come_in_stock_s_order(runner: Any, deferrable: bool) -> None:
    class Note(KubernetesPodOperatorCallback):
        calls: ClassVar[list[str]] = []

    def note(name: str) -> Any:
        return staticmethod(lambda **options: Note.calls.append(name))

    names = [name for name in vars(KubernetesPodOperatorCallback) if name.startswith("on_")]
    for name in names:
        setattr(Note, name, note(name))
    runner.run("true", callbacks=Note, deferrable=deferrable)
    calls = [name for name in dict.fromkeys(Note.calls) if name != "on_sync_client_creation"]
    resuming = ["on_operator_resuming"] if deferrable else []
    assert calls == [
        "on_pod_manifest_created",
        "on_pod_creation",
        *resuming,
        "on_pod_starting",
        "on_pod_completion",
        "on_pod_teardown",
        "on_pod_cleanup",
    ]


def test_callbacks_get_each_line_of_the_log_with_its_container_and_time(runner: Any) -> None:
    class Note(KubernetesPodOperatorCallback):
        lines: ClassVar[list[tuple[str, str]]] = []

        @staticmethod
        def progress_callback(*, line: str, container_name: str, timestamp: Any, **_: Any) -> None:
            assert timestamp.year > 2000
            Note.lines.append((container_name, line))

    runner.run("echo one; echo two", callbacks=Note)
    assert Note.lines == [("base", "one"), ("base", "two")]


@both
def test_all_lines_are_printed_once(runner: Any, printed: Any, deferrable: bool) -> None:
    runner.run("i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done; printf 'no end'", deferrable=deferrable)
    assert printed.lines() == [*(f"line {number}" for number in range(1, 2001)), "no end"]


def test_logs_of_init_containers_and_sidecars_are_printed_when_asked_for(runner: Any, printed: Any) -> None:
    runner.run(
        "sleep 0.5; echo from base",
        init_containers=[k8s.V1Container(name="before", image=runner.cluster.image, command=["echo", "from init"])],
        full_pod_spec=runner.with_sidecar(f"echo from side; {STAYS}"),
        init_container_logs=True,
        container_logs=True,
    )
    assert {name: printed.lines(name) for name in ("before", "base", "side")} == {
        "before": ["from init"],
        "base": ["from base"],
        "side": ["from side"],
    }


def test_lines_carry_the_level_that_they_begin_with(runner: Any, printed: Any) -> None:
    runner.run("echo 'WARNING: low'; echo '[ERROR] bad'; echo plain")
    levels = printed.levels
    assert levels["[base] WARNING: low"] == "warning"
    assert levels["[base] [ERROR] bad"] == "error"
    assert levels["[base] plain"] == "info"


def test_without_get_logs_nothing_is_printed(runner: Any, printed: Any) -> None:
    runner.run("echo words", get_logs=False)
    assert printed.lines() == []


def test_a_deferred_task_with_a_logging_interval_prints_each_line_once(runner: Any, printed: Any) -> None:
    runner.run("for i in 1 2 3; do echo line $i; sleep 0.3; done", deferrable=True, logging_interval=1)
    assert printed.lines() == []  # they are in the triggerer's part of the log


def test_the_pod_of_a_failed_task_is_logged_without_its_secrets(runner: Any, capsys: Any) -> None:
    options = {"env_vars": {"GPG_PASSPHRASE": "s3cr3t", "LEVEL": "debug"}, "log_pod_spec_on_failure": True}
    with pytest.raises(AirflowException, match="exit code 1"):
        runner.run("exit 1 # --token=s3cr3t", **options)
    printed = capsys.readouterr().out
    assert "The pod as last seen" in printed
    assert "GPG_PASSPHRASE" in printed
    assert "s3cr3t" not in printed


def test_labels_are_fit_for_a_mesh(runner: Any) -> None:
    dag_like = "d" * 200
    pod = runner.operator("true", name="long-" * 30).build_pod_request_obj(runner.context | {"run_id": dag_like})
    assert pod.metadata.labels["app.kubernetes.io/name"] == "airflow-pod-operator"
    assert all(len(value) <= 63 for value in pod.metadata.labels.values())
    assert len(pod.metadata.name) <= 63
    own = runner.operator("true", labels={"app": "mine"}).build_pod_request_obj(runner.context)
    assert "app.kubernetes.io/name" not in own.metadata.labels


@pytest.mark.parametrize("xcom_sidecar", ["native", "stock"])
def test_the_mutation_hook_of_the_deployment_has_the_last_word(
    runner: Any, xcom_sidecar: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hook(pod: k8s.V1Pod) -> None:
        containers = [*(pod.spec.init_containers or []), *pod.spec.containers]
        for container in containers:
            container.image = f"registry.internal/{container.image}"
        pod.spec.tolerations = None
        pod.metadata.labels = {"mine": str(len(containers))}
        pod.metadata.annotations = {}

    monkeypatch.setattr(stock_module, "pod_mutation_hook", hook)
    operator = runner.operator("true", do_xcom_push=True, xcom_sidecar=xcom_sidecar)
    pod = operator.build_pod_request_obj(runner.context)
    images = [container.image for container in [*(pod.spec.init_containers or []), *pod.spec.containers]]
    assert len(images) == 2
    assert all(image.startswith("registry.internal/") for image in images)
    assert (pod.spec.tolerations, pod.metadata.labels, pod.metadata.annotations) == (None, {"mine": "2"}, {})
    assert stock_module.pod_mutation_hook is hook


def test_numbers_and_dicts_that_stock_takes_are_taken(runner: Any) -> None:
    options = {
        "container_resources": k8s.V1ResourceRequirements(requests={"cpu": 0.1}),
        "security_context": {"runAsNonRoot": False},
        "do_xcom_push": True,
    }
    runner.run("true", **options)


def test_injectors_are_asked_for_sidecars_that_end_and_the_author_s_word_counts(runner: Any) -> None:
    annotations = runner.operator("true").build_pod_request_obj(runner.context).metadata.annotations
    assert annotations["sidecar.istio.io/nativeSidecar"] == "true"
    assert annotations["config.linkerd.io/proxy-admin-shutdown"] == "enabled"
    own_annotations = {"sidecar.istio.io/nativeSidecar": "false", "config.linkerd.io/proxy-admin-shutdown": "disabled"}
    assert (
        own_annotations.items()
        <= runner.operator("true", annotations=own_annotations)
        .build_pod_request_obj(runner.context)
        .metadata.annotations.items()
    )


@pytest.fixture
def quick_alarm() -> Iterator[Callable[[float], None]]:
    class Alarm(BaseException):
        pass

    def ring(*_: Any) -> None:
        raise TimeoutError("the task's time is up")

    before = signal.signal(signal.SIGALRM, ring)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds) and None
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_the_execution_timeout_reaches_the_wait_and_cleans_up(
    runner: Any, quick_alarm: Callable[[float], None]
) -> None:
    operator = runner.operator("sleep 600")
    began = time.monotonic()
    quick_alarm(2.0)
    with pytest.raises(TimeoutError, match="time is up"):
        operator.execute(runner.context)
    assert time.monotonic() - began < scaled(15)
    assert runner.pods() == []
