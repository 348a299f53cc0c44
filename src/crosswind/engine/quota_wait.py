"""Runs whose pods a used-up ResourceQuota refuses: per namespace, one of them retries for all. Nothing here waits.

Two thousand pods that each retry every five seconds make 350 refused requests a second, which the API server and its
admission plug-ins must handle. Here the run of the highest priority asks. If it is refused, one of the others asks in
turn, because a smaller pod, or one of another quota scope, may fit where a large one does not. After each acceptance
twice as many ask.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from crosswind.engine.state import RunStage, WorkerRun
from crosswind.errors import QuotaExceeded

__all__ = ["QuotaWaitList"]

_ROUND_EVERY_S = 2.0
"""Seconds between two rounds that accept nobody; when a pod of ours ends, the next round starts at once."""

_MAX_ASKING = 64
"""Runs that ask at a time, at most."""


@dataclass(slots=True)
class _NamespaceQueue:
    """The runs of one namespace that wait for its quota."""

    error: QuotaExceeded
    next_round: float
    waiting: dict[WorkerRun, int] = field(default_factory=dict)
    """Each with its order of arrival; the run that has not asked for longest stands first."""
    asking: dict[WorkerRun, int] = field(default_factory=dict)
    round_size: int = 1
    """How many ask at a time."""
    skip_first: bool = False
    """Whether another run than the first one asks, because the first one was refused."""
    refused: bool = False
    """Whether a run of this round was refused."""
    heap: list[tuple[float, int, WorkerRun]] = field(default_factory=list)
    """By priority. Runs that wait no longer stay in it until they come to the top, or are more than half of it."""
    heaped: set[WorkerRun] = field(default_factory=set)

    def add(self, run: WorkerRun, order: int) -> None:
        self.waiting[run] = order
        if run not in self.heaped:
            self.heaped.add(run)
            heapq.heappush(self.heap, (-run.workload.priority, order, run))

    def start_next(self) -> WorkerRun | None:
        """Move the run that asks next from waiting to asking; return None if no run is left to ask."""
        first = self._first()
        run = next((run for run in self.waiting if run is not first), None) if self.skip_first else first
        if run is not None:
            self.asking[run] = self.waiting.pop(run)
        return run

    def _first(self) -> WorkerRun | None:
        while self.heap and self.heap[0][2] not in self.waiting:
            self.heaped.discard(heapq.heappop(self.heap)[2])
        if len(self.heap) > 2 * len(self.waiting) + _MAX_ASKING:
            self.heap = [(-run.workload.priority, order, run) for run, order in self.waiting.items()]
            heapq.heapify(self.heap)
            self.heaped = set(self.waiting)
        return self.heap[0][2] if self.heap else None

    def start_round(self, now: float) -> Iterator[WorkerRun]:
        self.refused = False
        asking = [self.start_next() for _ in range(min(self.round_size, len(self.waiting)))]
        if not self.asking:  # another run than the first should ask, and there is none
            self.skip_first, self.next_round = False, now + _ROUND_EVERY_S
        return filter(None, asking)

    def end_round(self, now: float) -> None:
        if not self.refused:
            self.skip_first, self.round_size, self.next_round = False, min(_MAX_ASKING, self.round_size * 2), now
            return
        self.skip_first = self.round_size == 1 and not self.skip_first
        self.round_size, self.next_round = 1, now if self.skip_first else now + _ROUND_EVERY_S


class QuotaWaitList:
    """The runs that wait for quotas, by namespace. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._namespaces: dict[str, _NamespaceQueue] = {}
        self._order = itertools.count()

    def __bool__(self) -> bool:
        """Whether any run waits or asks."""
        return bool(self._namespaces)

    def hold(self, run: WorkerRun) -> QuotaExceeded | None:
        """Hold back a run that is about to ask, if others of its namespace wait; return the error that those got."""
        queue = self._namespaces.get(run.namespace)
        if queue is None or run in queue.asking:
            return None
        if run not in queue.waiting:
            queue.add(run, next(self._order))
        return queue.error

    def add_refused(self, run: WorkerRun, error: QuotaExceeded, now: float) -> None:
        """Add a run that a quota has refused, whether it was its turn or its request was already under way."""
        queue = self._namespaces.get(run.namespace)
        if queue is None:
            queue = self._namespaces[run.namespace] = _NamespaceQueue(error, now + _ROUND_EVERY_S)
        queue.error = error
        if (order := queue.asking.pop(run, None)) is None:
            queue.add(run, next(self._order))
            return
        queue.add(run, order)
        queue.refused = True
        self._end_round_if_answered(run.namespace, queue, now)

    def remove(self, run: WorkerRun, now: float) -> None:
        """Remove a run that no quota holds back: it was accepted, failed for another reason, or was revoked."""
        queue = self._namespaces.get(run.namespace)
        if queue is None:
            return
        queue.waiting.pop(run, None)
        if queue.asking.pop(run, None) is not None:
            self._end_round_if_answered(run.namespace, queue, now)

    def quota_freed(self, namespace: str, now: float) -> None:
        """Start the next round of a namespace now: one of its pods has ended and freed a part of the quota."""
        if (queue := self._namespaces.get(namespace)) is not None:
            queue.next_round = min(queue.next_round, now)

    def due(self, now: float) -> list[WorkerRun]:
        """Return the runs that ask now, and those that need not wait any more because they are revoked or created."""
        due: list[WorkerRun] = []
        for namespace, queue in list(self._namespaces.items()):
            if now < queue.next_round or queue.asking:
                continue
            outdated = [run for run in queue.waiting if run.revoked or run.stage is not RunStage.WAITING]
            for run in outdated:
                del queue.waiting[run]
            due += [*outdated, *queue.start_round(now)]
            if not queue.waiting and not queue.asking:
                del self._namespaces[namespace]
        return due

    def pause(self, now: float) -> float | None:
        """Return the seconds until a run is due, None if none is due before something changes."""
        times = [queue.next_round for queue in self._namespaces.values() if not queue.asking]
        return max(0.0, min(times) - now) if times else None

    def _end_round_if_answered(self, namespace: str, queue: _NamespaceQueue, now: float) -> None:
        if queue.asking:
            return
        queue.end_round(now)
        if not queue.waiting:
            del self._namespaces[namespace]
