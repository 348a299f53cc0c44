from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping
from typing import Any

import pytest
from tests.engine.recording import RecordedLifecycle

from crosswind.engine.database import DatabaseState
from crosswind.engine.state import (
    PodClaim,
    PodDisposition,
    ReportState,
    RunStage,
    RunTimes,
    SlotReleased,
    WorkerRun,
    Workload,
)
from crosswind.engine.unstarted_pods import UnstartedPodReconciler, decide_unstarted
from crosswind.engine.worker_pod import WorkerTask
from crosswind.event_loop import BlockingCallThread
from deadlines import scaled


def a_run(stage: RunStage = RunStage.CREATED, name: str = "u1", **fields: Any) -> WorkerRun:
    task = WorkerTask("dag", "task", "run", 1, name)
    run = WorkerRun(Workload(name, task, 1.0, lambda: b"{}", ref="row"), task, RunTimes(-100.0), stage=stage)
    for field, value in fields.items():
        setattr(run, field, value)
    return run


@pytest.mark.parametrize(
    ("run", "state", "decision"),
    [
        (a_run(), DatabaseState.QUEUED, "keep"),
        (a_run(), DatabaseState.RUNNING, "keep"),
        (a_run(), DatabaseState.SETTLED, "drop"),
        (a_run(), DatabaseState.SETTLED_AFTER_START, "release"),
        (a_run(), DatabaseState.DELETED, "drop"),
        (a_run(), DatabaseState.RESTARTING, "started"),
        (a_run(), DatabaseState.UNSERIALIZED, "started"),
        (a_run(attempt=1), DatabaseState.RESTARTING, "restart"),
        (a_run(attempt=1, failed_claims=("claimed before",)), DatabaseState.RESTARTING, "restart"),
        (a_run(claim=PodClaim("pool", "nonce", 0.0)), DatabaseState.RESTARTING, "started"),
        (a_run(claim=PodClaim("pool", "nonce", 0.0, given_up=True)), DatabaseState.RESTARTING, "keep"),
        (a_run(RunStage.WAITING), DatabaseState.SETTLED, "drop"),
        (a_run(RunStage.WAITING), DatabaseState.SETTLED_AFTER_START, "drop"),
        (a_run(RunStage.WAITING), DatabaseState.RESTARTING, "restart"),
        (a_run(RunStage.ADOPTING), DatabaseState.SETTLED, "drop"),
        (a_run(RunStage.ADOPTING), DatabaseState.SETTLED_AFTER_START, "release"),
        (a_run(RunStage.ADOPTING), DatabaseState.RESTARTING, "keep"),
        (a_run(RunStage.RUNNING), DatabaseState.SETTLED, "keep"),
        (a_run(RunStage.RUNNING), DatabaseState.SETTLED_AFTER_START, "keep"),
        (a_run(RunStage.RUNNING), DatabaseState.RESTARTING, "keep"),
        (a_run(RunStage.RUNNING), DatabaseState.DELETED, "drop"),
        (a_run(RunStage.ENDED), DatabaseState.DELETED, "keep"),
        (a_run(revoked=True), DatabaseState.SETTLED, "keep"),
        (a_run(failed_claims=("claimed before",)), DatabaseState.SETTLED_AFTER_START, "drop"),
        (a_run(report=ReportState.SETTLED), DatabaseState.SETTLED_AFTER_START, "keep"),
        (a_run(report=ReportState.SETTLED), DatabaseState.SETTLED, "keep"),
        (a_run(report=ReportState.SETTLED), DatabaseState.DELETED, "drop"),
    ],
)
def test_the_decision_on_an_unstarted_pod_follows_from_its_row(
    run: WorkerRun, state: DatabaseState, decision: str
) -> None:
    assert decide_unstarted(run, state) == decision


class Database:
    """A database in which every row has the same state; the first query fails."""

    def __init__(self, state: DatabaseState = DatabaseState.SETTLED) -> None:
        self.state = state
        self.asked: list[list[str]] = []

    def workload_states(self, workloads: Collection[Workload]) -> Mapping[Workload, DatabaseState]:
        self.asked.append([str(workload.key) for workload in workloads])
        if len(self.asked) == 1:
            raise OSError("away")
        return dict.fromkeys(workloads, self.state)


async def test_waiting_runs_are_compared_until_the_database_answers() -> None:
    lifecycle, database = RecordedLifecycle(), Database()
    now = asyncio.get_running_loop().time()
    runs = [a_run(name="waits"), a_run(RunStage.RUNNING, "runs"), a_run(name="new", times=RunTimes(now + 60))]
    foreign = a_run(name="a connection test")
    foreign.workload = Workload("a connection test", foreign.task, 1.0, None)
    for run in (*runs, foreign):
        lifecycle.registry.add(run)
    reconciler = UnstartedPodReconciler(database, lifecycle, 0.05)  # type: ignore[arg-type]
    task = asyncio.create_task(reconciler.run())
    try:
        async with asyncio.timeout(scaled(10)):
            while not lifecycle.cleaned_up:  # noqa: ASYNC110 - the reconciler's own task is waited for
                await asyncio.sleep(0.005)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert database.asked[:2] == [["waits"], ["waits"]]
    assert lifecycle.cleaned_up == [runs[0]]
    assert runs[0].revoked


async def compare_three_times(lifecycle: RecordedLifecycle, database: Database) -> None:
    reconciler = UnstartedPodReconciler(database, lifecycle, 0.0)  # type: ignore[arg-type]
    thread = BlockingCallThread("test")
    for _ in range(3):
        await reconciler.compare(thread)
    thread.close()


async def test_a_task_that_ended_unseen_frees_its_slot_once_and_keeps_its_pod() -> None:
    lifecycle, database = RecordedLifecycle(), Database(DatabaseState.SETTLED_AFTER_START)
    runs = [a_run(name="created"), a_run(RunStage.ADOPTING, "adopting")]
    for run in runs:
        lifecycle.registry.add(run)
    await compare_three_times(lifecycle, database)
    assert len(database.asked) == 3
    assert list(lifecycle.registry.outbox) == [SlotReleased(run.workload) for run in runs]
    assert lifecycle.cleaned_up == []
    assert [run.revoked for run in runs] == [False, False]


@pytest.mark.parametrize("claim", [None, PodClaim("pool", "nonce", 0.0), PodClaim("pool", "nonce", 0.0, alive=True)])
@pytest.mark.parametrize("unseen_since", [None, 0.5])
async def test_a_task_cleared_while_it_ran_unseen_keeps_its_pod_until_the_pod_ends(
    claim: PodClaim | None, unseen_since: float | None
) -> None:
    lifecycle, database = RecordedLifecycle(), Database(DatabaseState.RESTARTING)
    run = a_run(claim=claim, unseen_since=unseen_since)
    lifecycle.registry.add(run)
    await compare_three_times(lifecycle, database)
    assert (run.stage, run.disposition) == (RunStage.RUNNING, PodDisposition.BY_POLICY)
    assert run.unseen_since is not None, "the pod is read if the watch stays silent"
    assert (lifecycle.cleaned_up, list(lifecycle.registry.outbox)) == ([], [])
