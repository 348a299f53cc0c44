"""Limits on the pods in flight per queue: tasks beyond a queue's limit are held back, all others pass them.

Pure decisions; times are monotonic seconds.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from crosswind.errors import counted

__all__ = ["QueueLimits"]

_REPORT_AFTER_S = 20.0
"""Seconds after which the author of a held task gets an event that says why it waits."""
_EVENTS_PER_HEARTBEAT = 100
"""Bounds the time that thousands of held tasks take of one heartbeat."""

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


@dataclass(slots=True)
class _Held(Generic[Item]):
    item: Item
    queue: str
    since: float
    reported: bool = False


class QueueLimits(Generic[Key, Item]):
    """Holds back the items of queues that have as many in flight as their limit allows.

    ``limits``: by queue; other queues have none. ``refresh_every``: seconds between two results of ``to_refresh``.
    """

    def __init__(self, limits: Mapping[str, int], refresh_every: float = 150.0) -> None:
        self.limits = limits
        self._refresh_every = refresh_every
        self._refreshed_at = -math.inf
        self._held: dict[Key, _Held[Item]] = {}

    def __len__(self) -> int:
        """Items that are held back."""
        return len(self._held)

    def held_by_queue(self) -> dict[str, int]:
        """Return the number of held items by queue; 0 for a queue with a limit that holds none."""
        return {**dict.fromkeys(self.limits, 0), **Counter(held.queue for held in self._held.values())}

    def admit(
        self, ordered: Iterable[tuple[Key, Item]], queue_of: Callable[[Item], str], busy: Iterable[str], now: float
    ) -> list[tuple[Key, Item]]:
        """Return the items that may start, in order. ``busy``: the queue of each item that is in flight."""
        in_flight, held_before = Counter(busy), self._held
        self._held, admitted = {}, []
        for key, item in ordered:
            queue = queue_of(item)
            if in_flight[queue] < self.limits.get(queue, in_flight[queue] + 1):
                in_flight[queue] += 1
                admitted.append((key, item))
            else:
                self._held[key] = held_before.get(key) or _Held(item, queue, now)
        return admitted

    def discard(self, key: Key) -> None:
        """Forget an item that need not run any more."""
        self._held.pop(key, None)

    def events(self, now: float) -> Iterator[tuple[Key, str]]:
        """Yield, once per item, why the items wait that have been held for some time."""
        due = (
            (key, held) for key, held in self._held.items() if not held.reported and held.since <= now - _REPORT_AFTER_S
        )
        for key, held in islice(due, _EVENTS_PER_HEARTBEAT):
            held.reported = True
            yield key, self.why(key)

    def why(self, key: Key) -> str:
        """Return why an item waits, "" if it is not held back."""
        held = self._held.get(key)
        if held is None:
            return ""
        pods = counted(self.limits[held.queue], "pod")
        return f"queue {held.queue} has {pods} in flight, its limit ([crosswind] queues, max_pods)"

    def to_refresh(self, now: float) -> list[Item]:
        """Return, every ``refresh_every`` seconds, the held items: Airflow must not time them out as stuck."""
        if now - self._refreshed_at < self._refresh_every:
            return []
        self._refreshed_at = now
        return [held.item for held in self._held.values()]
