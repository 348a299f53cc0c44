from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from crosswind.errors import TooManyRequests
from crosswind.runs.dispatching import Dispatcher
from crosswind.runs.pacing import Pace


@contextlib.asynccontextmanager
async def running(dispatcher: Dispatcher[str]) -> AsyncIterator[None]:
    task = asyncio.create_task(dispatcher.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_the_highest_priority_goes_first_and_equals_in_their_order() -> None:
    done: list[str] = []

    async def work(item: str) -> None:
        done.append(item)

    dispatcher = Dispatcher[str](work, lambda item, error: None, Pace(limit=1.0, ceiling=1.0))
    for item, priority in (("low", 1.0), ("first", 5.0), ("second", 5.0)):
        dispatcher.put(item, priority)
    async with running(dispatcher):
        await dispatcher.idle()
    assert done == ["first", "second", "low"]


async def test_no_more_is_under_way_than_the_pace_allows() -> None:
    under_way = most = 0

    async def work(item: str) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1

    dispatcher = Dispatcher[str](work, lambda item, error: None, Pace(limit=2.0, ceiling=3.0))
    for number in range(50):
        dispatcher.put(str(number))
    async with running(dispatcher):
        await dispatcher.idle()
    assert most == 3


async def test_a_refused_item_comes_again_and_the_pace_halves() -> None:
    tries: list[str] = []

    async def work(item: str) -> None:
        tries.append(item)
        if len(tries) == 1:
            raise TooManyRequests("slow down", status=429, retry_after=0.05)

    dispatcher = Dispatcher[str](work, lambda item, error: 0.01, Pace(limit=8.0))
    dispatcher.put("a")
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with running(dispatcher):
        await dispatcher.idle()
    assert tries == ["a", "a"]
    assert dispatcher.pace.limit == 4.0
    assert loop.time() - began >= 0.05


async def test_an_error_of_the_work_itself_does_not_end_the_others() -> None:
    heard: list[Exception] = []
    done: list[str] = []

    async def work(item: str) -> None:
        if item == "bad":
            raise KeyError("bug")
        done.append(item)

    def refused(item: str, error: Exception) -> None:
        heard.append(error)

    dispatcher = Dispatcher[str](work, refused, Pace())
    dispatcher.put("bad")
    dispatcher.put("good")
    async with running(dispatcher):
        await dispatcher.idle()
    assert done == ["good"]
    assert isinstance(heard[0], KeyError)


async def test_an_item_put_again_while_it_waits_or_is_worked_on_is_worked_on_once() -> None:
    done: list[str] = []
    began, free = asyncio.Event(), asyncio.Event()

    async def work(item: str) -> None:
        done.append(item)
        began.set()
        await free.wait()
        if len(done) == 1:
            raise TooManyRequests("busy", status=429)

    dispatcher = Dispatcher[str](work, lambda item, error: 0.05, Pace())
    item = "a pod"
    dispatcher.put(item)
    dispatcher.put(item)
    async with running(dispatcher):
        await began.wait()
        dispatcher.put(item)
        assert len(dispatcher) == 1
        free.set()
        async with asyncio.timeout(10):
            while len(done) < 2:
                dispatcher.put(item)
                await asyncio.sleep(0.005)
            await dispatcher.idle()
        assert done == [item, item]
        dispatcher.put(item)  # when all is done it may be put again
        await dispatcher.idle()
        assert len(done) == 3
