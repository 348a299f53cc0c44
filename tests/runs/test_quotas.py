"""A quota that is used up is asked about by few for all, and what is freed is used at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswind.errors import QuotaExceeded
from crosswind.pods.workers import WorkerTask
from crosswind.runs.dispatching import Dispatcher
from crosswind.runs.pacing import Pace
from crosswind.runs.quotas import Quotas
from crosswind.runs.refusals import Retry, after
from crosswind.runs.workloads import Run, Workload

REFUSAL = QuotaExceeded("exceeded quota: team", status=403)


def run(name: str, priority: float = 1.0, namespace: str = "ns") -> Run:
    task = WorkerTask("dag", name, "run", 1, name)
    return Run(Workload(name, task, priority, None), task, 0.0, name=name, namespace=namespace)


class Api:
    """A namespace with room for some pods, of sizes by name; counts what it is asked."""

    def __init__(self, room: int, size: Callable[[Run], int] = lambda _: 1) -> None:
        self.room, self._size = room, size
        self.asked: list[str] = []
        self.created: list[str] = []
        self.quotas = Quotas()

    def create(self, one: Run, now: float) -> None:
        if self.quotas.hold(one) is not None:
            return
        self.asked.append(one.name)
        if self._size(one) > self.room:
            self.quotas.refused(one, REFUSAL, now)
        else:
            self.room -= self._size(one)
            self.created.append(one.name)
            self.quotas.left(one, now)

    def work(self, seconds: float, now: float = 0.0) -> float:
        """Let those ask who are due, for some seconds; returns the time then."""
        end = now + seconds
        while (pause := self.quotas.pause(now)) is not None and now + pause <= end:
            now += pause
            for one in self.quotas.due(now):
                self.create(one, now)
        return end


def test_two_thousand_that_wait_ask_as_often_as_two() -> None:
    api = Api(room=0)
    for number in range(2000):
        api.create(run(str(number)), 0.0)
    assert len(api.asked) == 1
    api.work(100.0)
    assert len(api.asked) <= 1 + 2 * 50 + 2
    assert len(set(api.asked)) > 40, "others have their turn"


def test_a_quota_that_is_raised_is_filled_at_once() -> None:
    api = Api(room=0)
    for number in range(500):
        api.create(run(str(number)), 0.0)
    now = api.work(10.0)
    api.room = 500
    api.work(4.0, now)
    assert len(api.created) == 500
    assert not api.quotas
    assert api.quotas.pause(now) is None


def test_a_pod_that_ends_lets_one_ask_at_once() -> None:
    api = Api(room=0)
    for number in range(10):
        api.create(run(str(number)), 0.0)
    now = api.work(3.0)
    asked = len(api.asked)
    api.room = 1
    api.quotas.freed("ns", now)
    api.work(0.1, now)
    assert len(api.created) == 1
    assert len(api.asked) - asked <= 4


def test_the_highest_priority_comes_first_and_equals_in_their_order() -> None:
    api = Api(room=0)
    for name, priority in (("a", 1.0), ("b", 5.0), ("c", 5.0), ("d", 1.0)):
        api.create(run(name, priority), 0.0)
    now = api.work(20.0)
    api.room = 4
    api.work(4.0, now)
    assert api.created == ["b", "c", "a", "d"]


def test_small_pods_go_past_a_large_one_that_does_not_fit() -> None:
    api = Api(room=0, size=lambda one: 100 if one.name == "large" else 1)
    api.create(run("large", 9.0), 0.0)
    for number in range(5):
        api.create(run(str(number)), 0.0)
    api.room = 3
    now = api.work(20.0)
    assert len(api.created) == 3
    api.room = 100
    api.work(4.0, now)
    assert "large" in api.created


def test_namespaces_do_not_wait_for_each_other() -> None:
    api = Api(room=0)
    api.create(run("a"), 0.0)
    api.room = 1
    api.create(run("b", namespace="other"), 0.0)
    assert api.created == ["b"]


def test_what_is_revoked_while_it_waits_is_handed_out_to_be_dropped() -> None:
    api = Api(room=0)
    runs = [run("a"), run("b")]
    for one in runs:
        api.create(one, 0.0)
        one.revoked = True
    assert set(api.quotas.due(10.0)) == set(runs)
    assert not api.quotas
    assert api.quotas.pause(10.0) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc")), max_size=30), st.integers(1, 5))
def test_everybody_is_created_in_the_end(wanted: list[tuple[int, str]], room: int) -> None:
    api = Api(room=0)
    runs = [run(f"{number}", float(priority), space) for number, (priority, space) in enumerate(wanted)]
    for one in runs:
        api.create(one, 0.0)
    now = 0.0
    while api.quotas:
        api.room = room
        now = api.work(4.0, now)
        assert now < 1000
    assert sorted(api.created) == sorted(one.name for one in runs)


async def test_no_dispatcher_sends_more_than_some_a_second_against_a_quota() -> None:
    asked = 0

    async def work(_: int) -> None:
        nonlocal asked
        asked += 1
        raise REFUSAL

    def refused(_: int, error: Exception) -> float:
        decision = after(error, what="Pod", waited=60.0, patience=300.0)
        assert isinstance(decision, Retry)
        return 0.1 if decision.delay else 0.0

    dispatcher = Dispatcher[int](work, refused, Pace(ceiling=64))
    running = asyncio.create_task(dispatcher.run())
    for number in range(500):
        dispatcher.put(number)
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(20):
        while asked < 500:  # noqa: ASYNC110  # of another task's state
            await asyncio.sleep(0.01)
    began, before = loop.time(), asked
    await asyncio.sleep(1.0)
    assert asked - before <= 10 * (loop.time() - began) + 5
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("waited", [0.0, 1e6])
def test_a_quota_is_waited_for_without_end(waited: float) -> None:
    assert isinstance(after(REFUSAL, what="Pod", waited=waited, patience=300.0), Retry)
