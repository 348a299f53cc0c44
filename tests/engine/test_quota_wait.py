"""Few runs ask for all that wait for a used-up quota, and freed quota is used at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswind.engine.quota_wait import QuotaWaitList
from crosswind.engine.request_queue import AimdLimit, RequestQueue
from crosswind.engine.state import RunTimes, WorkerRun, Workload
from crosswind.engine.worker_pod import WorkerTask
from crosswind.errors import QuotaExceeded
from crosswind.podrun.refusals import Retry, decide_retry
from deadlines import scaled

REFUSAL = QuotaExceeded("exceeded quota: team", status=403)


def a_run(name: str, priority: float = 1.0, namespace: str = "ns") -> WorkerRun:
    task = WorkerTask("dag", name, "run", 1, name)
    return WorkerRun(Workload(name, task, priority, None), task, RunTimes(0.0), name=name, namespace=namespace)


class Api:
    """A namespace with room for some pods; records the requests."""

    def __init__(self, room: int, size: Callable[[WorkerRun], int] = lambda _: 1) -> None:
        self.room, self._size = room, size
        self.asked: list[str] = []
        self.created: list[str] = []
        self.quotas = QuotaWaitList()

    def create(self, run: WorkerRun, now: float) -> None:
        if self.quotas.hold(run) is not None:
            return
        self.asked.append(run.name)
        if self._size(run) > self.room:
            self.quotas.add_refused(run, REFUSAL, now)
        else:
            self.room -= self._size(run)
            self.created.append(run.name)
            self.quotas.remove(run, now)

    def work(self, seconds: float, now: float = 0.0) -> float:
        """Let the due runs ask for some seconds; return the time after them."""
        end = now + seconds
        while (pause := self.quotas.pause(now)) is not None and now + pause <= end:
            now += pause
            for run in self.quotas.due(now):
                self.create(run, now)
        return end


def test_two_thousand_waiting_runs_send_as_many_requests_as_two() -> None:
    api = Api(room=0)
    for number in range(2000):
        api.create(a_run(str(number)), 0.0)
    assert len(api.asked) == 1
    api.work(100.0)
    assert len(api.asked) <= 1 + 2 * 50 + 2
    assert len(set(api.asked)) > 40, "other runs have their turn"


def test_runs_that_pass_a_large_one_are_forgotten() -> None:
    api = Api(room=0, size=lambda run: 100 if run.name == "large" else 1)
    api.create(a_run("large", priority=9.0), 0.0)
    known, now = _runs_in_memory(), 0.0
    for number in range(500):
        api.create(a_run(str(number)), now)
        api.room = 1
        now = api.work(5.0, now)
    assert len(api.created) >= 499
    assert _runs_in_memory() - known < 150


def _runs_in_memory() -> int:
    gc.collect()
    return sum(type(thing) is WorkerRun for thing in gc.get_objects())  # isinstance would load lazy modules


def test_a_raised_quota_is_filled_at_once() -> None:
    api = Api(room=0)
    for number in range(500):
        api.create(a_run(str(number)), 0.0)
    now = api.work(10.0)
    api.room = 500
    api.work(4.0, now)
    assert len(api.created) == 500
    assert not api.quotas
    assert api.quotas.pause(now) is None


def test_an_ended_pod_starts_the_next_round_at_once() -> None:
    api = Api(room=0)
    for number in range(10):
        api.create(a_run(str(number)), 0.0)
    now = api.work(3.0)
    asked = len(api.asked)
    api.room = 1
    api.quotas.quota_freed("ns", now)
    api.work(0.1, now)
    assert len(api.created) == 1
    assert len(api.asked) - asked <= 4


def test_runs_ask_in_order_of_priority_then_of_arrival() -> None:
    api = Api(room=0)
    for name, priority in (("a", 1.0), ("b", 5.0), ("c", 5.0), ("d", 1.0)):
        api.create(a_run(name, priority), 0.0)
    now = api.work(20.0)
    api.room = 4
    api.work(4.0, now)
    assert api.created == ["b", "c", "a", "d"]


def test_small_pods_pass_a_large_one_that_does_not_fit() -> None:
    api = Api(room=0, size=lambda run: 100 if run.name == "large" else 1)
    api.create(a_run("large", 9.0), 0.0)
    for number in range(5):
        api.create(a_run(str(number)), 0.0)
    api.room = 3
    now = api.work(20.0)
    assert len(api.created) == 3
    api.room = 100
    api.work(4.0, now)
    assert "large" in api.created


def test_namespaces_do_not_wait_for_each_other() -> None:
    api = Api(room=0)
    api.create(a_run("a"), 0.0)
    api.room = 1
    api.create(a_run("b", namespace="other"), 0.0)
    assert api.created == ["b"]


def test_runs_revoked_while_they_wait_are_returned() -> None:
    api = Api(room=0)
    runs = [a_run("a"), a_run("b")]
    for run in runs:
        api.create(run, 0.0)
        run.revoked = True
    assert set(api.quotas.due(10.0)) == set(runs)
    assert not api.quotas
    assert api.quotas.pause(10.0) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc")), max_size=30), st.integers(1, 5))
def test_all_runs_are_created_in_the_end(wanted: list[tuple[int, str]], room: int) -> None:
    api = Api(room=0)
    runs = [a_run(f"{number}", float(priority), space) for number, (priority, space) in enumerate(wanted)]
    for run in runs:
        api.create(run, 0.0)
    now = 0.0
    while api.quotas:
        api.room = room
        now = api.work(4.0, now)
        assert now < 1000
    assert sorted(api.created) == sorted(run.name for run in runs)


async def test_a_request_queue_spreads_retries_against_a_quota() -> None:
    asked = 0

    async def work(_: int) -> None:
        nonlocal asked
        asked += 1
        raise REFUSAL

    def refused(_: int, error: Exception) -> float:
        decision = decide_retry(error, what="Pod", waited=60.0, patience=300.0)
        assert isinstance(decision, Retry)
        return 0.1 if decision.delay else 0.0

    queue = RequestQueue[int](work, refused, AimdLimit(ceiling=64))
    running = asyncio.create_task(queue.run())
    for number in range(500):
        queue.put(number)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(scaled(20)):
        while asked < 500:  # noqa: ASYNC110  # of another task's state
            await asyncio.sleep(0.01)
    began, before = loop.time(), asked
    await asyncio.sleep(1.0)
    assert asked - before <= 10 * (loop.time() - began) + 5
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("waited", [0.0, 1e6])
def test_a_refusal_by_a_quota_is_always_retried(waited: float) -> None:
    assert isinstance(decide_retry(REFUSAL, what="Pod", waited=waited, patience=300.0), Retry)
