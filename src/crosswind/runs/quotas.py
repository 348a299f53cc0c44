"""Runs that a used-up quota keeps from being created: one asks for all of its namespace. Decisions only, no waiting.

Two thousand pods that each try again every five seconds are 350 refused requests a second, for the API server and for
its admission plug-ins. Here the first in line asks, by priority; if it is refused, one of the others asks in turn, as a
smaller pod, or one of another quota scope, may fit where a large one does not. As soon as one is accepted, more ask.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from crosswind.errors import QuotaExceeded
from crosswind.runs.workloads import Run, Stage

__all__ = ["Quotas"]

_ASK_EVERY = 2.0
"""Seconds between two rounds in which nobody was accepted; a pod of ours that ends starts one at once."""

_MOST = 64
"""Runs that ask at a time, at most."""


@dataclass(slots=True)
class _Line:
    """Who waits in a namespace."""

    error: QuotaExceeded
    next_at: float
    waiting: dict[Run, int] = field(default_factory=dict)
    """Each with its place, the order in which they came; who has not asked for longest stands first."""
    asking: dict[Run, int] = field(default_factory=dict)
    count: int = 1
    """How many ask at a time."""
    others_turn: bool = False
    """Whether it is another one's turn, because the first in line was refused."""
    refused: bool = False
    """Whether somebody of this round was refused."""
    heap: list[tuple[float, int, Run]] = field(default_factory=list)
    """By priority; runs that do not wait any more are left out when they come to its top."""
    heaped: set[Run] = field(default_factory=set)

    def wait(self, run: Run, place: int) -> None:
        self.waiting[run] = place
        if run not in self.heaped:
            self.heaped.add(run)
            heapq.heappush(self.heap, (-run.workload.priority, place, run))

    def take(self) -> Run | None:
        """Take who asks next; None when there is nobody (else)."""
        first = self._first()
        run = next((one for one in self.waiting if one is not first), None) if self.others_turn else first
        if run is not None:
            self.asking[run] = self.waiting.pop(run)
        return run

    def _first(self) -> Run | None:
        while self.heap and self.heap[0][2] not in self.waiting:
            self.heaped.discard(heapq.heappop(self.heap)[2])
        return self.heap[0][2] if self.heap else None

    def begin_round(self, now: float) -> Iterator[Run]:
        self.refused = False
        asking = [self.take() for _ in range(min(self.count, len(self.waiting)))]
        if not self.asking:  # it would be another one's turn, and there is none
            self.others_turn, self.next_at = False, now + _ASK_EVERY
        return filter(None, asking)

    def end_round(self, now: float) -> None:
        if not self.refused:
            self.others_turn, self.count, self.next_at = False, min(_MOST, self.count * 2), now
            return
        self.others_turn = self.count == 1 and not self.others_turn
        self.count, self.next_at = 1, now if self.others_turn else now + _ASK_EVERY


class Quotas:
    """The runs that wait for quotas, by namespace. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._places = itertools.count()

    def __bool__(self) -> bool:
        """Whether anybody waits or asks."""
        return bool(self._lines)

    def hold(self, run: Run) -> QuotaExceeded | None:
        """Hold back a run that is about to ask, if others of its namespace wait; returns what these were told."""
        line = self._lines.get(run.namespace)
        if line is None or run in line.asking:
            return None
        if run not in line.waiting:
            line.wait(run, next(self._places))
        return line.error

    def refused(self, run: Run, error: QuotaExceeded, now: float) -> None:
        """Take a run that was refused, whether it was its turn or it had been on its way already."""
        line = self._lines.get(run.namespace)
        if line is None:
            line = self._lines[run.namespace] = _Line(error, now + _ASK_EVERY)
        line.error = error
        if (place := line.asking.pop(run, None)) is None:
            line.wait(run, next(self._places))
            return
        line.wait(run, place)
        line.refused = True
        self._answered(run.namespace, line, now)

    def left(self, run: Run, now: float) -> None:
        """Say that no quota has refused a run that asked: it was accepted, has failed otherwise, or is revoked."""
        line = self._lines.get(run.namespace)
        if line is None:
            return
        line.waiting.pop(run, None)
        if line.asking.pop(run, None) is not None:
            self._answered(run.namespace, line, now)

    def freed(self, namespace: str, now: float) -> None:
        """Say that a pod of a namespace is over, and its part of the quota free."""
        if (line := self._lines.get(namespace)) is not None:
            line.next_at = min(line.next_at, now)

    def due(self, now: float) -> list[Run]:
        """Return the runs that ask now, and those that wait for nothing any more, being revoked or created."""
        found = []
        for namespace, line in list(self._lines.items()):
            if now < line.next_at or line.asking:
                continue
            past = [run for run in line.waiting if run.revoked or run.stage is not Stage.WAITING]
            for run in past:
                del line.waiting[run]
            found += [*past, *line.begin_round(now)]
            if not line.waiting and not line.asking:
                del self._lines[namespace]
        return found

    def pause(self, now: float) -> float | None:
        """Return the seconds until somebody is due, None for not before something changes."""
        times = [line.next_at for line in self._lines.values() if not line.asking]
        return max(0.0, min(times) - now) if times else None

    def _answered(self, namespace: str, line: _Line, now: float) -> None:
        """Decide on the next round when all who asked have their answer."""
        if line.asking:
            return
        line.end_round(now)
        if not line.waiting:
            del self._lines[namespace]
