"""Comparing pods that have not started with the database: a Pending pod never notices that nobody wants it any more.

A worker that has started learns from its heartbeats that its task was cleared, marked or deleted, and ends by itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from crosswind.runs.board import Board
from crosswind.runs.threads import CallThread
from crosswind.runs.workloads import Ledger, Run, Stage, Standing

__all__ = ["Comparer", "judgement_of"]

log = logging.getLogger(__name__)

_STARTED_EVERY = 6
"""Comparisons of pods that have not started, per one of all pods."""
_LARGEST = 500
"""Workloads per query."""

_WAITING = Stage.CLAIMED, Stage.WAITING, Stage.CREATED


def judgement_of(run: Run, standing: Standing) -> Literal["keep", "drop", "restart"]:
    """Decide what becomes of a run whose base container is not over, from what the database says.

    ``drop``: without an outcome, and its pod is deleted. ``restart``: its pod is deleted, and Airflow is told then that
    the cleared task has ended.
    """
    if run.revoked or run.stage is Stage.ENDED:
        return "keep"
    if standing is Standing.DELETED:
        return "drop"  # started too: a worker that is stuck never asks for its task instance
    if run.stage not in _WAITING:
        return "keep"
    if standing is Standing.SETTLED:
        return "drop"
    if standing in (Standing.RESTARTING, Standing.UNSERIALIZED) and run.stage is not Stage.CLAIMED:
        return "restart"
    return "keep"


class Comparer:
    """Asks the database about all runs that have not started, now and then.

    ``drop`` and ``restart`` do with a run what ``judgement_of`` says.
    """

    def __init__(
        self,
        ledger: Ledger,
        board: Board,
        interval: float,
        *,
        drop: Callable[[Run], None],
        restart: Callable[[Run], None],
    ) -> None:
        self._ledger = ledger
        self._board = board
        self._interval = interval
        self._drop = drop
        self._restart = restart
        self._rounds = 0

    async def run(self) -> None:
        """Compare until cancelled."""
        thread, loop = CallThread("crosswind-comparing"), asyncio.get_running_loop()
        try:
            due = loop.time()
            while True:
                due = max(due + self._interval, loop.time())
                await asyncio.sleep(due - loop.time())
                await self.compare(thread)
        finally:
            thread.close()

    async def compare(self, thread: CallThread) -> None:
        """Compare once; when the database does not answer, the next comparison makes up for it."""
        self._rounds += 1
        for runs in self._slices():
            try:
                found = await thread.call(self._ledger.standings, [run.workload for run in runs])
            except Exception as error:
                log.warning("Pods could not be compared with the metadata database; trying again: %s", error)
                return
            for run in runs:
                self._act(run, found.get(run.workload, Standing.QUEUED))

    def _slices(self) -> Iterator[Sequence[Run]]:
        """Yield the runs to ask about; of one that is new the scheduler may not have committed the row yet."""
        before = asyncio.get_running_loop().time() - self._interval / 2
        stages = [*_WAITING, Stage.BEGUN] if self._rounds % _STARTED_EVERY == 0 else _WAITING
        runs = [
            run
            for run in self._board.at(*stages)
            if run.workload.claim is not None and not run.revoked and run.asked_at <= before
        ]
        return (runs[start : start + _LARGEST] for start in range(0, len(runs), _LARGEST))

    def _act(self, run: Run, standing: Standing) -> None:
        judgement = judgement_of(run, standing)
        if judgement == "drop":
            log.info("Pod %s is not wanted any more: its task was cleared, marked or deleted", run.where)
            self._drop(run)
        elif judgement == "restart":
            self._restart(run)
