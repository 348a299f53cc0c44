from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from typing import Any

import pytest

from crosswind.pods.workers import WorkerTask
from crosswind.runs.board import Board
from crosswind.runs.comparing import Comparer, judgement_of
from crosswind.runs.workloads import Run, Stage, Standing, Workload


def a_run(stage: Stage = Stage.CREATED, name: str = "u1", **fields: Any) -> Run:
    task = WorkerTask("dag", "task", "run", 1, name)
    run = Run(Workload(name, task, 1.0, lambda: b"{}", claim="claim"), task, -100.0, stage=stage)
    for field, value in fields.items():
        setattr(run, field, value)
    return run


@pytest.mark.parametrize(
    ("run", "standing", "judgement"),
    [
        (a_run(), Standing.QUEUED, "keep"),
        (a_run(), Standing.RUNNING, "keep"),
        (a_run(), Standing.SETTLED, "drop"),
        (a_run(), Standing.DELETED, "drop"),
        (a_run(), Standing.RESTARTING, "restart"),
        (a_run(), Standing.UNSERIALIZED, "restart"),
        (a_run(Stage.WAITING), Standing.SETTLED, "drop"),
        (a_run(Stage.WAITING), Standing.RESTARTING, "restart"),
        (a_run(Stage.CLAIMED), Standing.SETTLED, "drop"),
        (a_run(Stage.CLAIMED), Standing.RESTARTING, "keep"),
        (a_run(Stage.BEGUN), Standing.SETTLED, "keep"),
        (a_run(Stage.BEGUN), Standing.RESTARTING, "keep"),
        (a_run(Stage.BEGUN), Standing.DELETED, "drop"),
        (a_run(Stage.ENDED), Standing.DELETED, "keep"),
        (a_run(revoked=True), Standing.SETTLED, "keep"),
    ],
)
def test_what_becomes_of_a_pod_follows_from_its_row(run: Run, standing: Standing, judgement: str) -> None:
    assert judgement_of(run, standing) == judgement


class Ledger:
    """A database in which every row is settled; the first question fails."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def standings(self, workloads: Collection[Workload]) -> Mapping[Workload, Standing]:
        self.asked.append([str(workload.key) for workload in workloads])
        if len(self.asked) == 1:
            raise OSError("away")
        return dict.fromkeys(workloads, Standing.SETTLED)


async def test_all_that_wait_are_asked_about_until_the_database_answers() -> None:
    board, ledger, dropped = Board(), Ledger(), asyncio.Queue[Run]()
    now = asyncio.get_running_loop().time()
    runs = [a_run(name="waits"), a_run(Stage.BEGUN, "runs"), a_run(name="new", asked_at=now + 60)]
    foreign = a_run(name="a connection test")
    foreign.workload = Workload("a connection test", foreign.task, 1.0, None)
    for run in (*runs, foreign):
        board.add(run)
    comparer = Comparer(ledger, board, 0.05, drop=dropped.put_nowait, restart=dropped.put_nowait)  # type: ignore[arg-type]
    task = asyncio.create_task(comparer.run())
    try:
        async with asyncio.timeout(10):
            assert await dropped.get() is runs[0]
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert ledger.asked[:2] == [["waits"], ["waits"]]
