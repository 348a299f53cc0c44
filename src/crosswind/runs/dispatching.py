"""Work that waits its turn: the highest priority first, as many at a time as the server likes."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from crosswind.errors import QuotaExceeded
from crosswind.kube.retry import is_overload, retry_after
from crosswind.runs.pacing import Pace

__all__ = ["Dispatcher"]

log = logging.getLogger(__name__)

Item = TypeVar("Item")

_QUOTA_RATE = 10.0
"""Items a second that a quota has refused and that are tried again."""


class Dispatcher(Generic[Item]):
    """Runs ``work(item)`` for each item that is put.

    ``refused(item, error)`` hears of every exception of ``work`` and returns after how many seconds to try again, or
    None when the item is dealt with. It must not raise.
    """

    def __init__(
        self,
        work: Callable[[Item], Awaitable[None]],
        refused: Callable[[Item, Exception], float | None],
        pace: Pace,
    ) -> None:
        self._work = work
        self._refused = refused
        self.pace = pace
        self.under_way = 0
        self.later = 0
        self._heap: list[tuple[float, int, Item]] = []
        self._failures: dict[int, int] = {}
        self._next_quota = -math.inf
        self._known: set[int] = set()
        self._order = itertools.count()
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self._done = asyncio.Event()

    def put(self, item: Item, priority: float = 0.0) -> None:
        """Queue an item; higher priorities go first, equal ones in the order in which they came.

        One that is queued, under way or to be tried again already is not put a second time.
        """
        if id(item) not in self._known:
            self._known.add(id(item))
            self._push(item, priority)

    def _push(self, item: Item, priority: float) -> None:
        heapq.heappush(self._heap, (-priority, next(self._order), item))
        self._changed.set()

    def failures(self, item: Item) -> int:
        """Return how often in a row the work on an item has failed, for ``refused``."""
        return self._failures.get(id(item), 0)

    def __len__(self) -> int:
        """Items that wait for their turn, for an answer or for another try."""
        return len(self._heap) + self.under_way + self.later

    async def idle(self) -> None:
        """Wait until nothing waits for its turn, for an answer or for another try."""
        while len(self):
            self._done.clear()
            await self._done.wait()

    async def room(self) -> None:
        """Wait until fewer items wait for their turn than may be under way."""
        while len(self._heap) >= self.pace.limit:
            self._taken.clear()
            await self._taken.wait()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._turn()
                priority, _, item = heapq.heappop(self._heap)
                self._taken.set()
                self.under_way += 1
                group.create_task(self._one(item, -priority))

    async def _turn(self) -> None:
        """Wait until there is an item and the pace allows one more request."""
        loop = asyncio.get_running_loop()
        while not (self._heap and self.pace.may_start(self.under_way, loop.time())):
            self._changed.clear()
            hold = self.pace.resume_at - loop.time()
            try:
                await asyncio.wait_for(self._changed.wait(), hold if self._heap and 0 < hold < math.inf else None)
            except TimeoutError:
                continue

    async def _one(self, item: Item, priority: float) -> None:
        loop = asyncio.get_running_loop()
        sent_at, delay = loop.time(), None
        try:
            await self._work(item)
            self.pace = self.pace.accepted(self.under_way)
            if self._failures:
                self._failures.pop(id(item), None)
        except Exception as error:
            self._learn(error, sent_at, loop.time())
            self._failures[id(item)] = self.failures(item) + 1
            delay = self._refused(item, error)
            if delay is not None and isinstance(error, QuotaExceeded):
                delay = self._spread(delay, loop.time())
            if delay is not None:
                self._again(item, priority, delay)
            else:
                del self._failures[id(item)]
        finally:
            if delay is None:
                self._known.discard(id(item))
            self.under_way -= 1
            self._changed.set()
            self._done.set()

    def _spread(self, delay: float, now: float) -> float:
        """Keep those that a quota refused from coming back all at once, however many they are."""
        self._next_quota = max(now + delay, self._next_quota + 1 / _QUOTA_RATE)
        return self._next_quota - now

    def _learn(self, error: Exception, sent_at: float, now: float) -> None:
        if is_overload(error):
            before = self.pace.limit
            self.pace = self.pace.pushed_back(sent_at, now, retry_after(error))
            if self.pace.limit < before:
                log.warning(
                    "The API server pushes back: %d requests at a time from now on (%s)", self.pace.limit, error
                )

    def _again(self, item: Item, priority: float, delay: float) -> None:
        def back() -> None:
            self.later -= 1
            self._push(item, priority)

        self.later += 1
        asyncio.get_running_loop().call_later(delay, back)
