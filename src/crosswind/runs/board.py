"""What an engine knows of its runs, and the outcomes that wait to be fetched. Outlives the engine's restarts."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable

from crosswind.pods.workers import WorkerTask
from crosswind.runs.batches import Batch, Batches
from crosswind.runs.tallies import Tally
from crosswind.runs.workloads import End, Notice, Outcome, Released, Run, Stage

__all__ = ["Board"]

_NOTICE_AGAIN = 1800.0
"""Seconds after which the same reason is worth another row in the task's event log."""


class Board:
    """The runs of one engine. All but ``outbox`` (thread-safe) belongs to the engine's loop."""

    def __init__(self) -> None:
        self.outbox: deque[Outcome] = deque()
        self.runs: dict[str, Run] = {}
        self.pods: dict[tuple[str, str], Run] = {}
        self.batches = Batches()
        self.spent: list[Batch] = []
        """Batches whose Secret is to be deleted."""
        self.on_spent: Callable[[], None] = lambda: None
        """Called when there is one more of them."""
        self.tally = Tally()
        self.refusal = ""
        """Why nothing can be launched, or ""."""

    def add(self, run: Run) -> None:
        """Begin to know a run."""
        self.runs[run.unique] = run

    def rename(self, run: Run, task: WorkerTask) -> None:
        """Give a run another task, with another unique id."""
        self.runs.pop(run.unique, None)
        run.task = task
        self.add(run)

    def placed(self, run: Run, namespace: str, name: str) -> None:
        """Say which pod a run has."""
        run.namespace, run.name = namespace, name
        self.pods[namespace, name] = run

    def drop_if_over(self, run: Run) -> None:
        """Forget a run whose pod is gone and whose outcome is settled."""
        if not (run.gone and run.settled):
            return
        if self.runs.pop(run.unique, None) is not None:
            self.tally.over(run)
        if self.pods.get((run.namespace, run.name)) is run:
            del self.pods[run.namespace, run.name]

    def end(self, run: Run, end: End) -> None:
        """Mark a run as over. A success frees its slot now, a failure when the database was asked what it means."""
        run.ends(end, time.monotonic())
        if end.failed and not run.revoked:
            self.tally.count("crosswind.pod_failures", end.reason or "Unknown")
        if not end.failed and not run.revoked:
            self.outbox.append(Released(run.workload))
        self.release_batch(run)

    def release_batch(self, run: Run) -> None:
        """Say that a run needs its Secret no more."""
        if run.batch:
            self._spend(self.batches.over(run.namespace, run.batch, run.unique))
            run.batch = ""

    def decide_batch(self, batch: Batch) -> None:
        """Say that a Secret is there, or that nobody tries to create it any more."""
        self._spend(self.batches.decided(batch))

    def _spend(self, batch: Batch | None) -> None:
        if batch is not None:
            self.spent.append(batch)
            self.on_spent()

    def join_batch(self, run: Run, name: str) -> None:
        """Say that an adopted run needs a Secret."""
        run.batch = name
        self.batches.join(run.namespace, name, run.unique, run.workload.renew)

    def notice(self, run: Run, event: str, message: str, reason: str = "") -> None:
        """Report something to the task's author: when the reason changes, and the same one again after half an hour.

        Wordings change more often than reasons: a quota's message has the pods in use in it, the scheduler's the nodes.
        """
        now, topic, noticed = time.monotonic(), (event, reason), run.noticed or {}
        if not message or run.revoked or noticed.get(topic, -math.inf) > now - _NOTICE_AGAIN:
            return
        run.noticed = {**noticed, topic: now}
        self.outbox.append(Notice(run.workload, event, message))

    def at(self, *stages: Stage) -> Iterable[Run]:
        """Return the runs that are at one of these stages."""
        return [run for run in list(self.runs.values()) if run.stage in stages]  # also called from other threads
