"""Following all objects of a kind: list, then watch; list again and compare when that breaks, and now and then.

A change is never lost: what a broken watch missed, a DELETED above all, comes out of the comparison.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias, Unpack

import orjson

from crosswind.errors import CrosswindError, Gone
from crosswind.kube import requests
from crosswind.kube.client import Client
from crosswind.kube.packing import Packed, pack
from crosswind.kube.requests import Selection
from crosswind.kube.resources import Resource
from crosswind.kube.retry import pause_after
from crosswind.kube.watching import version_of
from crosswind.types import Manifest, WatchEvent

__all__ = ["Informer", "InformerEvent", "Known"]

logger = logging.getLogger(__name__)

Glance: TypeAlias = tuple[str, bytes | Manifest | None]
"""Of a listed object: its uid, and the object or its text, None when it is known already."""

_CATCH_UP = 1.0
"""Seconds from a start at a given version to the first list, which shows what did not change since."""

_STEADY = 5.0
"""Seconds after which a watch that ends counts as healthy, so that the next one starts without a pause."""


@dataclass(frozen=True, slots=True)
class InformerEvent:
    """A change. ``type`` tells how it is for us: ADDED is the first sight of an object.

    DELETED carries the last state: the server's (``reason`` watch) or, found by comparing, the last one seen (list). It
    also comes when an object no longer matches the selectors; then it has no ``deletionTimestamp``.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: Manifest
    reason: Literal["watch", "list"]


class Known:
    """The objects as last seen, by uid, and what news a watch event or a list brings. Does not wait.

    ``trim``: returns the part of an object that is remembered; it is then kept as text. None: all of it, as it came.
    """

    def __init__(self, trim: Callable[[Manifest], Manifest] | None = None) -> None:
        self.objects: MutableMapping[str, Manifest] = {} if trim is None else Packed(trim)
        self._packs = trim is not None
        self._versions: dict[str, str] = {}

    def learn(self, event: WatchEvent) -> InformerEvent | None:
        """Take an event of a watch; None when it tells nothing new."""
        if event["type"] == "BOOKMARK":
            return None
        found = event["object"]
        if event["type"] == "DELETED":
            if self._versions.pop(found["metadata"]["uid"], None) is not None:
                del self.objects[found["metadata"]["uid"]]
            return InformerEvent("DELETED", found, "watch")
        return self._keep(found, "watch")

    def glance(self, found: Manifest) -> Glance:
        """Return what ``compare`` needs of a listed object."""
        uid, version = found["metadata"]["uid"], version_of(found)
        if self._versions.get(uid) == version:
            return uid, None
        found["metadata"].pop("managedFields", None)
        return uid, pack(found) if self._packs else found

    def compare(self, listed: Sequence[Glance]) -> Iterable[InformerEvent]:
        """Take a whole list; objects that are gone come first, so that a new one of the same name follows the old."""
        for uid in self._versions.keys() - {uid for uid, _ in listed}:
            del self._versions[uid]
            yield InformerEvent("DELETED", self.objects.pop(uid), "list")
        for _, found in listed:
            if found is None:
                continue
            if news := self._keep(orjson.loads(found) if isinstance(found, bytes) else found, "list"):
                yield news

    def _keep(self, found: Manifest, reason: Literal["watch", "list"]) -> InformerEvent | None:
        uid = found["metadata"]["uid"]
        before, version = self._versions.get(uid), version_of(found)
        if before == version:
            return None
        found["metadata"].pop("managedFields", None)  # half of a pod's size, read by nobody here
        self.objects[uid], self._versions[uid] = found, version
        return InformerEvent("ADDED" if before is None else "MODIFIED", found, reason)


