from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping

import pytest

from crosswind.pods.workers import WorkerTask
from crosswind.runs.board import Board
from crosswind.runs.settling import Settler, verdict_of
from crosswind.runs.workloads import (
    End,
    Ended,
    Notice,
    Pod,
    Position,
    Released,
    Report,
    Run,
    Stage,
    Standing,
    State,
    Workload,
)
from crosswind.settings import EngineSettings

SETTINGS = EngineSettings("7", settle_interval=0.02)


def a_run(
    *,
    failed: bool = True,
    reason: str = "Evicted",
    exit_decides: bool = False,
    adopted: bool = False,
    may_relaunch: bool = True,
    lost: bool = False,
    **fields: object,
) -> Run:
    task = WorkerTask("dag", "task", "run", 1, "u1")
    payload = None if adopted else lambda: b"{}"
    run = Run(Workload("key", task, 1.0, payload, exit_decides=exit_decides), task, 0.0, stage=Stage.ENDED)
    run.end = End(failed=failed, reason=reason, message="because", may_relaunch=may_relaunch, lost=lost)
    for name, value in fields.items():
        setattr(run, name, value)
    return run


@pytest.mark.parametrize(
    ("run", "standing", "said"),
    [
        (a_run(failed=False), Standing.SETTLED, "settled"),
        (a_run(), Standing.SETTLED, "settled"),
        (a_run(failed=False), Standing.RUNNING, State.FAILED),
        (a_run(failed=False, exit_decides=True), Standing.RUNNING, State.SUCCESS),
        (a_run(exit_decides=True), Standing.RUNNING, State.FAILED),
        (a_run(), Standing.RESTARTING, State.SUCCESS),
        (a_run(failed=False), Standing.RESTARTING, State.SUCCESS),
        (a_run(), Standing.UNSERIALIZED, "again"),
        (a_run(failed=False), Standing.UNSERIALIZED, "again"),
        (a_run(), Standing.DELETED, "settled"),
        (a_run(), Standing.RUNNING, State.FAILED),
        (a_run(), Standing.QUEUED, "relaunch"),
        (a_run(attempt=1), Standing.QUEUED, State.FAILED),
        (a_run(reason="Error"), Standing.QUEUED, State.FAILED),
        (a_run(may_relaunch=False), Standing.QUEUED, State.FAILED),
        (a_run(report=Report.TOLD), Standing.QUEUED, State.FAILED),
        (a_run(adopted=True), Standing.QUEUED, "again"),
        (a_run(adopted=True), Standing.RUNNING, State.FAILED),
        (a_run(adopted=True, attempt=1), Standing.QUEUED, State.FAILED),
        (a_run(adopted=True, lost=True), Standing.QUEUED, "again"),
        (a_run(adopted=True, lost=True), Standing.RUNNING, "again"),
        (a_run(adopted=True, lost=True), Standing.RESTARTING, State.SUCCESS),
        (a_run(adopted=True, lost=True), Standing.SETTLED, "settled"),
    ],
)
def test_what_is_said_follows_from_the_run_and_the_database(run: Run, standing: Standing, said: object) -> None:
    assert verdict_of(run, standing, SETTINGS) == said


class Ledger:
    """A database that changes its mind after some questions."""

    def __init__(self, *answers: Standing | Exception) -> None:
        self.answers = list(answers)
        self.reports: list[str] = []
        self.agains: list[int] = []

    def standings(self, workloads: Collection[Workload]) -> Mapping[Workload, Standing]:
        answer = self.answers.pop(0) if self.answers else Standing.SETTLED
        if isinstance(answer, Exception):
            raise answer
        return dict.fromkeys(workloads, answer)

    def living(self) -> Collection[str]:
        return ()

    def report(self, workload: Workload, message: str) -> None:
        self.reports.append(message)

    def again(self, workloads: Collection[Workload]) -> Collection[Workload]:
        """Succeed at the second attempt, as where a row is locked."""
        self.agains.append(len(workloads))
        return workloads if len(self.agains) > 1 else ()

    def remember(self, positions: Collection[Position]) -> None:
        raise AssertionError

    def positions(self, server: str, within: float) -> Collection[Position]:
        raise AssertionError


@contextlib.asynccontextmanager
async def settling(ledger: Ledger, board: Board, relaunched: list[Run] | None = None) -> AsyncIterator[Settler]:
    settler = Settler(ledger, board, SETTINGS, (relaunched if relaunched is not None else []).append)
    task = asyncio.create_task(settler.run())
    try:
        yield settler
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until_settled(board: Board, run: Run) -> list[object]:
    async with asyncio.timeout(5):
        while not run.settled:  # noqa: ASYNC110 - the settler itself never ends
            await asyncio.sleep(0.005)
    return list(board.outbox)


async def test_an_outcome_is_told_until_the_database_agrees() -> None:
    board, run, ledger = Board(), a_run(), Ledger(Standing.RUNNING, Standing.RUNNING, Standing.SETTLED)
    async with settling(ledger, board) as settler:
        settler.put(run)
        outcomes = await until_settled(board, run)
    assert [type(outcome) for outcome in outcomes] == [Notice, Ended, Ended, Released]
    assert ledger.reports == ["because"]


async def test_a_success_that_the_database_knows_is_no_event() -> None:
    board, run = Board(), a_run(failed=False)
    async with settling(Ledger(Standing.SETTLED), board) as settler:
        settler.put(run)
        outcomes = await until_settled(board, run)
    assert [type(outcome) for outcome in outcomes] == [Released]


async def test_a_pod_that_never_began_gets_a_successor_and_the_author_reads_why() -> None:
    board, run, relaunched = Board(), a_run(), []
    async with settling(Ledger(Standing.QUEUED), board, relaunched) as settler:
        settler.put(run)
        outcomes = await until_settled(board, run)
    assert relaunched == [run]
    assert [(type(outcome), outcome.message) for outcome in outcomes] == [(Notice, "because")]  # type: ignore[attr-defined]


async def test_a_revoked_run_is_not_told() -> None:
    board, run = Board(), a_run(revoked=True)
    follower = a_run()
    async with settling(Ledger(Standing.RUNNING, Standing.SETTLED), board) as settler:
        settler.put(run)
        settler.put(follower)
        await until_settled(board, follower)
    assert all(outcome.workload is follower.workload for outcome in board.outbox)


async def test_a_lost_run_is_scheduled_again_when_its_row_lets_it() -> None:
    ledger, board = Ledger(*[Standing.RUNNING] * 2), Board()
    run = a_run(adopted=True, lost=True, pod=Pod.GONE)
    async with settling(ledger, board) as settler:
        settler.put(run)
        outcomes = await until_settled(board, run)
    assert [type(outcome) for outcome in outcomes] == [Notice, Released]
    assert ledger.agains == [1, 1]
