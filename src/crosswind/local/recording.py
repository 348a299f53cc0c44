"""Events as Kubernetes' recorder writes them: repeats are counted up, and old ones are forgotten."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import TypeAlias

from crosswind.local.deleting import timestamp
from crosswind.local.store import Store
from crosswind.types import Manifest

__all__ = ["Recorder"]

Key: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Recorded:
    namespace: str
    name: str
    moment: float


class Recorder:
    """Writes Events into a store. They are kept for ``ttl`` seconds (an hour, as in Kubernetes), ``limit`` at most."""

    def __init__(self, store: Store, *, ttl: float = 3600, limit: int = 10_000) -> None:
        self._store = store
        self._ttl = ttl
        self._limit = limit
        self._recorded: OrderedDict[Key, _Recorded] = OrderedDict()

    def record(
        self, reference: Manifest, reason: str, message: str, kind: str, component: str, now: float, host: str = ""
    ) -> None:
        """Write an event of type ``kind`` (Normal, Warning) about an object, or count up the one that says the same.

        ``host``: the node that it comes from, for those of a kubelet.
        """
        self._forget(now)
        key = (reference["uid"], reference.get("fieldPath", ""), kind, reason, message, component)
        known = self._recorded.get(key)
        entry = known and self._store.get("Event", known.namespace, known.name)
        if known and entry:
            event = entry.object
            metadata = dict(event["metadata"])
            again = {"metadata": metadata, "count": event["count"] + 1, "lastTimestamp": timestamp(now)}
            self._store.put("Event", known.namespace, known.name, {**event, **again})
        else:
            source = {"component": component} | ({"host": host} if host else {})
            known = self._write(reference, reason, message, kind, source, now)
        self._recorded[key] = _Recorded(known.namespace, known.name, now)
        self._recorded.move_to_end(key)

    def _write(
        self, reference: Manifest, reason: str, message: str, kind: str, source: dict[str, str], now: float
    ) -> _Recorded:
        namespace = reference.get("namespace") or "default"
        name = f"{reference['name']}.{secrets.token_hex(8)}"
        when = timestamp(now)
        event = {
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
        self._store.put("Event", namespace, name, event)
        return _Recorded(namespace, name, now)

    def _forget(self, now: float) -> None:
        while self._recorded:
            key, oldest = next(iter(self._recorded.items()))
            if len(self._recorded) < self._limit and oldest.moment > now - self._ttl:
                return
            del self._recorded[key]
            if entry := self._store.get("Event", oldest.namespace, oldest.name):
                final = {**entry.object, "metadata": dict(entry.object["metadata"])}
                self._store.delete("Event", oldest.namespace, oldest.name, final)


def new_uid() -> str:
    """Return a random UUID."""
    bits = secrets.token_hex(16)
    variant = "89ab"[int(bits[16], 16) & 3]
    return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-{variant}{bits[17:20]}-{bits[20:]}"
