"""No Secret stays after its runs have ended, whatever happens during its creation. The API server answers late."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks.chaos.proxying import Fault, Proxy

from crosswind.testing import Cluster

pytestmark = pytest.mark.cluster

PODS = re.compile(r"/api/v1/namespaces/[^/]+/pods$")
SECRETS = re.compile(r"/api/v1/namespaces/[^/]+/secrets$")


@pytest.fixture
def slow(running: Any, cluster: Cluster, tmp_path: Path) -> Iterator[Any]:
    """A bench whose API server can be made to answer late."""
    with Proxy(cluster.kubeconfig, tmp_path) as proxy:
        running.proxy = proxy
        running.set("kubernetes_executor", config_file=str(proxy.kubeconfig))
        yield running
        answer_all(running)
        running.end()


def late(path: re.Pattern[str]) -> Fault:
    """Carry out creations, and hold their answers until ``answer_all``."""
    return lambda method, target: "late" if method == "POST" and path.search(target) else None


def answer_all(bench: Any) -> None:
    bench.proxy.fault = lambda method, target: None
    bench.proxy.release()


def revoke(bench: Any, *keys: Any) -> None:
    for key in keys:
        bench.executor.revoke_task(ti=SimpleNamespace(key=key))


def is_clean(bench: Any) -> bool:
    return bench.is_empty() and not bench.pods() and not bench.secrets()


@pytest.mark.parametrize("path", [SECRETS, PODS], ids=["secret", "pod"])
def test_runs_revoked_during_their_creation_leave_no_secret(slow: Any, path: re.Pattern[str]) -> None:
    slow.script("sleep 60")
    slow.proxy.fault = late(path)
    slow.start()
    keys = [slow.queue(f"task{number}") for number in range(3)]
    slow.until(lambda: slow.proxy.late)
    revoke(slow, *keys)
    slow.beat()
    answer_all(slow)
    slow.until(lambda: is_clean(slow))
    assert slow.events == {}


def test_runs_revoked_during_the_creation_of_their_secret_do_not_stop_the_others(slow: Any) -> None:
    slow.script("sleep 60")
    slow.proxy.fault = late(SECRETS)
    slow.start()
    first, *others = [slow.queue(f"task{number}") for number in range(3)]
    slow.until(lambda: slow.proxy.late)
    revoke(slow, *others)
    slow.beat()
    answer_all(slow)
    slow.until(lambda: len(slow.pods()) == 1)
    assert len(slow.secrets()) == 1
    revoke(slow, first)
    slow.until(lambda: is_clean(slow))


@pytest.mark.parametrize("path", [SECRETS, PODS], ids=["secret", "pod"])
def test_a_new_session_during_creations_leaves_no_secret(slow: Any, path: re.Pattern[str]) -> None:
    slow.proxy.fault = late(path)
    slow.start()
    keys = [slow.queue(f"task{number}") for number in range(3)]
    slow.until(lambda: slow.proxy.late)
    for key in keys:  # before their pods, which may exist already, can be seen to have ended
        slow.state(key, "success")
    break_session(slow)
    answer_all(slow)
    slow.until(lambda: not slow.executor.running)
    slow.until(lambda: is_clean(slow))
    assert slow.events == {}


def break_session(bench: Any) -> None:
    """Let the engine's session fail as a whole, and wait until it has another one."""
    engine = bench.executor._engine
    before = engine._session

    before._adopter._registry = None  # so that its next turn fails
    engine._thread.post(before.adopt_pods)
    bench.until(lambda: engine._session is not before and engine._session is not None)


@pytest.mark.parametrize("answer", [500, "lost"])
def test_the_creation_of_a_secret_is_retried_under_the_same_name(slow: Any, answer: Any) -> None:
    left = itertools.count(3, -1)
    slow.proxy.fault = lambda method, target: (
        answer if method == "POST" and SECRETS.search(target) and next(left) > 0 else None
    )
    slow.start()
    key = slow.queue()
    slow.state(key, "success")
    slow.until(lambda: not slow.executor.running)
    slow.until(lambda: is_clean(slow))
    assert slow.events == {}


def test_a_secret_whose_creation_got_no_answer_is_deleted_when_the_launch_is_given_up(slow: Any) -> None:
    slow.set("crosswind", launch_timeout="0.5")
    slow.proxy.fault = lambda method, target: "lost" if method == "POST" and SECRETS.search(target) else None
    slow.start()
    assert "was not created within" in slow.failure(slow.queue())
    slow.until(lambda: is_clean(slow))
