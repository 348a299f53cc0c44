"""The one door between synchronous code and an event loop that runs in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import logging
import os
import queue
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Generic, Self, TypeVar

__all__ = ["CallThread", "Feed", "LoopThread", "call_apart", "run_apart"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_FEED_AHEAD = 10_000
"""Items, log lines most of them, that may wait for a slow caller."""

_CANCELLED_S = 0.5
"""Seconds that a caller who was interrupted waits for the work that it cancelled."""

_FEED_END = 10.0
"""Seconds that the work of a feed gets to end in."""


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class LoopThread:
    """Runs one coroutine function, ``main``, on an event loop in a daemon thread, from ``start`` until ``stop``.

    A process that was forked from ours has this object but not the thread: there every method does nothing, so that a
    child never touches the parent's loop.
    """

    def __init__(self, name: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._name = name
        self._main = main
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether the loop runs, in this process."""
        return self._pid == os.getpid() and self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; returns when the loop takes calls."""
        if self.alive:
            return
        ready = threading.Event()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, args=(ready,), name=self._name, daemon=True)
        self._thread.start()
        if not ready.wait(30):
            raise RuntimeError(f"The thread {self._name} did not start its event loop within 30 seconds")

    def _run(self, ready: threading.Event) -> None:
        with asyncio.Runner(loop_factory=_new_loop) as runner, contextlib.suppress(asyncio.CancelledError):
            runner.run(self._body(ready))

    async def _body(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        ready.set()
        await self._main()

    def post(self, call: Callable[..., object], *args: object) -> bool:
        """Have ``call(*args)`` run on the loop soon. False: the loop does not run."""
        if not self.alive or self._loop is None:
            return False
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop was closed a moment ago
            return False
        return True

    def call(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        """Run a coroutine on the loop and wait for its result.

        Raises ``TimeoutError`` after ``timeout`` seconds (the coroutine is cancelled), or when the loop does not run.
        """
        if not self.alive or self._loop is None:
            work.close()
            raise TimeoutError(f"The thread {self._name} does not run")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise TimeoutError(f"No answer from the thread {self._name} within {timeout:g} seconds") from None
        except concurrent.futures.CancelledError:
            raise TimeoutError(f"The thread {self._name} ended") from None

    def stop(self, timeout: float) -> None:
        """Cancel ``main`` and wait for the thread's end, at most ``timeout`` seconds."""
        if not self.alive or self._thread is None:
            return
        if self._task is not None:
            self.post(self._task.cancel)
        self._thread.join(timeout)
        if self._thread.is_alive():
            log.warning("The thread %s did not end within %g seconds", self._name, timeout)


def run_apart(work: Callable[[], Coroutine[Any, Any, T]], timeout: float) -> T:
    """Run a coroutine to its end in a fresh thread and loop: for synchronous callers that may sit on a running loop.

    Raises what the coroutine raises, and ``TimeoutError`` after ``timeout`` seconds. An exception of a signal handler,
    such as that of a task's ``execution_timeout``, cancels the coroutine and leaves at once: what the coroutine still
    does to end has a moment for it, and goes on in its thread after that.
    """
    result: concurrent.futures.Future[T] = concurrent.futures.Future()
    cancel: list[Callable[[], object]] = []

    async def bounded() -> T:
        task = asyncio.current_task()
        assert task is not None
        cancel.append(functools.partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel))
        async with asyncio.timeout(timeout):
            return await work()

    def run() -> None:
        try:
            value = asyncio.run(bounded())
        except asyncio.CancelledError:
            result.cancel()
        except BaseException as error:
            result.set_exception(error)
        else:
            result.set_result(value)

    thread = threading.Thread(target=run, name="crosswind-apart", daemon=True)
    thread.start()
    try:
        return result.result()
    except BaseException:
        if not result.done():
            with contextlib.suppress(RuntimeError):  # its loop was closed meanwhile
                for one in cancel:
                    one()
            thread.join(_CANCELLED_S)
        raise


