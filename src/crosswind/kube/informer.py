"""Follows all objects of a kind: list, then watch; list again and compare when the watch breaks, and at intervals.

No change is lost: the comparison of a new list with the index reports what a broken watch missed, deletions above all.
The regular list repairs what neither side noticed, such as an event that a proxy swallowed.

``Informer.run`` starts no task. Its caller owns the task that runs it and ends it by cancelling, which closes the
connection. An error of the API server never ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, TypeAlias, Unpack

import orjson

from crosswind.errors import CrosswindError, Gone
from crosswind.kube import requests
from crosswind.kube.client import Client
from crosswind.kube.packed_json import PackedObjects, pack
from crosswind.kube.requests import Selection
from crosswind.kube.resources import Resource
from crosswind.kube.retry import pause_after
from crosswind.kube.watch import version_of
from crosswind.types import Manifest, WatchEvent

__all__ = ["Informer", "InformerEvent", "ObjectIndex"]

logger = logging.getLogger(__name__)

IndexItem: TypeAlias = tuple[str, bytes | Manifest | None]
"""The uid of a listed object, and the object or its text; None instead when the index has this version already."""

_FIRST_LIST_DELAY_S = 1.0
"""Time from a start at a given version to the first list, which reports the objects that did not change since."""

_HEALTHY_S = 5.0
"""A watch that ends after this time was healthy, so that the next one starts without a pause."""


class InformerEvent(NamedTuple):
    """A change. ``type`` is relative to the index: ADDED is the first version of an object that it gets.

    DELETED carries the last state: the server's (``reason`` watch), or the index's for a deletion that a list revealed
    (``reason`` list). It also comes when an object stops matching the selectors; then it has no ``deletionTimestamp``.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: Manifest
    reason: Literal["watch", "list"]


class ObjectIndex:
    """The newest versions of objects, by uid. Turns watch events and lists into changes; does no I/O.

    ``trim``: returns the part of an object to keep, which is then stored as text. None: keep whole objects.
    """

    def __init__(self, trim: Callable[[Manifest], Manifest] | None = None) -> None:
        self.objects: MutableMapping[str, Manifest] = {} if trim is None else PackedObjects(trim)
        self._packs = trim is not None
        self._versions: dict[str, str] = {}

    def apply_event(self, event: WatchEvent) -> InformerEvent | None:
        """Apply a watch event and return the change, None when the event brings none."""
        if event["type"] == "BOOKMARK":
            return None
        item = event["object"]
        if event["type"] == "DELETED":
            if self._versions.pop(item["metadata"]["uid"], None) is not None:
                del self.objects[item["metadata"]["uid"]]
            return InformerEvent("DELETED", item, "watch")
        return self._store(item, "watch")

    def index_item(self, item: Manifest) -> IndexItem:
        """Return the part of a listed object that ``replace`` needs, so that a page of a list can be freed."""
        uid, version = item["metadata"]["uid"], version_of(item)
        # Nine in ten objects of a repeated list: neither their text nor their fields are needed.
        if self._versions.get(uid) == version:
            return uid, None
        item["metadata"].pop("managedFields", None)
        return uid, pack(item) if self._packs else item

    def replace(self, listed: Sequence[IndexItem]) -> Iterable[InformerEvent]:
        """Replace the content by a whole list and yield the changes.

        Deletions come first, so that a new object follows the old one of its name.
        """
        for uid in self._versions.keys() - {uid for uid, _ in listed}:
            del self._versions[uid]
            yield InformerEvent("DELETED", self.objects.pop(uid), "list")
        for _, item in listed:
            if item is None:
                continue
            if change := self._store(orjson.loads(item) if isinstance(item, bytes) else item, "list"):
                yield change

    def _store(self, item: Manifest, reason: Literal["watch", "list"]) -> InformerEvent | None:
        uid = item["metadata"]["uid"]
        before, version = self._versions.get(uid), version_of(item)
        if before == version:
            return None
        item["metadata"].pop("managedFields", None)  # half of a pod's size, and no reader here needs it
        self.objects[uid], self._versions[uid] = item, version
        return InformerEvent("ADDED" if before is None else "MODIFIED", item, reason)


