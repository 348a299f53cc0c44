"""Following a kind of objects: the changes that a reader with a namespace and a selector sees."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator

from crosswind.local.seams import Change
from crosswind.local.selectors import EVERYTHING, Selector
from crosswind.local.store import Entry, Event, EventType, Store

__all__ = ["Feed", "FeedSubscription", "Seen"]


class Seen:
    """A change as one reader sees it."""

    __slots__ = ("entry", "type")

    def __init__(self, change: EventType, entry: Entry) -> None:
        self.type = change
        self.entry = entry


class Feed:
    """The changes of one kind that a reader has not taken yet.

    ``limit``: how many may wait for a slow reader; with more the feed is ``lost`` and gets no more. None: no limit.
    Closed by ``close``.
    """

    def __init__(
        self,
        store: Store,
        kind: str,
        namespace: str | None = None,
        selector: Selector = EVERYTHING,
        limit: int | None = None,
    ) -> None:
        self.lost = False
        self.waiting: deque[Seen] = deque()
        self.ready = asyncio.Event()
        self._namespace = namespace
        self._selector = selector
        self._limit = limit
        self._end = store.listen(kind, self.offer)

    def offer(self, event: Event) -> None:
        """Take in an event of the store, if this reader is to see it."""
        seen = self._view(event)
        if seen is None or self.lost:
            return
        if self._limit is not None and len(self.waiting) >= self._limit:
            self.lost = True
        else:
            self.waiting.append(seen)
        self.ready.set()

    def close(self) -> None:
        """Take in no more."""
        self._end()

    def take(self) -> list[Seen]:
        """Return what waits, and clear ``ready``."""
        taken = list(self.waiting)
        self.waiting.clear()
        self.ready.clear()
        return taken

    def each(self) -> Iterator[Seen]:
        """Yield what waits, one by one, until none does; then clear ``ready``."""
        while self.waiting:
            yield self.waiting.popleft()
        self.ready.clear()

    def _view(self, event: Event) -> Seen | None:
        if self._namespace is not None and event.namespace != self._namespace:
            return None
        if self._selector.empty:
            return Seen(event.type, event.entry)
        return view(event, self._selector)


def view(event: Event, selector: Selector) -> Seen | None:
    """Return an event as a reader with a selector sees it: objects come (ADDED) and go (DELETED) as they match or not.

    An object that no longer matches is told as it was, under the new version.
    """
    before = event.previous is not None and selector.matches(event.previous.object)
    if event.type == "DELETED":
        return Seen("DELETED", event.entry) if before else None
    if selector.matches(event.entry.object):
        return Seen("MODIFIED" if before else "ADDED", event.entry)
    if not before or event.previous is None:
        return None
    old = event.previous.object
    metadata = {**old["metadata"], "resourceVersion": str(event.entry.version)}
    return Seen("DELETED", Entry({**old, "metadata": metadata}, event.entry.version))


class FeedSubscription:
    """What ``Registry.watch`` returns: an ADDED for each object that is there, then every change."""

    def __init__(self, store: Store, kind: str, namespace: str | None) -> None:
        self._feed = Feed(store, kind, namespace)
        self._feed.waiting.extend(Seen("ADDED", entry) for entry in store.entries(kind, namespace))
        self._feed.ready.set()
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[Change]:
        """Iterate over the changes."""
        while not self._closed:
            await self._feed.ready.wait()
            for seen in self._feed.each():
                yield Change(seen.type, seen.entry.object)

    def close(self) -> None:
        """End the iteration."""
        self._closed = True
        self._feed.close()
        self._feed.waiting.clear()
        self._feed.ready.set()