class Informer:
    """Keeps up with the objects of a kind, for ever, through whatever the network and the server do.

    ``trim``: returns the part of an object that is worth remembering; what it gives is kept as text, for thousands of
    objects that nobody looks at. A change carries the whole object, one found by comparing (DELETED) the trimmed one.
    ``relist_every``: seconds, spread by a tenth. ``version``: everything up to here
    was handed on, so a new informer may start from it; "" before the first list. ``trouble``: the error that keeps it
    from following right now, such as ``Forbidden``; None when all is well.
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
        self._known = Known(trim)
        self._heard = -math.inf

    @property
    def objects(self) -> Mapping[str, Manifest]:
        """The objects as last seen, by uid; a view that changes while ``run`` runs. Not to be written to."""
        return MappingProxyType(self._known.objects)

    @property
    def lag(self) -> float:
        """Seconds since the server last told anything; a healthy watch hears a bookmark about once a minute."""
        return time.monotonic() - self._heard

    async def run(self, on_change: Callable[[InformerEvent], None], *, version: str | None = None) -> None:
        """Call ``on_change`` for each change until cancelled; only an error of ``on_change`` ends it otherwise.

        ``version``: go on from here instead of listing first; what did not change since is shown by a list some seconds
        later. When the server does not remember that version (410) it lists at once; what was deleted in between is
        then not told, for nobody here knew it.
        """
        async with contextlib.aclosing(self._changes(version or "")) as changes:
            async for change in changes:
                on_change(change)

    async def _changes(self, version: str) -> AsyncGenerator[InformerEvent]:
        self.version = version
        list_at = time.monotonic() + (_CATCH_UP if version else 0.0)
        failures = 0
        while True:
            began, before, error = time.monotonic(), self.version, None
            try:
                if time.monotonic() >= list_at:
                    async for change in self._list():
                        yield change
                    list_at = time.monotonic() + self.relist_every * random.uniform(0.9, 1.1)  # noqa: S311  # no secret
                async for change in self._watch(list_at - time.monotonic()):
                    yield change
            except CrosswindError as caught:
                error = caught
                if isinstance(caught, Gone):
                    list_at = 0.0
            steady = self._heard > began and time.monotonic() - began > _STEADY
            healthy = not isinstance(error, Gone) and (steady or self.version != before)
            failures = 0 if healthy else failures + 1
            self._report(error, failures)
            await asyncio.sleep(pause_after(failures, error))

    async def _list(self) -> AsyncGenerator[InformerEvent]:
        # always the current state: a server's cache ("0") may be older than what the watch has shown already
        found = await self.client.gather(self.resource, self._known.glance, **self.selection)
        for change in self._known.compare(found.items):
            yield change
        self._hear(found.version)
        self.listed.set()

    async def _watch(self, seconds: float) -> AsyncGenerator[InformerEvent]:
        request = requests.watch(self.resource, version=self.version, timeout=seconds, **self.selection)
        async with self.client.open_watch(request) as events:
            self._hear("")
            async for event in events:
                version = version_of(event["object"])
                if _is_before(version, self.version):
                    raise Gone(f"the server's versions went back from {self.version} to {version}", status=410)
                if change := self._known.learn(event):
                    yield change
                self._hear(version)

    def _hear(self, version: str) -> None:
        self.version = version or self.version
        self._heard = time.monotonic()
        if self.trouble:
            logger.info("Following %s again", self.resource.plural)
        self.trouble = None

    def _report(self, error: CrosswindError | None, failures: int) -> None:
        """Say once, at the second failure in a row, that something is wrong; a single cut is everyday life."""
        if failures and not isinstance(error, Gone):
            self.trouble = error
        level = logging.WARNING if failures == 2 else logging.DEBUG
        if error is not None:
            logger.log(level, "Following %s was interrupted, trying again: %s", self.resource.plural, error)


def _is_before(version: str, known: str) -> bool:
    """Whether the server tells an older version than it has told: restored from a backup, it counts anew.

    What happened below the version that a watch resumes from is then never told, so only a list helps. Versions of one
    kind are numbers that grow (KEP-5504); whatever else a server uses is not compared.
    """
    return version.isdecimal() and known.isdecimal() and int(version) < int(known)
