"""Watches: the events of a kind that a reader with a namespace and a selector sees.

A watch holds no task of its own: the store calls ``Feed.offer`` and wakes the reader, which ends by its timeout, by
``close`` in the reader's ``finally`` (also on cancellation), or when it is so slow that its feed is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

from kubelocal.interfaces import Change
from kubelocal.storage.selectors import EVERYTHING, Selector
from kubelocal.storage.store import Entry, Event, EventType, Store

__all__ = ["Feed", "FeedSubscription", "VisibleEvent", "WatchOptions", "WatchStream"]

BOOKMARK_S = 60.0  # the interval of the API server's watch cache
MAX_PENDING_EVENTS = 100_000  # pending events of a slow client, after which its watch ends


class VisibleEvent:
    """A watch event as one reader sees it."""

    __slots__ = ("entry", "type")

    def __init__(self, change: EventType, entry: Entry) -> None:
        self.type = change
        self.entry = entry


class Feed:
    """The pending events of one reader of a kind.

    ``limit``: pending events of a slow reader, beyond which the feed is ``lost`` and drops all; None means no limit.
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
        self.waiting: deque[VisibleEvent] = deque()
        # Set by the store's writers, cleared by the one reader, all in one loop: no lock is needed.
        self.ready = asyncio.Event()
        self._namespace = namespace
        self._selector = selector
        self._limit = limit
        self._end = store.listen(kind, self.offer)

    def offer(self, event: Event) -> None:
        """Add an event of the store, if this reader sees it."""
        change = self.view(event)
        if change is None or self.lost:
            return
        if self._limit is not None and len(self.waiting) >= self._limit:
            # The reader ends its watch, and the client lists again: dropped events would be missed in silence, and
            # unbounded ones fill the memory.
            self.lost = True
        else:
            self.waiting.append(change)
        self.ready.set()

    def close(self) -> None:
        """Unsubscribe from the store."""
        self._end()

    def take(self) -> list[VisibleEvent]:
        """Return the pending events, and clear ``ready``."""
        taken = list(self.waiting)
        self.waiting.clear()
        self.ready.clear()
        return taken

    def each(self) -> Iterator[VisibleEvent]:
        """Yield pending events, also those that arrive meanwhile; then clear ``ready``."""
        while self.waiting:
            yield self.waiting.popleft()
        self.ready.clear()

    def view(self, event: Event) -> VisibleEvent | None:
        """Return an event as this reader sees it, or None."""
        if self._namespace is not None and event.namespace != self._namespace:
            return None
        if self._selector.empty:
            return VisibleEvent(event.type, event.entry)
        return view(event, self._selector)


def view(event: Event, selector: Selector) -> VisibleEvent | None:
    """Return an event as a reader with a selector sees it: ADDED or DELETED when the object starts or stops matching.

    The DELETED event of an object that stops matching has its former state with the new version.
    """
    before = event.previous is not None and selector.matches(event.previous.object)
    if event.type == "DELETED":
        return VisibleEvent("DELETED", event.entry) if before else None
    if selector.matches(event.entry.object):
        return VisibleEvent("MODIFIED" if before else "ADDED", event.entry)
    if not before or event.previous is None:
        return None
    old = event.previous.object
    metadata = {**old["metadata"], "resourceVersion": str(event.entry.version)}
    return VisibleEvent("DELETED", Entry({**old, "metadata": metadata}, event.entry.version))


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """``version``: None starts with an ADDED for each existing object. ``timeout``: seconds until the watch ends.

    ``bookmarks``: send one each minute and at the end. ``mark_initial``: send one after the initial ADDED events.
    """

    version: int | None = None
    timeout: float = 3600.0
    bookmarks: bool = False
    mark_initial: bool = False


class WatchStream:
    """A watch over HTTP. Opening one raises ``Compacted`` when its version is too old.

    ``encode`` renders an event, ``bookmark`` a version (and whether it ends the initial events), each as one line.
    """

    def __init__(
        self,
        store: Store,
        kind: str,
        namespace: str | None,
        selector: Selector,
        options: WatchOptions,
        encode: Callable[[VisibleEvent], bytes],
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
            first = [VisibleEvent("ADDED", entry) for entry in entries]
            self._feed = Feed(store, kind, namespace, selector, MAX_PENDING_EVENTS)
        else:
            # Before the feed subscribes, and with no await until ``extend``: no event falls between history and feed,
            # and none comes twice.
            events = store.since(kind, options.version)
            self._feed = Feed(store, kind, namespace, selector, MAX_PENDING_EVENTS)
            first = [change for event in events if (change := self._feed.view(event))]
        self._feed.waiting.extend(first)
        self._feed.ready.set()

    def end(self) -> None:
        """Make ``lines`` return soon; callable from any other task of the loop."""
        self._ended = True
        self._feed.ready.set()

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield lines until the timeout; lines that are pending together are one chunk."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.timeout
        mark_at = loop.time() + BOOKMARK_S
        mark_initial = self._options.mark_initial
        try:
            while not self._ended and not self._feed.lost:
                # Wakes the reader without a task or a cancelled wait per round.
                timer = loop.call_at(min(deadline, mark_at), self._feed.ready.set)
                await self._feed.ready.wait()
                timer.cancel()
                # One write for all that is pending: at a thousand changes a second, a write each would take the loop's
                # time.
                chunk = b"".join(map(self._encode, self._feed.take()))
                # Even without objects: clients that stream lists (KEP-3157) wait for this bookmark.
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
        """Unsubscribe from the store."""
        self._feed.close()


class FeedSubscription:
    """The subscription of ``Registry.watch``: an ADDED for each existing object, then every change."""

    def __init__(self, store: Store, kind: str, namespace: str | None) -> None:
        self._feed = Feed(store, kind, namespace)
        self._feed.waiting.extend(VisibleEvent("ADDED", entry) for entry in store.entries(kind, namespace))
        self._feed.ready.set()
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[Change]:
        """Iterate over the changes."""
        while not self._closed:
            await self._feed.ready.wait()
            for change in self._feed.each():
                yield Change(change.type, change.entry.object)

    def close(self) -> None:
        """End the iteration."""
        self._closed = True
        self._feed.close()
        self._feed.waiting.clear()
        self._feed.ready.set()
