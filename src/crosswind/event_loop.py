"""Calls between synchronous code and asyncio, in both directions.

======================  =============================================================================================
``LoopThread``          An event loop with one main coroutine, in a thread of its own, for the executor's engine.
``run_in_own_loop``     One coroutine, from code that may itself be called on a running event loop.
``BackgroundStream``    Items that a coroutine produces and a synchronous caller iterates over.
``call_blocking``       One blocking call, from a coroutine, with a deadline.
======================  =============================================================================================

All threads are daemons: Python joins other threads before it exits, and a hung call would keep the process alive.
AnyIO's blocking portal is close to ``LoopThread``, but it has no deadlines for calls and no check for forks.
"""

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

__all__ = ["BackgroundStream", "BlockingCallThread", "LoopThread", "call_blocking", "run_in_own_loop"]

log = logging.getLogger(__name__)

T = TypeVar("T")

_START_TIMEOUT_S = 30.0
"""Limit for a thread to start its event loop."""

_MAX_BUFFERED_ITEMS = 10_000
"""Items, most of them log lines, that a ``BackgroundStream`` buffers for a slow caller before its work waits."""

_MAX_BUFFERED_BYTES = 16 * 1024 * 1024
"""The same in bytes: a log line may have a MiB. Ten thousand ordinary lines have one or two."""

_BUFFER_POLL_S = 0.01

_CANCELLATION_WAIT_S = 0.5
"""How long an interrupted caller of ``run_in_own_loop`` waits for the coroutine that it cancelled."""

_STREAM_STOP_TIMEOUT_S = 10.0
"""How long the work of a ``BackgroundStream`` may take to end when it is cancelled."""

_MAX_STUCK_DATABASE_CALLS = 8
"""Database calls past their deadline that one event loop tolerates: each may hold a connection of the pool."""


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


class LoopThread:
    """Runs one coroutine function, ``main``, on an event loop in a daemon thread, from ``start`` until ``stop``.

    ``stop`` cancels ``main``, which ends its own tasks; the loop closes behind it. A forked process has this object but
    not the thread. Every method does nothing there, so that a child (Airflow forks) never touches the parent's loop.
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
        """Start the thread, and return when the loop accepts calls."""
        if self.alive:
            return
        ready = threading.Event()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, args=(ready,), name=self._name, daemon=True)
        self._thread.start()
        if not ready.wait(_START_TIMEOUT_S):
            raise RuntimeError(
                f"The thread {self._name} did not start its event loop within {_START_TIMEOUT_S:g} seconds"
            )

    def _run(self, ready: threading.Event) -> None:
        with asyncio.Runner(loop_factory=_new_loop) as runner, contextlib.suppress(asyncio.CancelledError):
            runner.run(self._body(ready))

    async def _body(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        ready.set()
        await self._main()

    def post(self, call: Callable[..., object], *args: object) -> bool:
        """Schedule ``call(*args)`` on the loop; return False if the loop does not run."""
        if not self.alive or self._loop is None:
            return False
        try:
            self._loop.call_soon_threadsafe(call, *args)
        except RuntimeError:  # the loop closed after the check above
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


def run_in_own_loop(work: Callable[[], Coroutine[Any, Any, T]], timeout: float) -> T:
    """Run a coroutine to its end on a new event loop in a new thread.

    In a thread, because the caller may itself be called on a running event loop, where ``asyncio.run`` is refused.
    Raises what the coroutine raises, and ``TimeoutError`` after ``timeout`` seconds. An exception of a signal handler,
    such as that of a task's ``execution_timeout``, cancels the coroutine. The caller then waits for it for half a
    second at most; cleanup that takes longer goes on in the thread.
    """
    result: concurrent.futures.Future[T] = concurrent.futures.Future()
    cancellations: list[Callable[[], object]] = []  # empty until the coroutine has started

    async def bounded() -> T:
        task = asyncio.current_task()
        assert task is not None
        cancellations.append(functools.partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel))
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

    thread = threading.Thread(target=run, name="crosswind-own-loop", daemon=True)
    thread.start()
    try:
        return result.result()
    except BaseException:
        if not result.done():
            with contextlib.suppress(RuntimeError):  # the coroutine has just ended, and its loop is closed
                for cancel in cancellations:
                    cancel()
            thread.join(_CANCELLATION_WAIT_S)
        raise


class BlockingCallThread:
    """Runs blocking functions, such as database calls, one after the other in a daemon thread, each with a deadline.

    Python cannot stop a function that exceeds its deadline. Its thread is abandoned, and a new thread runs the calls
    that follow. At most ``max_stuck`` abandoned threads may exist at a time; then further calls fail at once.
    """

    def __init__(self, name: str, timeout: float = 60.0, max_stuck: int = 3) -> None:
        self._name, self._timeout, self._max_stuck = name, timeout, max_stuck
        self._calls: queue.SimpleQueue[Callable[[], None] | None] | None = None
        self._stuck: list[threading.Thread] = []
        self._thread: threading.Thread | None = None

    async def call(self, work: Callable[..., T], *args: object) -> T:
        """Return the result of ``work(*args)``. Raises its exception, or ``TimeoutError`` after the deadline."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                value = work(*args)
            except BaseException as error:  # KeyboardInterrupt, too: the caller must not wait in vain
                _resolve(loop, result, None, error)
            else:
                _resolve(loop, result, value, None)

        self._put(run)
        try:
            async with asyncio.timeout(self._timeout):
                return await result
        except TimeoutError:
            if not result.cancelled():
                raise
            self._abandon_thread()
            raise TimeoutError(f"No answer within {self._timeout:g} seconds") from None

    def submit(self, work: Callable[..., object], *args: object) -> None:
        """Run ``work(*args)`` after the calls before it. An exception is logged."""

        def run() -> None:
            try:
                work(*args)
            except Exception:
                log.exception("Work in the thread %s failed", self._name)

        self._put(run)

    def close(self) -> None:
        """End the thread after the calls that it has accepted."""
        if self._calls is not None:
            self._calls.put(None)
        self._calls = self._thread = None

    def __del__(self) -> None:
        self.close()

    def _put(self, run: Callable[[], None]) -> None:
        if self._calls is None:
            self._stuck = [thread for thread in self._stuck if thread.is_alive()]
            if len(self._stuck) >= self._max_stuck:
                raise TimeoutError(f"{self._max_stuck} calls in threads {self._name} have not returned")
            calls = self._calls = queue.SimpleQueue()
            self._thread = threading.Thread(target=_run_calls, args=(calls,), name=self._name, daemon=True)
            self._thread.start()
        self._calls.put(run)

    def _abandon_thread(self) -> None:
        if self._thread is not None:
            self._stuck.append(self._thread)
        self.close()


