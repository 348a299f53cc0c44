"""Compares runs that have not started with the database: a pending pod cannot notice that its task was cleared.

A worker that has started learns from its heartbeats that its task was cleared, marked or deleted, and ends by itself.
While the watch is silent, such a worker may start and end unseen. Then the database shows that it has started, and its
pod stays until it ends by itself: it holds the log, and the settings decide what happens to it.

``UnstartedPodReconciler.run`` is one loop with a thread for its queries; both end when it is cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from typing import Literal

from crosswind.engine.database import DatabaseState, MetadataDatabase
from crosswind.engine.lifecycle import RunLifecycle
from crosswind.engine.state import RunStage, WorkerRun
from crosswind.event_loop import BlockingCallThread

__all__ = ["UnstartedPodReconciler", "decide_unstarted"]

log = logging.getLogger(__name__)

_COMPARE_RUNNING_EVERY = 6
"""Every n-th comparison includes the runs that have started."""
_RUNS_PER_QUERY = 500
"""SQLite takes 999 parameters."""

_UNSTARTED = RunStage.ADOPTING, RunStage.WAITING, RunStage.CREATED


def decide_unstarted(run: WorkerRun, state: DatabaseState) -> Literal["keep", "drop", "release", "started", "restart"]:
    """Decide what happens to a run that has not ended, given what the database says.

    ``drop``: delete the pod, report nothing. ``release``: free the slot, and leave the pod to the watch. ``started``:
    the pod runs, or has run, unseen; its end is reported as that of any other. ``restart``: delete the pod, then report
    that the cleared task has ended.
    """
    if run.revoked or run.stage is RunStage.ENDED:
        return "keep"
    if state is DatabaseState.DELETED:
        return "drop"  # also if it has started: a worker that hangs sends no heartbeats
    if run.stage not in _UNSTARTED or run.settled:
        return "keep"
    if state is DatabaseState.SETTLED_AFTER_START and _may_have_started(run):
        return "release"
    if state in (DatabaseState.SETTLED, DatabaseState.SETTLED_AFTER_START):
        return "drop"
    if state in (DatabaseState.RESTARTING, DatabaseState.UNSERIALIZED) and run.stage is not RunStage.ADOPTING:
        return _of_cleared(run)
    return "keep"


def _of_cleared(run: WorkerRun) -> Literal["keep", "started", "restart"]:
    """Decide what happens to a run whose task was cleared while it ran, as the row says: some pod has started it."""
    if not _may_have_started(run) or run.attempt:
        # It may be an earlier pod that has asked Airflow to start the task. This one may wait for a node, and learns of
        # nothing while it waits.
        return "restart"
    # A claim that is given up ends with its pod, whose deletion is under way.
    return "keep" if run.claim is not None and run.claim.given_up else "started"


def _may_have_started(run: WorkerRun) -> bool:
    """Whether it may be the run's own pod that started the task: there is one, and no other pod has had the task."""
    return run.stage is not RunStage.WAITING and not run.failed_claims


class UnstartedPodReconciler:
    """Asks the database every ``interval`` seconds about all runs that have not started."""

    def __init__(self, database: MetadataDatabase, lifecycle: RunLifecycle, interval: float) -> None:
        self._database = database
        self._lifecycle = lifecycle
        self._interval = interval
        self._rounds = 0

    async def run(self) -> None:
        """Compare until cancelled."""
        thread, loop = BlockingCallThread("crosswind-unstarted-pods"), asyncio.get_running_loop()
        try:
            due = loop.time()
            while True:
                due = max(due + self._interval, loop.time())
                await asyncio.sleep(due - loop.time())
                await self.compare(thread)
        finally:
            thread.close()

    async def compare(self, thread: BlockingCallThread) -> None:
        """Compare once. If the database does not answer, the next comparison catches up."""
        self._rounds += 1
        for runs in self._batches():
            try:
                states = await thread.call(self._database.workload_states, [run.workload for run in runs])
            except Exception as error:
                log.warning("Pods could not be compared with the metadata database, retrying: %s", error)
                return
            for run in runs:
                self._apply(run, states.get(run.workload, DatabaseState.QUEUED))

    def _batches(self) -> Iterator[Sequence[WorkerRun]]:
        """Yield the runs to ask about. A new run is left out: the scheduler may not have committed its row yet."""
        before = asyncio.get_running_loop().time() - self._interval / 2
        stages = [*_UNSTARTED, RunStage.RUNNING] if self._rounds % _COMPARE_RUNNING_EVERY == 0 else _UNSTARTED
        runs = [
            run
            for run in self._lifecycle.registry.at(*stages)
            if run.workload.ref is not None and not run.revoked and run.times.requested <= before
        ]
        return (runs[start : start + _RUNS_PER_QUERY] for start in range(0, len(runs), _RUNS_PER_QUERY))

    def _apply(self, run: WorkerRun, state: DatabaseState) -> None:
        decision = decide_unstarted(run, state)
        if decision == "drop":
            log.info("Pod %s is deleted: its task was cleared, marked or deleted", run.pod_path)
            self._lifecycle.drop(run)
        elif decision == "release":
            log.info("The task of pod %s ended before the pod was observed to start", run.pod_path)
            self._lifecycle.release_slot(run)
        elif decision == "started":
            log.info("The task of pod %s was cleared before the pod was seen to start", run.pod_path)
            self._lifecycle.started_unseen(run)
        elif decision == "restart":
            self._lifecycle.restart(run)
