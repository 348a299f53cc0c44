"""Reports the end of runs to Airflow again and again, until the metadata database agrees.

Airflow drops an executor's event when the task instance's row is locked, so one report is not enough.
``OutcomeReconciler.run`` is one loop with a thread for its queries and one for the tasks' logs; all end when it is
cancelled. The registry keeps the runs whose end is not settled, and the engine puts them into the next reconciler.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from crosswind.engine.claim_outcome import CLAIM_NOT_STARTED, late_start_result
from crosswind.engine.database import DatabaseState, MetadataDatabase
from crosswind.engine.lifecycle import RunLifecycle
from crosswind.engine.state import (
    FinalState,
    ReportState,
    RunResult,
    SlotReleased,
    TaskEvent,
    WorkerRun,
    Workload,
    WorkloadEnded,
)
from crosswind.event_loop import BlockingCallThread
from crosswind.settings import EngineSettings

__all__ = ["OutcomeReconciler", "decide_outcome"]

log = logging.getLogger(__name__)

_GATHER_S = 0.05
"""Seconds to wait for more runs, so that one query asks about all of them."""
_RUNS_PER_QUERY = 500
"""SQLite takes 999 parameters."""
_DATABASE_DOWN_S = 5.0
_LOSSES_PER_CALL = 20
"""Lost tries that are replaced in one call: their slots are free after it, and other ends are reported meanwhile."""
_LOCKED_ROW_S = 1.0
"""Seconds until a task that could not be rescheduled is retried."""
_REPORT_RESTART_EVERY_S = 3.0
"""Seconds until SUCCESS is reported again for a cleared task: its next try waits for that."""
_RELAUNCH_EVENTS = 10
"""Relaunches of a task that each get an event of their own."""


Decision = Literal["settled", "relaunch", "reschedule", "replace"] | FinalState


def decide_outcome(run: WorkerRun, state: DatabaseState, settings: EngineSettings) -> Decision:
    """Decide what to report for an ended run, given what the database says.

    ``reschedule``: Airflow schedules the task again, because the engine lacks what a relaunch needs, or because Airflow
    lacks the DAG with which it would run the task again by itself. ``replace``: the cluster took the pod of a task that
    may have begun, so that it needs another try.
    """
    match state:
        case DatabaseState.SETTLED | DatabaseState.SETTLED_AFTER_START | DatabaseState.DELETED:
            return "settled"
        case DatabaseState.RESTARTING:
            return FinalState.SUCCESS  # Airflow then runs it again; FAILED would add the retry delay
        case DatabaseState.UNSERIALIZED:
            return "reschedule"
    result = run.result or RunResult(failed=False)
    if not run.began and state is DatabaseState.QUEUED:
        return _start_again(run)  # the claimed pod never started the task, which costs no attempt
    if result.lost:
        return "reschedule"
    if run.workload.exit_decides and not result.failed:
        return FinalState.SUCCESS
    if run.report is not ReportState.PENDING:
        return FinalState.FAILED
    if state is DatabaseState.QUEUED and _may_relaunch(run, result, settings):
        return _start_again(run)
    return "replace" if result.loss else FinalState.FAILED


def _start_again(run: WorkerRun) -> Decision:
    """Give the same try another pod, which takes the workload."""
    return "reschedule" if run.workload.payload is None else "relaunch"


def _may_relaunch(run: WorkerRun, result: RunResult, settings: EngineSettings) -> bool:
    """Whether another pod may run the same try, of a task that never began."""
    attempts = run.attempt - len(run.failed_claims)
    has_attempts = settings.launch_retries < 0 or attempts < settings.launch_retries
    return result.may_relaunch and has_attempts and result.reason not in settings.launch_retry_excluded


def _reschedule_event(run: WorkerRun) -> tuple[str, str]:
    """Return the event and the message for the author of a rescheduled task."""
    if run.result is not None and run.result.lost:
        return "pod lost", run.message
    if run.workload.payload is None and run.result is not None and run.result.may_relaunch:
        return "pod relaunched", run.message
    return (
        "task reset",
        "The task was cleared while it ran, and its DAG does not contain it (yet); it runs once the DAG does",
    )


class OutcomeReconciler:
    """Reports ended runs, and asks ``database`` whether each report has arrived."""

    def __init__(self, database: MetadataDatabase, lifecycle: RunLifecycle, settings: EngineSettings) -> None:
        self._database = database
        self._lifecycle = lifecycle
        self._registry = lifecycle.registry
        self._settings = settings
        self._due: list[tuple[float, int, WorkerRun]] = []
        self._order = itertools.count()
        self._lost: deque[WorkerRun] = deque()
        """Runs whose tries are to be replaced, in the order of their ends."""
        self._changed = asyncio.Event()
        self._logs = BlockingCallThread("crosswind-task-logs")  # a slow log volume must not delay the queries

    def __len__(self) -> int:
        return len(self._due) + len(self._lost)

    def put(self, run: WorkerRun, delay: float = _GATHER_S) -> None:
        """Ask about a run in ``delay`` seconds."""
        heapq.heappush(self._due, (asyncio.get_running_loop().time() + delay, next(self._order), run))
        self._changed.set()

    async def run(self) -> None:
        """Reconcile until cancelled."""
        thread = BlockingCallThread("crosswind-outcomes")
        try:
            while True:
                if not self._lost:
                    await self._wait_until_due()
                await self._reconcile(self._take_due(), thread)
                await self._replace_lost(thread)
        finally:
            thread.close()
            self._logs.close()

    async def _wait_until_due(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._due or self._due[0][0] > loop.time():
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), self._due[0][0] - loop.time() if self._due else None)
            except TimeoutError:
                continue

    def _take_due(self) -> list[WorkerRun]:
        now = asyncio.get_running_loop().time()
        runs: list[WorkerRun] = []
        while self._due and self._due[0][0] <= now and len(runs) < _RUNS_PER_QUERY:
            run = heapq.heappop(self._due)[2]
            if not (run.settled or run.revoked):
                runs.append(run)
        return runs

    async def _reconcile(self, runs: list[WorkerRun], thread: BlockingCallThread) -> None:
        if not runs:
            return
        try:
            states = await self._read_states(runs, thread)
        except Exception:  # whatever the error is, the runs must be reported in the end
            log.exception("The metadata database could not be asked about %d ended tasks, retrying", len(runs))
            for run in runs:
                self.put(run, _DATABASE_DOWN_S)
            return
        decisions = [
            (run, decide_outcome(run, states.get(run.workload, DatabaseState.SETTLED), self._settings)) for run in runs
        ]
        for run, decision in decisions:
            # A deleted task instance leaves nothing behind: even a pod that the settings would keep is deleted.
            if states.get(run.workload) is DatabaseState.DELETED:
                self._lifecycle.delete_pod(run)
            self._apply(run, decision)
        if to_reschedule := [run for run, decision in decisions if decision == "reschedule"]:
            await self._reschedule(to_reschedule, thread)
        self._lost += [run for run, decision in decisions if decision == "replace"]

    async def _read_states(self, runs: list[WorkerRun], thread: BlockingCallThread) -> Mapping[Workload, DatabaseState]:
        """Ask what the database says, and give runs whose tasks an earlier pod has started the result of that."""
        states = await thread.call(self._database.workload_states, [run.workload for run in runs])
        late = [run for run in runs if run.failed_claims and states.get(run.workload) is DatabaseState.RUNNING]
        if late:
            hosts = await thread.call(self._database.hosts, [run.workload for run in late])
            for run in late:
                run.result = late_start_result(run, hosts.get(run.workload, "")) or run.result
        return states

    def _apply(self, run: WorkerRun, decision: str) -> None:
        if run.settled or run.revoked or decision in ("reschedule", "replace"):
            return  # it was revoked while the query ran, or another query follows
        if isinstance(decision, FinalState):
            self._report(run, decision)
        elif decision == "relaunch":
            # The reason is part of what makes an event new: the attempt gives each of the first relaunches its own.
            reason = f"{run.attempt}" if run.attempt < _RELAUNCH_EVENTS else run.reason
            self._registry.send_event(run, "pod relaunched", run.message, reason)
            self._lifecycle.relaunch(run)
            self._lifecycle.settle(run)
        else:
            self._release(run)

    def _release_for_next_try(self, run: WorkerRun) -> None:
        # If the next try claimed a pod too, it would meet the same busy Airflow; a few such tries exhaust
        # ``infra_retries``.
        if run.result is not None and run.result.reason == CLAIM_NOT_STARTED:
            self._registry.start_next_try_cold(run.task)
        self._release(run)

    def _release(self, run: WorkerRun) -> None:
        self._registry.outbox.append(SlotReleased(run.workload))
        self._lifecycle.settle(run)

    async def _reschedule(self, runs: list[WorkerRun], thread: BlockingCallThread) -> None:
        """Have Airflow schedule tasks again. Those whose rows are locked, or not ours yet, are retried soon."""
        try:
            rescheduled = await thread.call(self._database.reschedule, [run.workload for run in runs])
        except Exception:
            log.exception("%d tasks could not be rescheduled, retrying", len(runs))
            rescheduled = ()
        for run in runs:
            if run.settled or run.revoked:
                continue
            if run.workload in rescheduled:
                self._registry.send_event(run, *_reschedule_event(run))
                self._release_for_next_try(run)
            else:
                self.put(run, min(_LOCKED_ROW_S, self._settings.settle_interval))

    async def _replace_lost(self, thread: BlockingCallThread) -> None:
        """Give the next tasks whose pods the cluster took another try; fail those that get none.

        A node takes hundreds of pods at once. So the others wait for the next step, behind the ends that came meanwhile
        and before later losses. A row that is locked, or has changed, is asked about again soon.
        """
        step = (self._lost.popleft() for _ in range(min(_LOSSES_PER_CALL, len(self._lost))))
        runs = [run for run in step if not (run.settled or run.revoked)]
        if not runs:
            return
        messages = {run.workload: run.message for run in runs}
        try:
            tries = await thread.call(self._database.replace_lost, messages)
        except Exception:
            log.exception("%d tasks whose pods were lost could not be scheduled again, retrying", len(runs))
            tries = {}
        for run in runs:
            lost_try = tries.get(run.workload)
            if run.settled or run.revoked:
                continue
            if lost_try is None:
                self.put(run, min(_LOCKED_ROW_S, self._settings.settle_interval))
            elif lost_try.refusal:
                assert run.result is not None
                run.result = replace(run.result, message=f"{run.message}. It gets no further try: {lost_try.refusal}")
                self._report(run, FinalState.FAILED)
            else:
                assert run.result is not None
                self._lifecycle.metrics.count("crosswind.losses", run.result.loss)
                self._logs.submit(self._write_task_log, run, run.message)
                self._release_for_next_try(run)

    def _report(self, run: WorkerRun, state: FinalState) -> None:
        message = run.message if run.failed else f"{run.message}, but Airflow received no report of the task's outcome."
        # The event and the log line are written with the first report alone, the report itself until it has arrived.
        if state is FinalState.FAILED and run.report is ReportState.PENDING:
            self._registry.outbox.append(TaskEvent(run.workload, "pod failed", message))
            self._logs.submit(self._write_task_log, run, message)
        run.mark_reported()
        self._registry.outbox.append(WorkloadEnded(run.workload, state, message))
        interval = self._settings.settle_interval
        self.put(run, interval if state is FinalState.FAILED else min(interval, _REPORT_RESTART_EVERY_S))

    def _write_task_log(self, run: WorkerRun, message: str) -> None:
        try:
            self._database.write_task_log(run.workload, message)
        except OSError as error:  # a full volume, an id too long for a file's name: the event log has it
            log.warning("The reason could not be written into the log of %s: %s", run.unique_id, error)
        except Exception:
            log.exception("The reason could not be written into the log of %s", run.unique_id)
