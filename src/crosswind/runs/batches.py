"""The Secrets that carry workloads: one serves a batch of pods, each of which mounts its own key. No waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

__all__ = ["Batch", "Batches"]


@dataclass(slots=True)
class Batch:
    """One Secret. ``users``: unique id -> how to mint its payload again."""

    name: str
    namespace: str
    minted_at: float
    users: dict[str, Callable[[], bytes]] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    """Users whose base container has not started: they need a valid token."""


class Batches:
    """All Secrets of this executor that some pod needs."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, str], Batch] = {}

    def __contains__(self, where: tuple[str, str]) -> bool:
        return where in self._by_name

    def __len__(self) -> int:
        return len(self._by_name)

    def add(self, batch: Batch) -> None:
        """Remember a Secret that exists."""
        batch.unread = set(batch.users)
        self._by_name[batch.namespace, batch.name] = batch

    def begun(self, namespace: str, name: str, unique: str) -> None:
        """Say that a pod has read its key."""
        if batch := self._by_name.get((namespace, name)):
            batch.unread.discard(unique)

    def over(self, namespace: str, name: str, unique: str) -> Batch | None:
        """Say that a pod needs its key no more; returns the batch when nobody does."""
        batch = self._by_name.get((namespace, name))
        if batch is None:
            return None
        batch.unread.discard(unique)
        batch.users.pop(unique, None)
        if batch.users:
            return None
        return self._by_name.pop((namespace, name))

    def stale(self, minted_before: float) -> Iterator[Batch]:
        """Yield the batches with a token that is needed and old."""
        return (batch for batch in list(self._by_name.values()) if batch.unread and batch.minted_at < minted_before)