_database_threads: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, BlockingCallThread] = (
    weakref.WeakKeyDictionary()
)


async def call_blocking(work: Callable[..., T], *args: object) -> T:
    """Return the result of a blocking database call, run in the running loop's ``BlockingCallThread``.

    ``asyncio.to_thread`` has no deadline, and a few hung calls (six on two cores) would use up its pool.
    """
    loop = asyncio.get_running_loop()
    if loop not in _database_threads:
        _database_threads[loop] = BlockingCallThread("crosswind-database", max_stuck=_MAX_STUCK_DATABASE_CALLS)
    return await _database_threads[loop].call(work, *args)


def _run_calls(calls: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (run := calls.get()) is not None:
        run()


def _resolve(loop: asyncio.AbstractEventLoop, result: asyncio.Future[Any], value: Any, error: Any) -> None:
    def settle() -> None:
        if result.done():  # cancelled, because its deadline has passed
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)

    with contextlib.suppress(RuntimeError):  # the loop has closed since
        loop.call_soon_threadsafe(settle)


class BackgroundStream(Generic[T]):
    """Items that a coroutine in a thread of its own produces, and a synchronous caller iterates over.

    ``work`` gets a function that puts one item, and waits there while the caller is far behind. ``size_of``: the bytes
    of an item. The iteration ends when ``work`` returns, and raises what ``work`` raises. To leave the ``with`` block
    cancels ``work``, also when an exception of a signal handler leaves it.
    """

    def __init__(
        self,
        work: Callable[[Callable[[T], Awaitable[None]]], Coroutine[Any, Any, None]],
        size_of: Callable[[T], int],
    ) -> None:
        self._work, self._size_of = work, size_of
        # Each is written by one thread alone, so that no item needs a lock; their difference is what the buffer holds.
        self._bytes_put = self._bytes_taken = 0
        # Signal handlers put into it: SimpleQueue.put is reentrant, Queue.put would deadlock.
        self._items: queue.SimpleQueue[tuple[T, int] | _End] = queue.SimpleQueue()
        self._thread = LoopThread("crosswind-stream", self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.stop(_STREAM_STOP_TIMEOUT_S)

    def __iter__(self) -> Iterator[T]:
        while True:
            entry = self._items.get()
            if not isinstance(entry, _End):
                item, size = entry
                self._bytes_taken += size
                yield item
            elif entry.error is not None:
                raise entry.error
            else:
                return

    def end(self, error: BaseException | None = None) -> None:
        """End the iteration after the buffered items, with an error if given; for signal handlers and other threads."""
        self._items.put(_End(error))

    async def _run(self) -> None:
        try:
            await self._work(self._put)
        except Exception as error:
            self.end(error)
        finally:
            self.end()

    async def _put(self, item: T) -> None:
        # Asked before the item is put, so one that is larger than the limit still gets in. The caller is a thread that
        # reads a plain queue, so there is no event to wait for.
        while (  # noqa: ASYNC110
            self._items.qsize() > _MAX_BUFFERED_ITEMS or self._bytes_put - self._bytes_taken > _MAX_BUFFERED_BYTES
        ):
            await asyncio.sleep(_BUFFER_POLL_S)
        size = self._size_of(item)
        self._bytes_put += size
        self._items.put((item, size))


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error
