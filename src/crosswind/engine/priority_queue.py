"""A priority queue that stays in order while keys come and go, so that no heartbeat sorts them. Does not wait."""

from __future__ import annotations

import itertools
from collections.abc import Container, Hashable
from typing import Generic, TypeVar

__all__ = ["PriorityQueue"]

Key = TypeVar("Key", bound=Hashable)


class PriorityQueue(Generic[Key]):
    """Keys in order: higher priorities first, equal ones by arrival.

    It holds one dict per priority and no object per key: ten thousand new tuples per heartbeat would trigger a full
    garbage collection, which walks through every object of the scheduler, again and again.
    """

    def __init__(self) -> None:
        self._keys: dict[float, dict[Key, None]] = {}
        self._priorities: dict[Key, float] = {}

    def put(self, key: Key, priority: float) -> None:
        """Add a key. A known key keeps its place, or moves if its priority has changed."""
        before = self._priorities.get(key, priority)
        if before != priority:
            self._remove(before, [key])
        self._priorities[key] = priority
        self._keys.setdefault(priority, {})[key] = None

    def __len__(self) -> int:
        return len(self._priorities)

    def discard(self, key: Key) -> None:
        """Remove a key if it is there."""
        if (priority := self._priorities.get(key)) is not None:
            self._remove(priority, [key])

    def take(self, count: int) -> list[Key]:
        """Remove the first ``count`` keys, or as many as there are, and return them."""
        first: list[Key] = []
        for priority in sorted(self._keys, reverse=True):
            taken = list(itertools.islice(self._keys[priority], count - len(first)))
            self._remove(priority, taken)
            first += taken
            if len(first) == count:
                break
        return first

    def first(self, count: int, among: Container[Key]) -> list[Key]:
        """Return the first ``count`` keys that are in ``among``, and remove the others that stand before them."""
        first: list[Key] = []
        for priority in sorted(self._keys, reverse=True):
            outdated: list[Key] = []
            for key in self._keys[priority]:
                if len(first) == count:
                    break
                (first if key in among else outdated).append(key)
            self._remove(priority, outdated)
            if len(first) == count:
                break
        return first

    def _remove(self, priority: float, keys: list[Key]) -> None:
        of_priority = self._keys[priority]
        for key in keys:
            del of_priority[key], self._priorities[key]
        if not of_priority:
            del self._keys[priority]
