"""Compares the memory that tasks request with the memory that their pods used. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crosswind.pods.units import show_bytes

__all__ = ["MemoryFit", "UsedMemory", "worst_fits"]

_TIGHT = 0.9
"""Share of the limit from which the next pod may run out of memory."""
_WASTE = 256 * 1024**2
"""Bytes of a request that no pod used, below which nobody needs to act."""


@dataclass(frozen=True, slots=True)
class UsedMemory:
    """What one pod used, in bytes; None where it is not known."""

    dag_id: str
    task_id: str
    peak: int | None
    request: int | None
    limit: int | None
    out_of_memory: bool = False


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """The pods of one task, with the newest pod's request and limit and the highest peak of all."""

    dag_id: str
    task_id: str
    pods: int
    peak: int
    request: int | None
    limit: int | None
    out_of_memory: int
    """Pods that ran out of memory."""

    @property
    def bound(self) -> int | None:
        """What the peak is compared with."""
        return self.limit or self.request

    @property
    def share(self) -> float | None:
        """The peak's share of the limit, or of the request where there is no limit."""
        return self.peak / self.bound if self.bound else None

    @property
    def is_tight(self) -> bool:
        """Whether the task needs more memory."""
        return self.out_of_memory > 0 or (self.limit is not None and self.peak >= _TIGHT * self.limit)

    @property
    def unused(self) -> int:
        """Bytes of the request that no pod used."""
        return max(0, (self.request or 0) - self.peak)

    @property
    def text(self) -> str:
        """What to do about it."""
        if self.out_of_memory:
            return f"{self.out_of_memory} of {self.pods} ran out of memory"
        if self.is_tight:
            return f"close to its limit: {self.share or 0:.0%}"
        return f"requests {show_bytes(self.unused)} more than any pod used"


def worst_fits(pods: Iterable[UsedMemory], most: int = 10) -> Sequence[MemoryFit]:
    """Return the tasks that fit worst, at most ``most``: those that need more first, then the largest unused requests.

    ``pods``: the newest first.
    """
    by_task: dict[tuple[str, str], list[UsedMemory]] = {}
    for pod in pods:
        by_task.setdefault((pod.dag_id, pod.task_id), []).append(pod)
    fits = [_fit(task_pods) for task_pods in by_task.values()]
    bad = [fit for fit in fits if fit.is_tight or fit.unused >= _WASTE]
    # A request is held for as long as each pod runs, so the unused part of many pods weighs more than that of one.
    bad.sort(key=lambda fit: (not fit.is_tight, -fit.out_of_memory, -fit.unused * fit.pods))
    tight, roomy = [fit for fit in bad if fit.is_tight], [fit for fit in bad if not fit.is_tight]
    return [*tight[: most - min(len(roomy), most // 2)], *roomy][:most]


def _fit(pods: Sequence[UsedMemory]) -> MemoryFit:
    newest = pods[0]
    return MemoryFit(
        newest.dag_id,
        newest.task_id,
        len(pods),
        max(pod.peak or 0 for pod in pods),
        newest.request,
        newest.limit,
        sum(pod.out_of_memory for pod in pods),
    )
