"""Bad configuration and unreachable clusters: the scheduler continues, and the tasks fail with the reason."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from deadlines import scaled

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: me}}]
clusters: [{name: here, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: me, user: {token: secret}}]
"""


@pytest.fixture
def kubeconfig(bench: Any) -> Path:
    """A kubeconfig whose server does not answer."""
    path: Path = bench.folder / "kubeconfig"
    path.write_text(KUBECONFIG)
    return path


def test_a_refused_option_fails_each_task_with_option_and_fix(bench: Any) -> None:
    bench.set("kubernetes_executor", client_factory="my.factory")
    bench.start()
    reason = bench.failure(bench.queue())
    assert "[kubernetes_executor] client_factory is not supported" in reason
    assert "exec plug-ins" in reason
    assert not bench.executor.running


def test_a_missing_kubeconfig_fails_tasks_with_its_path(bench: Any) -> None:
    bench.start()
    assert str(bench.folder / "kubeconfig") in bench.failure(bench.queue("before"))
    assert str(bench.folder / "kubeconfig") in bench.failure(bench.queue("after"))


def test_a_kubeconfig_that_appears_later_is_used(bench: Any) -> None:
    bench.start()
    bench.failure(bench.queue())
    (bench.folder / "kubeconfig").write_text(KUBECONFIG)
    bench.until(lambda: not bench.executor._engine.figures()["refusal"])


def test_a_server_that_does_not_answer_fails_tasks_after_the_launch_timeout(bench: Any, kubeconfig: Path) -> None:
    bench.set("crosswind", launch_timeout="1")
    bench.start()
    began = time.monotonic()
    reason = bench.failure(bench.queue())
    assert time.monotonic() - began >= 1
    assert "127.0.0.1:9" in reason


def test_heartbeats_do_not_block_while_the_server_does_not_answer(bench: Any, kubeconfig: Path) -> None:
    bench.start()
    for number in range(8):
        bench.queue(f"task{number}")
    slowest = 0.0
    for _ in range(20):
        began = time.monotonic()
        bench.executor.heartbeat()
        slowest = max(slowest, time.monotonic() - began)
    assert slowest < scaled(0.5)
    assert len(bench.executor.running) == 8


def test_the_reason_is_in_the_event_log_and_in_the_tasks_own_log(bench: Any) -> None:
    bench.start()
    reason = bench.failure(bench.queue())
    assert bench.event_log() == [("pod failed", reason, "task")]
    log = bench.folder / "logs" / "dag_id=dag" / "task_id=task" / "attempt=1.log"
    bench.until(log.exists)
    line = json.loads(log.read_text().splitlines()[0])
    assert line["event"] == reason
    assert line["level"] == "error"


def test_end_returns_soon_while_the_server_does_not_answer(bench: Any, kubeconfig: Path) -> None:
    bench.start()
    bench.queue()
    bench.beat()
    began = time.monotonic()
    bench.executor.end()
    assert time.monotonic() - began < scaled(10)
    bench.executor.end()


def test_an_executor_that_was_never_started_can_end_and_read_logs(bench: Any) -> None:
    from types import SimpleNamespace

    from crosswind.executor import KubernetesExecutor

    executor = KubernetesExecutor()
    ti = SimpleNamespace(
        dag_id="d",
        task_id="t",
        run_id="r",
        map_index=-1,
        executor_config=None,
        queue="default",
        external_executor_id=None,
    )
    messages, logs = executor.get_task_log(ti, 1)  # type: ignore[arg-type]
    assert "cannot be read" in messages[0]
    assert logs == [""]
    executor.end()


@pytest.mark.parametrize("parallelism", [0, -1])
def test_parallelism_must_be_positive(bench: Any, parallelism: int) -> None:
    with pytest.raises(ValueError, match="parallelism"):
        bench.start(parallelism=parallelism)
