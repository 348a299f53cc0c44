"""Whose turn it is when queues have limits: what is beyond a queue's limit is held back, all else passes it.

Decisions only; times are monotonic seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from crosswind.counting import counted

__all__ = ["Turns"]

_TELL_AFTER = 20.0
"""Seconds after which the author of a task that is held back is told why."""
_TELL_AT_ONCE = 100
"""Authors that one heartbeat tells, so that thousands of tasks do not hold it up."""

Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item")


@dataclass(slots=True)
class _Held(Generic[Item]):
    item: Item
    queue: str
    since: float
    told: bool = False


class Turns(Generic[Key, Item]):
    """Holds back the items of queues that have as many in flight as they may.

    ``limits``: by queue; others have none. ``keep_every``: how often ``to_keep`` names those that are held.
    """

    def __init__(self, limits: Mapping[str, int], keep_every: float = 150.0) -> None:
        self.limits = limits
        self._keep_every = keep_every
        self._kept_at = 0.0
        self._held: dict[Key, _Held[Item]] = {}

    def __len__(self) -> int:
        """Items that are held back."""
        return len(self._held)

    def figures(self) -> dict[str, int]:
        """Return how many are held back, by queue; 0 for a queue with a limit that holds none."""
        return {**dict.fromkeys(self.limits, 0), **Counter(held.queue for held in self._held.values())}

    def choose(
        self, ordered: Iterable[tuple[Key, Item]], queue_of: Callable[[Item], str], busy: Iterable[str], now: float
    ) -> list[tuple[Key, Item]]:
        """Return those that may go, in their order. ``busy``: the queue of each one that is in flight."""
        counts, held = Counter(busy), self._held
        self._held, chosen = {}, []
        for key, item in ordered:
            queue = queue_of(item)
            if counts[queue] < self.limits.get(queue, counts[queue] + 1):
                counts[queue] += 1
                chosen.append((key, item))
            else:
                self._held[key] = held.get(key) or _Held(item, queue, now)
        return chosen

    def drop(self, key: Key) -> None:
        """Forget an item that is not wanted any more."""
        self._held.pop(key, None)

    def notices(self, now: float) -> Iterator[tuple[Key, str]]:
        """Yield what to tell about those that have been held back for some time, once for each."""
        due = (one for one in self._held.items() if not one[1].told and one[1].since <= now - _TELL_AFTER)
        for (key, held), _ in zip(due, range(_TELL_AT_ONCE), strict=False):
            held.told = True
            yield key, self.why(key)

    def why(self, key: Key) -> str:
        """Return why an item waits, "" if it is not held back."""
        held = self._held.get(key)
        if held is None:
            return ""
        pods = counted(self.limits[held.queue], "pod")
        return f"queue {held.queue} has {pods} in flight, as many as it may ([crosswind] queues, max_pods)"

    def to_keep(self, now: float) -> list[Item]:
        """Return those that are held back, now and then: Airflow must not count them as stuck."""
        if now - self._kept_at < self._keep_every:
            return []
        self._kept_at = now
        return [held.item for held in self._held.values()]
