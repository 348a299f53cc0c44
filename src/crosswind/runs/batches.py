"""The Secrets that carry workloads: one serves a batch of pods, each of which mounts its own key. No waiting."""

from __future__ import annotations

import math
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
    pending: bool = False
    """Its Secret is being created: no moment to delete it."""
    doubtful: bool = False
    """A request to create it was not answered: it may be there."""
    failures: int = 0
    """Renewals of its tokens that failed in a row; the next one is not before ``renew_at``."""
    renew_at: float = -math.inf
    unread: set[str] = field(default_factory=set)
    """Users whose base container has not started: they need a valid token."""
    adopted: bool = False
    """Pods that are not ours may need it too."""
    unknown: dict[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    """Users whose payload only the Secret holds, each with what renews it."""


class Batches:
    """All Secrets of this executor that some pod needs."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, str], Batch] = {}

    def __contains__(self, where: tuple[str, str]) -> bool:
        return where in self._by_name

    def __len__(self) -> int:
        return len(self._by_name)

    def add(self, batch: Batch) -> None:
        """Remember a Secret that exists, or soon will."""
        batch.unread = set(batch.users)
        self._by_name[batch.namespace, batch.name] = batch

    def join(self, namespace: str, name: str, unique: str, renew: Callable[[bytes], bytes] | None) -> None:
        """Remember that an adopted pod mounts a Secret; its tokens may be of any age."""
        batch = self._by_name.setdefault((namespace, name), Batch(name, namespace, -math.inf, adopted=True))
        batch.users[unique] = bytes
        if renew is not None:
            batch.unread.add(unique)
            batch.unknown[unique] = renew

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
        return self._take_unneeded(batch)

    def decided(self, batch: Batch) -> Batch | None:
        """Say that no request to create a Secret is under way (any more); returns the batch when nobody needs it."""
        batch.pending = False
        return self._take_unneeded(batch)

    def _take_unneeded(self, batch: Batch) -> Batch | None:
        if batch.users or batch.pending:
            return None
        return self._by_name.pop((batch.namespace, batch.name), None)

    def has_secret(self, namespace: str, name: str) -> bool:
        """Whether a Secret is there, as far as is known."""
        batch = self._by_name.get((namespace, name))
        return batch is not None and not batch.pending

    def pending(self) -> list[Batch]:
        """Return the batches whose Secrets are being created."""
        return [batch for batch in self._by_name.values() if batch.pending]

    def stale(self, minted_before: float) -> Iterator[Batch]:
        """Yield the batches with a token that is needed and old."""
        known = [batch for batch in self._by_name.values() if not batch.pending]
        return (batch for batch in known if batch.unread and batch.minted_at < minted_before)
