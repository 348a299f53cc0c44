"""A queue of requests to the API server: highest priority first, as many at a time as the server accepts.

``RequestQueue.run`` owns one task per request under way, all in one task group. It ends when it is cancelled: requests
under way are cancelled with it, and queued items stay queued.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from crosswind.errors import QuotaExceeded
from crosswind.kube.retry import is_overload, retry_after

__all__ = ["AimdLimit", "RequestQueue"]

log = logging.getLogger(__name__)

Item = TypeVar("Item")

_QUOTA_RETRIES_PER_S = 10.0
"""Retries a second, over all items of a queue, of requests that a ResourceQuota refused."""


@dataclass(frozen=True, slots=True)
class AimdLimit:
    """The number of requests that may be under way, and the time from which new ones may start. Pure.

    Additive increase, multiplicative decrease with slow start, as TCP does (RFC 5681): the limit doubles per round trip
    until the first push-back, then grows by one per round trip. Times are monotonic seconds.
    """

    limit: float = 8.0
    ceiling: float = 64.0
    threshold: float = math.inf
    """Below it the limit doubles per round trip, above it grows by one."""
    resume_at: float = -math.inf
    halved_at: float = -math.inf

    def accepted(self, under_way: int) -> AimdLimit:
        """Return the limit after an answer that was not a push-back. Only a limit that is used up grows."""
        if under_way < int(self.limit) or self.limit >= self.ceiling:
            return self
        step = 1.0 if self.limit < self.threshold else 1.0 / self.limit
        return replace(self, limit=min(self.ceiling, self.limit + step))

    def pushed_back(self, sent_at: float, now: float, pause: float = 0.0) -> AimdLimit:
        """Return the limit after a 429, a 5xx or no answer. ``pause``: seconds for which the server wants no request.

        A request that was sent before the last halving does not halve the limit again: it met the same overload.
        """
        resume_at = max(self.resume_at, now + pause)
        if sent_at < self.halved_at:
            return replace(self, resume_at=resume_at)
        limit = max(1.0, self.limit / 2)
        return replace(self, limit=limit, threshold=limit, halved_at=now, resume_at=resume_at)

    def may_start(self, under_way: int, now: float) -> bool:
        """Return whether one more request may start."""
        return under_way < int(self.limit) and now >= self.resume_at


class RequestQueue(Generic[Item]):
    """Awaits ``send(item)`` for each item that is put.

    ``failed(item, error)`` is called with every exception of ``send``. It returns the seconds until the next attempt,
    or None to drop the item, and must not raise.
    """

    def __init__(
        self,
        send: Callable[[Item], Awaitable[None]],
        failed: Callable[[Item, Exception], float | None],
        limit: AimdLimit,
    ) -> None:
        self._send = send
        self._failed = failed
        self.limit = limit
        self._under_way = 0
        self._delayed = 0
        self._heap: list[tuple[float, int, Item]] = []
        self._failures: dict[int, int] = {}
        self._next_quota_retry = -math.inf
        # Items by identity: runs and batches are compared and hashed by identity, and an item is kept alive by the
        # heap, by its task or by its timer for as long as its id is in here.
        self._known: set[int] = set()
        self._order = itertools.count()
        self._changed = asyncio.Event()
        self._popped = asyncio.Event()
        self._finished = asyncio.Event()

    def put(self, item: Item, priority: float = 0.0) -> None:
        """Queue an item; equal priorities go in the order of arrival.

        An item that is queued, under way or waits for its next attempt is not queued a second time.
        """
        if id(item) not in self._known:
            self._known.add(id(item))
            self._push(item, priority)

    def _push(self, item: Item, priority: float) -> None:
        heapq.heappush(self._heap, (-priority, next(self._order), item))
        self._changed.set()

    def failures(self, item: Item) -> int:
        """Return how often in a row an item has failed; for use in ``failed``."""
        return self._failures.get(id(item), 0)

    def __len__(self) -> int:
        """Items that are queued, under way or wait for their next attempt."""
        return len(self._heap) + self._under_way + self._delayed

    async def wait_until_empty(self) -> None:
        """Wait until no item is queued, under way or waits for its next attempt."""
        while len(self):
            self._finished.clear()
            await self._finished.wait()

    async def wait_for_room(self) -> None:
        """Wait until fewer items are queued than may be under way."""
        while len(self._heap) >= self.limit.limit:
            self._popped.clear()
            await self._popped.wait()

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._wait_for_turn()
                priority, _, item = heapq.heappop(self._heap)
                self._popped.set()
                self._under_way += 1
                group.create_task(self._attempt(item, -priority))

    async def _wait_for_turn(self) -> None:
        """Wait until an item is queued and the limit allows one more request."""
        loop = asyncio.get_running_loop()
        while not (self._heap and self.limit.may_start(self._under_way, loop.time())):
            # Nothing runs between the condition and the wait, so that no set() is lost between clear() and wait().
            self._changed.clear()
            pause = self.limit.resume_at - loop.time()
            try:
                await asyncio.wait_for(self._changed.wait(), pause if self._heap and 0 < pause < math.inf else None)
            except TimeoutError:
                continue  # the pause that the server asked for is over

    async def _attempt(self, item: Item, priority: float) -> None:
        loop = asyncio.get_running_loop()
        sent_at, delay = loop.time(), None
        try:
            await self._send(item)
            self.limit = self.limit.accepted(self._under_way)
            if self._failures:
                self._failures.pop(id(item), None)
        except Exception as error:  # cancellation is not an Exception: the item counts neither as sent nor as failed
            self._slow_down(error, sent_at, loop.time())
            self._failures[id(item)] = self.failures(item) + 1
            delay = self._failed(item, error)
            if delay is not None and isinstance(error, QuotaExceeded):
                delay = self._spread(delay, loop.time())
            if delay is not None:
                self._put_back(item, priority, delay)
            else:
                del self._failures[id(item)]
        finally:
            if delay is None:  # an item that waits for its next attempt stays known, so that put() ignores it
                self._known.discard(id(item))
            self._under_way -= 1
            self._changed.set()
            self._finished.set()

    def _spread(self, delay: float, now: float) -> float:
        """Return a delay that spreads the items which a quota refused: thousands must not come back at once."""
        self._next_quota_retry = max(now + delay, self._next_quota_retry + 1 / _QUOTA_RETRIES_PER_S)
        return self._next_quota_retry - now

    def _slow_down(self, error: Exception, sent_at: float, now: float) -> None:
        if is_overload(error):
            before = self.limit.limit
            self.limit = self.limit.pushed_back(sent_at, now, retry_after(error))
            if self.limit.limit < before:
                log.warning(
                    "The API server pushes back: at most %d requests at a time now (%s)", self.limit.limit, error
                )

    def _put_back(self, item: Item, priority: float, delay: float) -> None:
        def put_back() -> None:
            self._delayed -= 1
            self._push(item, priority)

        self._delayed += 1
        asyncio.get_running_loop().call_later(delay, put_back)
