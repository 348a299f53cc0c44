from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from crosswind import event_loop
from crosswind.event_loop import BackgroundStream, BlockingCallThread, LoopThread, call_blocking, run_in_own_loop
from crosswind.podrun.follow import ContainerLine, PodNews, memory_of
from deadlines import scaled


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
    assert ran.wait(scaled(5))


def test_after_stop_nothing_is_accepted_and_start_begins_anew() -> None:
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


async def test_a_coroutine_runs_while_another_loop_runs() -> None:
    assert run_in_own_loop(answer, 5.0).startswith("crosswind-own-loop")
    with pytest.raises(TimeoutError):
        run_in_own_loop(forever, 0.02)


Put = Callable[[int], Awaitable[None]]


def test_a_stream_gives_items_in_order_and_ends_with_its_work() -> None:
    async def count(put: Put) -> None:
        for number in range(30_000):  # more than may wait
            await put(number)

    with BackgroundStream(count, sys.getsizeof) as stream:
        assert list(stream) == list(range(30_000))


def test_long_lines_wait_when_the_buffer_has_its_bytes() -> None:
    count, line = 1000, ContainerLine("base", "", "x" * 100_000)
    at_rest, buffered = threading.Event(), 0

    async def produce(put: Callable[[PodNews], Awaitable[None]]) -> None:
        nonlocal buffered
        lines_put = 0

        async def put_all() -> None:
            nonlocal lines_put
            for _ in range(count):
                await put(line)
                lines_put += 1

        producer = asyncio.create_task(put_all())
        await asyncio.wait([producer], timeout=scaled(0.5))
        buffered = lines_put * memory_of(line)
        at_rest.set()
        await producer

    with BackgroundStream(produce, memory_of) as stream:
        assert at_rest.wait(scaled(20))
        assert 0 < buffered <= event_loop._MAX_BUFFERED_BYTES + memory_of(line)
        assert sum(1 for _ in stream) == count


def take(work: Callable[[Put], Coroutine[Any, Any, None]], act: Callable[[BackgroundStream[int], int], object]) -> None:
    with BackgroundStream(work, sys.getsizeof) as stream:
        for item in stream:
            act(stream, item)


def test_a_stream_raises_what_its_work_raises_behind_the_items() -> None:
    async def fail(put: Put) -> None:
        await put(1)
        raise LookupError("of the work")

    items: list[int] = []
    with pytest.raises(LookupError, match="of the work"):
        take(fail, lambda _, item: items.append(item))
    assert items == [1]


def test_leaving_a_stream_ends_its_work() -> None:
    ended = threading.Event()

    async def stay(put: Put) -> None:
        try:
            await put(0)
            await forever()
        finally:
            ended.set()

    with pytest.raises(ZeroDivisionError):
        take(stay, lambda _, item: 1 / item)
    assert ended.is_set()


def test_a_stream_can_be_ended_from_outside() -> None:
    async def stay(put: Put) -> None:
        await put(1)
        await forever()

    with pytest.raises(RuntimeError, match="killed"):
        take(stay, lambda stream, _: stream.end(RuntimeError("killed")))


async def test_a_call_that_hangs_holds_up_neither_its_caller_nor_the_calls_after_it() -> None:
    calls, hang = BlockingCallThread("test", timeout=0.2, max_stuck=2), threading.Event()
    try:
        with pytest.raises(TimeoutError, match=r"within 0.2 seconds"):
            await calls.call(hang.wait)
        assert await calls.call(int, "7") == 7
        with pytest.raises(ValueError, match="invalid literal"):
            await calls.call(int, "seven")
        with pytest.raises(TimeoutError):
            await calls.call(hang.wait)
        with pytest.raises(TimeoutError, match="have not returned"):
            await calls.call(int, "7")
    finally:
        hang.set()
        calls.close()


async def test_calls_are_made_one_after_the_other_and_all_of_them_before_the_thread_ends() -> None:
    calls, calls_made = BlockingCallThread("test"), []
    calls.submit(calls_made.append, 1)
    calls.submit(int, "seven")
    calls.submit(calls_made.append, 2)
    await calls.call(calls_made.append, 3)
    assert calls_made == [1, 2, 3]
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
            run_in_own_loop(work, 600)
        assert time.monotonic() - began < scaled(10)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert cancelled.wait(scaled(10))


def test_work_that_cannot_be_cancelled_holds_up_nobody_who_is_interrupted() -> None:
    class Expired(BaseException):
        pass

    def expire(*_: object) -> None:
        raise Expired

    free = threading.Event()

    async def work() -> None:
        free.wait(600)  # blocks its loop, as a slow name server does

    before = signal.signal(signal.SIGALRM, expire)
    try:
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Expired):
            run_in_own_loop(work, 600)
        assert time.monotonic() - began < scaled(20)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        free.set()


async def test_blocking_calls_of_one_loop_share_a_thread() -> None:
    assert await call_blocking(threading.get_ident) == await call_blocking(threading.get_ident) != threading.get_ident()
