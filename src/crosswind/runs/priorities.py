"""An order of things that wait, kept while they come and go: no heartbeat sorts all of them again. Does not wait."""

from __future__ import annotations

import itertools
from collections.abc import Container, Hashable
from typing import Generic, TypeVar

__all__ = ["Priorities"]

Key = TypeVar("Key", bound=Hashable)


class Priorities(Generic[Key]):
    """Keys in their order: higher priorities first, equal ones as they came.

    One dict per priority, and no object per key: ten thousand tuples more or less at each heartbeat would have Python's
    garbage collector walk through the whole process again and again.
    """

    def __init__(self) -> None:
        self._keys: dict[float, dict[Key, None]] = {}
        self._priorities: dict[Key, float] = {}

    def put(self, key: Key, priority: float) -> None:
        """Add a key; one that is there under this priority keeps its place, under another one it moves."""
        before = self._priorities.get(key, priority)
        if before != priority:
            self._forget(before, [key])
        self._priorities[key] = priority
        self._keys.setdefault(priority, {})[key] = None

    def __len__(self) -> int:
        return len(self._priorities)

    def drop(self, key: Key) -> None:
        """Forget a key, if it is there."""
        if (priority := self._priorities.get(key)) is not None:
            self._forget(priority, [key])

    def take(self, count: int) -> list[Key]:
        """Remove the first ``count`` keys and return them, fewer where there are not so many."""
        found: list[Key] = []
        for priority in sorted(self._keys, reverse=True):
            taken = list(itertools.islice(self._keys[priority], count - len(found)))
            self._forget(priority, taken)
            found += taken
            if len(found) == count:
                break
        return found

    def first(self, count: int, among: Container[Key]) -> list[Key]:
        """Return the first ``count`` keys that are ``among`` those that still wait; forget the others on the way."""
        found: list[Key] = []
        for priority in sorted(self._keys, reverse=True):
            over: list[Key] = []
            for key in self._keys[priority]:
                if len(found) == count:
                    break
                (found if key in among else over).append(key)
            self._forget(priority, over)
            if len(found) == count:
                break
        return found

    def _forget(self, priority: float, over: list[Key]) -> None:
        keys = self._keys[priority]
        for key in over:
            del keys[key], self._priorities[key]
        if not keys:
            del self._keys[priority]