class CallThread:
    """Runs blocking functions, database calls say, one after the other in a daemon thread, each with a deadline.

    A function that exceeds its deadline cannot be stopped. Its thread is left behind, so that whatever comes after it
    is not held up, and a new thread takes over. ``most`` such threads are left behind at a time: each may hold a
    connection of the database's pool. Daemon threads, because Python joins all others before it exits.
    """

    def __init__(self, name: str, timeout: float = 60.0, most: int = 3) -> None:
        self._name, self._timeout, self._most = name, timeout, most
        self._calls: queue.SimpleQueue[Callable[[], None] | None] | None = None
        self._stuck: list[threading.Thread] = []
        self._thread: threading.Thread | None = None

    async def call(self, work: Callable[..., T], *args: object) -> T:
        """Return what ``work(*args)`` returns; raises what it raises, and ``TimeoutError`` after the deadline."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                value = work(*args)
            except BaseException as error:  # an interrupt too belongs to whoever waits
                _hand_over(loop, result, None, error)
            else:
                _hand_over(loop, result, value, None)

        self._put(run)
        try:
            async with asyncio.timeout(self._timeout):
                return await result
        except TimeoutError:
            if not result.cancelled():
                raise
            self._leave_behind()
            raise TimeoutError(f"No answer within {self._timeout:g} seconds") from None

    def submit(self, work: Callable[..., object], *args: object) -> None:
        """Have ``work(*args)`` run behind what was asked before; what it raises is logged."""

        def run() -> None:
            try:
                work(*args)
            except Exception:
                log.exception("Work in the thread %s failed", self._name)

        self._put(run)

    def close(self) -> None:
        """Let the thread end when it has done what was asked."""
        if self._calls is not None:
            self._calls.put(None)
        self._calls = self._thread = None

    def __del__(self) -> None:
        self.close()

    def _put(self, run: Callable[[], None]) -> None:
        if self._calls is None:
            self._stuck = [thread for thread in self._stuck if thread.is_alive()]
            if len(self._stuck) >= self._most:
                raise TimeoutError(f"{self._most} calls in threads {self._name} have not come back")
            calls = self._calls = queue.SimpleQueue()
            self._thread = threading.Thread(target=_work_off, args=(calls,), name=self._name, daemon=True)
            self._thread.start()
        self._calls.put(run)

    def _leave_behind(self) -> None:
        if self._thread is not None:
            self._stuck.append(self._thread)
        self.close()


_apart: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, CallThread] = weakref.WeakKeyDictionary()


async def call_apart(work: Callable[..., T], *args: object) -> T:
    """Return what a blocking function returns, called in the loop's thread for such functions; see ``CallThread``.

    In place of ``asyncio.to_thread`` for the database: that has no deadline, and six calls that hang use it up.
    """
    loop = asyncio.get_running_loop()
    if loop not in _apart:
        _apart[loop] = CallThread("crosswind-database", most=8)
    return await _apart[loop].call(work, *args)


def _work_off(calls: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (run := calls.get()) is not None:
        run()


def _hand_over(loop: asyncio.AbstractEventLoop, result: asyncio.Future[Any], value: Any, error: Any) -> None:
    def settle() -> None:
        if result.done():  # its deadline has passed
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)

    with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
        loop.call_soon_threadsafe(settle)


class Feed(Generic[T]):
    """Items that a coroutine in a thread of its own hands to a synchronous caller, who iterates over them.

    ``work`` gets the function by which it hands over an item; it waits while the caller is far behind. What ``work``
    raises, the iteration raises. Leaving the ``with`` block, by an exception of a signal handler too, ends ``work``.
    """

    def __init__(self, work: Callable[[Callable[[T], Awaitable[None]]], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._items: queue.SimpleQueue[T | _End] = queue.SimpleQueue()  # may be put to from a signal handler
        self._thread = LoopThread("crosswind-feed", self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.stop(_FEED_END)

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._items.get()
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                return

    def end(self, error: BaseException | None = None) -> None:
        """End the iteration, behind what is waiting already; for signal handlers and other threads."""
        self._items.put(_End(error))

    async def _run(self) -> None:
        try:
            await self._work(self._hand)
        except Exception as error:
            self.end(error)
        finally:
            self.end()

    async def _hand(self, item: T) -> None:
        while self._items.qsize() > _FEED_AHEAD:  # noqa: ASYNC110  # the other side is a thread with a plain queue
            await asyncio.sleep(0.01)
        self._items.put(item)


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error
