from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswind.engine.request_queue import AimdLimit, RequestQueue
from crosswind.errors import TooManyRequests
from deadlines import scaled


@contextlib.asynccontextmanager
async def running(queue: RequestQueue[str]) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_items_are_sent_in_order_of_priority_then_of_arrival() -> None:
    done: list[str] = []

    async def work(item: str) -> None:
        done.append(item)

    queue = RequestQueue[str](work, lambda item, error: None, AimdLimit(limit=1.0, ceiling=1.0))
    for item, priority in (("low", 1.0), ("first", 5.0), ("second", 5.0)):
        queue.put(item, priority)
    async with running(queue):
        await queue.wait_until_empty()
    assert done == ["first", "second", "low"]


async def test_no_more_requests_are_under_way_than_the_limit_allows() -> None:
    under_way = maximum = 0

    async def work(item: str) -> None:
        nonlocal under_way, maximum
        under_way += 1
        maximum = max(maximum, under_way)
        await asyncio.sleep(0)
        under_way -= 1

    queue = RequestQueue[str](work, lambda item, error: None, AimdLimit(limit=2.0, ceiling=3.0))
    for number in range(50):
        queue.put(str(number))
    async with running(queue):
        await queue.wait_until_empty()
    assert maximum == 3


async def test_an_item_that_was_pushed_back_is_sent_again_and_the_limit_halves() -> None:
    tries: list[str] = []

    async def work(item: str) -> None:
        tries.append(item)
        if len(tries) == 1:
            raise TooManyRequests("slow down", status=429, retry_after=0.05)

    queue = RequestQueue[str](work, lambda item, error: 0.01, AimdLimit(limit=8.0))
    queue.put("a")
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with running(queue):
        await queue.wait_until_empty()
    assert tries == ["a", "a"]
    assert queue.limit.limit == 4.0
    assert loop.time() - began >= 0.05


async def test_an_unexpected_error_of_one_item_does_not_stop_the_others() -> None:
    errors: list[Exception] = []
    done: list[str] = []

    async def work(item: str) -> None:
        if item == "bad":
            raise KeyError("bug")
        done.append(item)

    def refused(item: str, error: Exception) -> None:
        errors.append(error)

    queue = RequestQueue[str](work, refused, AimdLimit())
    queue.put("bad")
    queue.put("good")
    async with running(queue):
        await queue.wait_until_empty()
    assert done == ["good"]
    assert isinstance(errors[0], KeyError)


async def test_an_item_put_again_before_it_is_sent_or_answered_is_sent_once() -> None:
    done: list[str] = []
    began, free = asyncio.Event(), asyncio.Event()

    async def work(item: str) -> None:
        done.append(item)
        began.set()
        await free.wait()
        if len(done) == 1:
            raise TooManyRequests("busy", status=429)

    queue = RequestQueue[str](work, lambda item, error: 0.05, AimdLimit())
    item = "a pod"
    queue.put(item)
    queue.put(item)
    async with running(queue):
        await began.wait()
        queue.put(item)
        assert len(queue) == 1
        free.set()
        async with asyncio.timeout(scaled(10)):
            while len(done) < 2:
                queue.put(item)
                await asyncio.sleep(0.005)
            await queue.wait_until_empty()
        assert done == [item, item]
        queue.put(item)  # when all is done it may be put again
        await queue.wait_until_empty()
        assert len(done) == 3


def test_a_used_up_limit_doubles_per_round_trip_until_the_first_push_back() -> None:
    limit = AimdLimit(limit=8.0, ceiling=64.0)
    for _ in range(8):
        limit = limit.accepted(under_way=int(limit.limit))
    assert limit.limit == 16.0


def test_after_a_push_back_the_limit_grows_by_one_per_round_trip() -> None:
    limit = AimdLimit(limit=32.0).pushed_back(sent_at=0.0, now=1.0)
    for _ in range(16):
        limit = limit.accepted(under_way=int(limit.limit))
    assert limit.limit == pytest.approx(17.0, abs=0.1)


def test_an_unused_limit_does_not_grow() -> None:
    assert AimdLimit(limit=8.0).accepted(under_way=3).limit == 8.0


def test_push_backs_of_one_round_trip_halve_the_limit_once() -> None:
    limit = AimdLimit(limit=32.0)
    for answered_at in (1.0, 1.1, 1.2):
        limit = limit.pushed_back(sent_at=0.9, now=answered_at)
    assert limit.limit == 16.0
    assert limit.pushed_back(sent_at=1.3, now=1.4).limit == 8.0


def test_retry_after_delays_new_requests() -> None:
    limit = AimdLimit().pushed_back(sent_at=0.0, now=10.0, pause=3.0)
    assert not limit.may_start(under_way=0, now=12.9)
    assert limit.may_start(under_way=0, now=13.0)


@given(st.lists(st.one_of(st.just("ok"), st.floats(0, 5)), max_size=200))
def test_the_limit_stays_between_one_and_the_ceiling(answers: list[str | float]) -> None:
    limit, now = AimdLimit(limit=8.0, ceiling=20.0), 0.0
    for answer in answers:
        now += 1
        limit = (
            limit.accepted(int(limit.limit)) if isinstance(answer, str) else limit.pushed_back(now - 0.5, now, answer)
        )
        assert 1.0 <= limit.limit <= 20.0
        assert limit.may_start(0, now + 10)
