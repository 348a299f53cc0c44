from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from crosswind.runs.threads import CallThread, Feed, LoopThread, call_apart, run_apart


async def forever() -> None:
    await asyncio.Event().wait()


@pytest.fixture
def thread() -> object:
    thread = LoopThread("test-loop", forever)
    thread.start()
    yield thread
    thread.stop(5.0)


async def answer() -> str:
    return threading.current_thread().name


def test_coroutines_run_in_the_thread_and_give_their_result(thread: LoopThread) -> None:
    assert thread.call(answer(), 5.0) == "test-loop"


def test_a_call_that_takes_too_long_ends_with_a_timeout(thread: LoopThread) -> None:
    with pytest.raises(TimeoutError):
        thread.call(forever(), 0.02)


def test_posted_calls_run_in_the_thread(thread: LoopThread) -> None:
    ran = threading.Event()
    assert thread.post(ran.set)
    assert ran.wait(5)


def test_after_stop_nothing_is_taken_and_start_begins_anew() -> None:
    thread = LoopThread("test-loop", forever)
    thread.start()
    thread.stop(5.0)
    assert not thread.alive
    assert not thread.post(print)
    with pytest.raises(TimeoutError):
        thread.call(answer(), 1.0)
    thread.start()
    assert thread.call(answer(), 5.0) == "test-loop"
    thread.stop(5.0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_reach_the_parents_loop(thread: LoopThread) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0 if not thread.alive and not thread.post(print) and thread.stop(1.0) is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert thread.call(answer(), 5.0) == "test-loop"


async def test_run_apart_works_beside_a_running_loop() -> None:
    assert run_apart(answer, 5.0).startswith("crosswind-apart")
    with pytest.raises(TimeoutError):
        run_apart(forever, 0.02)


Hand = Callable[[int], Awaitable[None]]


def test_a_feed_hands_over_items_in_order_and_ends_with_its_work() -> None:
    async def count(hand: Hand) -> None:
        for number in range(30_000):  # more than may wait
            await hand(number)

    with Feed(count) as feed:
        assert list(feed) == list(range(30_000))


def take(work: Callable[[Hand], Coroutine[Any, Any, None]], act: Callable[[Feed[int], int], object]) -> None:
    with Feed(work) as feed:
        for item in feed:
            act(feed, item)


def test_a_feed_raises_what_its_work_raises_behind_the_items() -> None:
    async def fail(hand: Hand) -> None:
        await hand(1)
        raise LookupError("of the work")

    found: list[int] = []
    with pytest.raises(LookupError, match="of the work"):
        take(fail, lambda _, item: found.append(item))
    assert found == [1]


def test_leaving_a_feed_ends_its_work() -> None:
    ended = threading.Event()

    async def stay(hand: Hand) -> None:
        try:
            await hand(0)
            await forever()
        finally:
            ended.set()

    with pytest.raises(ZeroDivisionError):
        take(stay, lambda _, item: 1 / item)
    assert ended.is_set()


def test_a_feed_can_be_ended_from_outside() -> None:
    async def stay(hand: Hand) -> None:
        await hand(1)
        await forever()

    with pytest.raises(RuntimeError, match="killed"):
        take(stay, lambda feed, _: feed.end(RuntimeError("killed")))


async def test_a_call_that_hangs_holds_up_neither_its_caller_nor_the_calls_after_it() -> None:
    calls, hang = CallThread("test", timeout=0.2, most=2), threading.Event()
    try:
        with pytest.raises(TimeoutError, match=r"within 0.2 seconds"):
            await calls.call(hang.wait)
        assert await calls.call(int, "7") == 7
        with pytest.raises(ValueError, match="invalid literal"):
            await calls.call(int, "seven")
        with pytest.raises(TimeoutError):
            await calls.call(hang.wait)
        with pytest.raises(TimeoutError, match="have not come back"):
            await calls.call(int, "7")
    finally:
        hang.set()
        calls.close()


async def test_calls_are_made_one_after_the_other_and_all_of_them_before_the_thread_ends() -> None:
    calls, made = CallThread("test"), []
    calls.submit(made.append, 1)
    calls.submit(int, "seven")
    calls.submit(made.append, 2)
    await calls.call(made.append, 3)
    assert made == [1, 2, 3]
    calls.close()


def test_an_exception_of_a_signal_handler_takes_effect_at_once_and_cancels_the_work() -> None:
    """``execution_timeout`` is one: a task in its last seconds is not to wait for work that takes minutes."""

    class Expired(BaseException):
        pass

    def expire(*_: object) -> None:
        raise Expired

    cancelled = threading.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    before = signal.signal(signal.SIGALRM, expire)
    try:
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Expired):
            run_apart(work, 600)
        assert time.monotonic() - began < 10
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert cancelled.wait(10)


def test_work_that_cannot_be_cancelled_holds_up_nobody_who_is_interrupted() -> None:
    class Expired(BaseException):
        pass

    def expire(*_: object) -> None:
        raise Expired

    free = threading.Event()

    async def work() -> None:
        free.wait(60)  # blocks its loop, as a slow name server does

    before = signal.signal(signal.SIGALRM, expire)
    try:
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Expired):
            run_apart(work, 600)
        assert time.monotonic() - began < 20
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        free.set()


async def test_calls_apart_of_one_loop_share_a_thread() -> None:
    assert await call_apart(threading.get_ident) == await call_apart(threading.get_ident) != threading.get_ident()
