"""Outcomes are told until the metadata database agrees. It is asked in batches, in a thread of its own."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable
from typing import Literal

from crosswind.runs.board import Board
from crosswind.runs.threads import CallThread
from crosswind.runs.workloads import End, Ended, Ledger, Notice, Released, Report, Run, Standing, State
from crosswind.settings import EngineSettings

__all__ = ["Settler", "verdict_of"]

log = logging.getLogger(__name__)

_GATHER = 0.05
"""Seconds to wait for more to ask about."""
_LARGEST = 500
"""Workloads per query: SQLite takes 999 parameters."""
_DATABASE_DOWN = 5.0
_NOT_YET = 1.0
_RELAUNCHES_TOLD = 10
_RESTARTING = 3.0
"""Seconds until SUCCESS is told again: the next try of a cleared task waits for it."""


def verdict_of(
    run: Run, standing: Standing, settings: EngineSettings
) -> Literal["settled", "relaunch", "again"] | State:
    """Decide what is to be said of a run that is over, from what the database says.

    ``again``: the task is scheduled once more, for want of what a new pod would need, or of a DAG with which Airflow
    could do it.
    """
    if standing in (Standing.SETTLED, Standing.DELETED):
        return "settled"
    if standing is Standing.RESTARTING:
        return State.SUCCESS  # core then runs it again; FAILED would cost the retry delay
    end = run.end or End(failed=False)
    if end.lost or standing is Standing.UNSERIALIZED:
        return "again"
    if run.workload.exit_decides and not end.failed:
        return State.SUCCESS
    may = end.may_relaunch and run.report is Report.OPEN
    left = settings.launch_retries < 0 or run.attempt < settings.launch_retries
    if may and left and standing is Standing.QUEUED and end.reason not in settings.launch_retry_excluded:
        return "again" if run.workload.payload is None else "relaunch"
    return State.FAILED


def _why_again(run: Run) -> tuple[str, str]:
    """Return the event and the message for the author of a task that is scheduled once more."""
    if run.end is not None and run.end.lost:
        return "pod lost", run.message
    if run.workload.payload is None and run.end is not None and run.end.may_relaunch:
        return "pod relaunched", run.message
    return "task reset", "It was cleared while it ran, and its DAG has no such task (yet): it runs once the DAG has it"


class Settler:
    """Tells outcomes.

    ``relaunch`` gets the runs whose task never began and may have another pod, ``delete`` those whose pod must not stay
    because their task instance was deleted.
    """

    def __init__(
        self,
        ledger: Ledger,
        board: Board,
        settings: EngineSettings,
        relaunch: Callable[[Run], None],
        delete: Callable[[Run], None] = lambda run: None,
    ) -> None:
        self._ledger = ledger
        self._board = board
        self._settings = settings
        self._relaunch = relaunch
        self._delete = delete
        self._due: list[tuple[float, int, Run]] = []
        self._order = itertools.count()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._due)

    def put(self, run: Run, delay: float = _GATHER) -> None:
        """Ask about a run in ``delay`` seconds."""
        heapq.heappush(self._due, (asyncio.get_running_loop().time() + delay, next(self._order), run))
        self._changed.set()

    async def run(self) -> None:
        """Settle until cancelled."""
        thread = CallThread("crosswind-ledger")
        try:
            while True:
                await self._next_due()
                await self._settle(self._take(), thread)
        finally:
            thread.close()

    async def _next_due(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._due or self._due[0][0] > loop.time():
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), self._due[0][0] - loop.time() if self._due else None)
            except TimeoutError:
                continue

    def _take(self) -> list[Run]:
        now = asyncio.get_running_loop().time()
        runs: list[Run] = []
        while self._due and self._due[0][0] <= now and len(runs) < _LARGEST:
            run = heapq.heappop(self._due)[2]
            if not (run.settled or run.revoked):
                runs.append(run)
        return runs

    async def _settle(self, runs: list[Run], thread: CallThread) -> None:
        if not runs:
            return
        try:
            found = await thread.call(self._ledger.standings, [run.workload for run in runs])
        except Exception:
            log.exception("The metadata database could not be asked about %d ended tasks; asking again", len(runs))
            for run in runs:
                self.put(run, _DATABASE_DOWN)
            return
        decided = [(run, verdict_of(run, found.get(run.workload, Standing.SETTLED), self._settings)) for run in runs]
        for run, verdict in decided:
            if found.get(run.workload) is Standing.DELETED:
                self._delete(run)
            self._act(run, verdict, thread)
        if again := [run for run, verdict in decided if verdict == "again"]:
            await self._schedule_again(again, thread)

    def _act(self, run: Run, verdict: str, thread: CallThread) -> None:
        if run.settled or run.revoked or verdict == "again":
            return
        if isinstance(verdict, State):
            self._tell(run, verdict, thread)
        elif verdict == "relaunch":
            several = run.attempt < _RELAUNCHES_TOLD  # each is worth a row, but not without end
            self._board.notice(run, "pod relaunched", run.message, f"{run.attempt}" if several else run.reason)
            self._relaunch(run)
            self._close(run)
        else:
            self._board.outbox.append(Released(run.workload))
            self._close(run)

    def _close(self, run: Run) -> None:
        run.settle()
        self._board.drop_if_over(run)

    async def _schedule_again(self, runs: list[Run], thread: CallThread) -> None:
        """Have tasks scheduled once more; those whose rows are locked, or not ours yet, are asked about again soon."""
        try:
            done = await thread.call(self._ledger.again, [run.workload for run in runs])
        except Exception:
            log.exception("%d tasks could not be scheduled once more; trying again", len(runs))
            done = ()
        for run in runs:
            if run.settled or run.revoked:
                continue
            if run.workload in done:
                self._board.notice(run, *_why_again(run))
                self._act(run, "settled", thread)
            else:
                self.put(run, min(_NOT_YET, self._settings.settle_interval))

    def _tell(self, run: Run, state: State, thread: CallThread) -> None:
        message = run.message if run.failed else f"{run.message}, but Airflow was not told how the task ended."
        if state is State.FAILED and run.report is Report.OPEN:
            self._board.outbox.append(Notice(run.workload, "pod failed", message))
            thread.submit(self._report, run, message)
        run.was_told()
        self._board.outbox.append(Ended(run.workload, state, message))
        interval = self._settings.settle_interval
        self.put(run, interval if state is State.FAILED else min(interval, _RESTARTING))

    def _report(self, run: Run, message: str) -> None:
        try:
            self._ledger.report(run.workload, message)
        except Exception:
            log.exception("The reason could not be written into the log of %s", run.unique)
