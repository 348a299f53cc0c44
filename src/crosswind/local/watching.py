"""Following a kind of objects: the changes that a reader with a namespace and a selector sees."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from crosswind.local.seams import Change
from crosswind.local.selectors import EVERYTHING, Selector
from crosswind.local.store import Entry, Event, EventType, Store

__all__ = ["Feed", "FeedSubscription", "Seen", "WatchOptions", "WatchStream"]

BOOKMARK_S = 60.0  # as the API server's watch cache does
QUEUE = 100_000  # events that may wait for a slow client before its watch is ended


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
        seen = self.view(event)
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

    def view(self, event: Event) -> Seen | None:
        """Return an event as this reader sees it, or None."""
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


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """``version``: None begins with an ADDED for each object that is there. ``timeout``: seconds until the end.

    ``bookmarks``: whether the version is told each minute and at the end. ``mark_initial``: also after those ADDED's.
    """

    version: int | None = None
    timeout: float = 3600.0
    bookmarks: bool = False
    mark_initial: bool = False


class WatchStream:
    """A watch over HTTP, from its opening on; raises ``Compacted`` when its version is too old. Closed at its end.

    ``encode`` writes an event, ``bookmark`` a version (and whether it ends the initial objects), each as one line.
    """

    def __init__(
        self,
        store: Store,
        kind: str,
        namespace: str | None,
        selector: Selector,
        options: WatchOptions,
        encode: Callable[[Seen], bytes],
        bookmark: Callable[[int, bool], bytes],
    ) -> None:
        self._store = store
        self._options = options
        self._encode = encode
        self._bookmark = bookmark
        self._ended = False
        if options.version is None:
            entries = [entry for entry in store.entries(kind, namespace) if selector.matches(entry.object)]
            entries.sort(key=lambda entry: entry.version)
            first = [Seen("ADDED", entry) for entry in entries]
            self._feed = Feed(store, kind, namespace, selector, QUEUE)
        else:
            events = store.since(kind, options.version)
            self._feed = Feed(store, kind, namespace, selector, QUEUE)
            first = [seen for event in events if (seen := self._feed.view(event))]
        self._feed.waiting.extend(first)
        self._feed.ready.set()

    def end(self) -> None:
        """End the stream soon, from outside."""
        self._ended = True
        self._feed.ready.set()

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield lines, several at once when they came at once, until the timeout."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.timeout
        mark_at = loop.time() + BOOKMARK_S
        mark_initial = self._options.mark_initial
        try:
            while not self._ended and not self._feed.lost:
                timer = loop.call_at(min(deadline, mark_at), self._feed.ready.set)
                await self._feed.ready.wait()
                timer.cancel()
                chunk = b"".join(map(self._encode, self._feed.take()))
                if mark_initial:
                    chunk, mark_initial = chunk + self._bookmark(self._store.version, True), False
                over = loop.time() >= deadline
                if over or loop.time() >= mark_at:
                    mark_at = loop.time() + BOOKMARK_S
                    if self._options.bookmarks:
                        chunk += self._bookmark(self._store.version, False)
                if chunk:
                    yield chunk
                if over:
                    return
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the store."""
        self._feed.close()


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