class Informer:
    """Follows the objects of a kind until it is cancelled, through every failure of network and server.

    ``trim``: returns the part of an object to keep; it is stored as text, for thousands of objects that are seldom
    read. A change carries the whole object, a deletion that a list revealed the trimmed one. ``relist_every``: seconds,
    varied by a tenth. ``version``: every change up to here was reported, so a new informer may start from it; "" before
    the first list. ``trouble``: the error that keeps it from following at present, such as ``Forbidden``, else None.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        *,
        relist_every: float = 300.0,
        trim: Callable[[Manifest], Manifest] | None = None,
        **selection: Unpack[Selection],
    ) -> None:
        self.client, self.resource, self.selection = client, resource, selection
        self.relist_every = relist_every
        self.version = ""
        self.trouble: CrosswindError | None = None
        self.listed = asyncio.Event()
        """Set after the first list: from then on ``objects`` is complete."""
        self._index = ObjectIndex(trim)
        self._heard_at = -math.inf
        self._broken: CrosswindError | None = None
        """The error that ended the watch, until it is raised."""

    @property
    def objects(self) -> Mapping[str, Manifest]:
        """The newest versions of the objects, by uid; a read-only view that changes while ``run`` runs."""
        return MappingProxyType(self._index.objects)

    @property
    def lag(self) -> float:
        """Seconds since the server last sent anything; a healthy watch gets a bookmark about once a minute."""
        return time.monotonic() - self._heard_at

    async def run(self, on_change: Callable[[InformerEvent], None], *, version: str | None = None) -> None:
        """Call ``on_change`` for each change until cancelled. An error that ``on_change`` raises ends it too.

        ``version``: watch from here instead of listing first; a list a second later reports the objects that did not
        change since. If the server no longer has that version (410), it lists at once. Objects that were deleted in
        between are then not reported, because the index never had them.
        """
        async with contextlib.aclosing(self._changes(version or "")) as batches:
            async for changes in batches:
                for change in changes:
                    on_change(change)

    async def _changes(self, version: str) -> AsyncGenerator[Iterable[InformerEvent]]:
        self.version = version
        # A start from a stored version reports changes at once, and the list of all other objects follows when the
        # caller has handled those.
        list_at = time.monotonic() + (_FIRST_LIST_DELAY_S if version else 0.0)
        failures = 0
        while True:
            # The loop ends by cancellation alone. It arrives in _list, _watch or the sleep, and aclosing in run()
            # closes the connection.
            began, before, error = time.monotonic(), self.version, None
            try:
                if time.monotonic() >= list_at:
                    async for changes in self._list():
                        yield changes
                    list_at = time.monotonic() + self.relist_every * random.uniform(0.9, 1.1)  # noqa: S311  # no secret
                # The server ends the watch when the next list is due, so that the list needs no timer.
                async for changes in self._watch(list_at - time.monotonic()):
                    yield changes
            except CrosswindError as caught:
                error = caught
                # 410: the version was compacted, which API servers do every five minutes by default. Only a list helps.
                if isinstance(caught, Gone):
                    list_at = 0.0
            # A watch that breaks at once, time after time, must not become a busy loop; one that delivered is reopened
            # at once. After 410 the list comes next, and a server that answers 410 each time gets pauses too.
            steady = self._heard_at > began and time.monotonic() - began > _HEALTHY_S
            healthy = not isinstance(error, Gone) and (steady or self.version != before)
            failures = 0 if healthy else failures + 1
            self._report(error, failures)
            await asyncio.sleep(pause_after(failures, error))

    async def _list(self) -> AsyncGenerator[Iterable[InformerEvent]]:
        # always the current state: a server's cache ("0") may be older than what the watch has reported
        listing = await self.client.list_mapped(self.resource, self._index.index_item, **self.selection)
        yield self._index.replace(listing.items)
        # After the changes were handled: a caller that stores ``version`` must not store one whose changes it has not
        # seen.
        self._hear(listing.version)
        self.listed.set()

    async def _watch(self, seconds: float) -> AsyncGenerator[Iterable[InformerEvent]]:
        request = requests.watch(self.resource, version=self.version, timeout=seconds, **self.selection)
        async with self.client.open_watch(request) as batches:
            # Accepting the watch is a sign of life; its version counts only from the first event on.
            self._hear("")
            async for events in batches:
                yield self._apply(events)
                if self._broken is not None:
                    error, self._broken = self._broken, None
                    raise error

    def _apply(self, events: Iterable[WatchEvent]) -> Iterator[InformerEvent]:
        """Yield the changes that events bring. An error of the stream ends them; ``_watch`` raises it after them."""
        try:
            for event in events:
                version = version_of(event["object"])
                # As if it was 410, so that ``_changes`` lists.
                if _is_before(version, self.version):
                    raise Gone(f"the server's versions went back from {self.version} to {version}", status=410)
                if change := self._index.apply_event(event):
                    yield change
                self._hear(version)
        except CrosswindError as error:  # not of the caller: what it raises does not come back through a yield
            self._broken = error

    def _hear(self, version: str) -> None:
        self.version = version or self.version
        self._heard_at = time.monotonic()
        if self.trouble:
            logger.info("Following %s again", self.resource.plural)
        self.trouble = None

    def _report(self, error: CrosswindError | None, failures: int) -> None:
        """Log a warning once, at the second failure in a row; a single broken watch is normal."""
        if failures and not isinstance(error, Gone):
            self.trouble = error
        level = logging.WARNING if failures == 2 else logging.DEBUG
        if error is not None:
            logger.log(level, "Following %s was interrupted, retrying: %s", self.resource.plural, error)


def _is_before(version: str, known: str) -> bool:
    """Return whether a version is older than one that the server sent before: it was restored from a backup.

    The restored server counts again from the backup's version. A watch from a higher version would miss every change
    until the count has caught up, so only a list helps. Versions of one kind are increasing numbers (KEP-5504);
    versions that are no numbers are not compared.
    """
    return version.isdecimal() and known.isdecimal() and int(version) < int(known)
