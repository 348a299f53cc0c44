"""Decides how many pods wait for tasks. Pure: the one place where that number comes from.

A use is a moment at which so many waiting pods were missing or taken at once. A pool keeps as many pods as its deepest
use of the last ``idle_seconds``, so that a burst finds what the burst before it would have needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from crosswind.settings import WarmOptions

__all__ = ["MISS_WINDOW_S", "PoolDemand", "Use", "pool_sizes"]

MISS_WINDOW_S = 60.0
"""Tasks that started cold within this time count together."""


@dataclass(frozen=True, slots=True)
class Use:
    """At ``moment``, in seconds, ``depth`` pods were in use or missing at once."""

    moment: float
    depth: int


@dataclass(frozen=True, slots=True)
class PoolDemand:
    """The demand for pods of one fingerprint."""

    fingerprint: str
    minimum: int
    """The option ``min`` for the pods of a queue's ordinary tasks, 0 for those of an ``executor_config``."""
    uses: Sequence[Use]
    blocked: bool = False
    """A task's pod waits for a quota or a node of this namespace: no pod may wait there."""


def pool_sizes(demands: Iterable[PoolDemand], options: WarmOptions, now: float) -> Mapping[str, int]:
    """Return how many pods of each fingerprint wait; ``demands`` share the ``max`` of ``options``.

    The minima come first, then the pools that were used last.
    """
    ordered = sorted(demands, key=lambda demand: (demand.minimum == 0, -_last_use(demand)))
    room, sizes = options.max, {}
    for demand in ordered:
        sizes[demand.fingerprint] = 0 if demand.blocked else min(room, demand.minimum)
        room -= sizes[demand.fingerprint]
    for demand in ordered:
        if demand.blocked:
            continue
        depths = (use.depth for use in demand.uses if now - use.moment < options.idle_seconds)
        more = min(room, max(0, max(depths, default=0) - sizes[demand.fingerprint]))
        sizes[demand.fingerprint] += more
        room -= more
    return sizes


def _last_use(demand: PoolDemand) -> float:
    return demand.uses[-1].moment if demand.uses else float("-inf")
