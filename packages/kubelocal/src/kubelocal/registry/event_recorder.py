"""Events as Kubernetes' recorder writes them: a repeat increments a count, and old ones expire."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeAlias

from kubelocal.registry.deletion import timestamp
from kubelocal.storage.store import Event, Store
from kubelocal.types import Manifest

__all__ = ["Recorder", "new_uid"]

Place: TypeAlias = tuple[str, str]
"""An event's namespace and name."""

Key: TypeAlias = tuple[str, ...]
"""The identity of an event; a repeated one increments the count."""


class Recorder:
    """Writes Events into a store and deletes those older than ``ttl`` seconds (an hour, as in Kubernetes).

    ``limit``: events kept at most. ``clock``: seconds since 1970.
    """

    def __init__(self, store: Store, clock: Callable[[], float], *, ttl: float = 3600, limit: int = 10_000) -> None:
        self._store = store
        self._clock = clock
        self._ttl = ttl
        self._limit = limit
        self._places: dict[Key, Place] = {}
        self._recorded: OrderedDict[Place, tuple[float, Key | None]] = OrderedDict()
        store.listen("Event", self._note)

    def record(self, reference: Manifest, reason: str, message: str, kind: str, source: dict[str, str]) -> None:
        """Write an event of type ``kind`` (Normal, Warning) about an object, or increment the count of an equal one.

        ``source``: the reporting component and, for a kubelet, its host.
        """
        # With each write instead of by a timer, so that a recorder needs no task.
        self.forget()
        key = (reference["uid"], reference.get("fieldPath", ""), kind, reason, message, *source.values())
        if known := self._places.get(key):
            entry = self._store.get("Event", *known)
            assert entry is not None, "a deleted event is not recorded here"
            again = {"count": entry.object["count"] + 1, "lastTimestamp": timestamp(self._clock())}
            self._store.put("Event", *known, {**entry.object, "metadata": dict(entry.object["metadata"]), **again})
            return
        event = self._event(reference, reason, message, kind, source)
        place = event["metadata"]["namespace"], event["metadata"]["name"]
        self._places[key] = place
        self._recorded[place] = (0.0, key)
        self._store.put("Event", *place, event)

    def _event(self, reference: Manifest, reason: str, message: str, kind: str, source: dict[str, str]) -> Manifest:
        namespace, when = reference.get("namespace") or "default", timestamp(self._clock())
        name = f"{reference['name']}.{secrets.token_hex(8)}"
        return {
            "kind": "Event",
            "apiVersion": "v1",
            "metadata": {"name": name, "namespace": namespace, "uid": new_uid(), "creationTimestamp": when},
            "involvedObject": reference,
            "reason": reason,
            "message": message[:1024],
            "source": source,
            "firstTimestamp": when,
            "lastTimestamp": when,
            "count": 1,
            "type": kind,
            "eventTime": None,
            "reportingComponent": source["component"],
            "reportingInstance": source.get("host", ""),
        }

    def _note(self, event: Event) -> None:
        """Follow the store, because clients create and delete events too."""
        place = event.namespace, event.name
        _, key = self._recorded.pop(place, (0.0, None))
        if event.type != "DELETED":
            self._recorded[place] = (self._clock(), key)
        elif key:
            # A client deleted the event: the next equal one begins a new object with count 1.
            del self._places[key]

    def forget(self) -> None:
        """Delete events beyond the age or number limit."""
        oldest = self._clock() - self._ttl
        while self._recorded:
            place, (moment, _) = next(iter(self._recorded.items()))
            if moment > oldest and len(self._recorded) < self._limit:
                return
            entry = self._store.get("Event", *place)
            assert entry is not None, "a deleted event is not recorded here"
            self._store.delete("Event", *place, {**entry.object, "metadata": dict(entry.object["metadata"])})


def new_uid() -> str:
    """Return a random UUID."""
    bits = secrets.token_hex(16)
    variant = "89ab"[int(bits[16], 16) & 3]
    return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-{variant}{bits[17:20]}-{bits[20:]}"
