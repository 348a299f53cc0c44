from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import queue
import threading
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace

import pytest
from tests.engine.recording import RecordedLifecycle

from crosswind.engine.claim_outcome import CLAIM_NOT_STARTED
from crosswind.engine.database import DatabaseState, WatchPosition
from crosswind.engine.losses import LostTry
from crosswind.engine.reconciler import OutcomeReconciler, decide_outcome
from crosswind.engine.state import (
    FinalState,
    PodDisposition,
    ReportState,
    RunResult,
    RunStage,
    RunTimes,
    SlotReleased,
    TaskEvent,
    WorkerRun,
    Workload,
    WorkloadEnded,
)
from crosswind.engine.worker_pod import WorkerTask
from crosswind.settings import EngineSettings
from deadlines import scaled

SETTINGS = EngineSettings("7", settle_interval=0.02)


def a_run(
    *,
    failed: bool = True,
    reason: str = "Evicted",
    exit_decides: bool = False,
    adopted: bool = False,
    may_relaunch: bool = True,
    lost: bool = False,
    loss: str = "",
    **fields: object,
) -> WorkerRun:
    task = WorkerTask("dag", "task", "run", 1, "u1")
    payload = None if adopted else lambda: b"{}"
    run = WorkerRun(
        Workload("key", task, 1.0, payload, exit_decides=exit_decides), task, RunTimes(0.0), stage=RunStage.ENDED
    )
    run.result = RunResult(
        failed=failed, reason=reason, message="because", may_relaunch=may_relaunch, lost=lost, loss=loss
    )
    for name, value in fields.items():
        setattr(run, name, value)
    return run


@pytest.mark.parametrize(
    ("run", "state", "decision"),
    [
        (a_run(failed=False), DatabaseState.SETTLED, "settled"),
        (a_run(), DatabaseState.SETTLED, "settled"),
        (a_run(failed=False), DatabaseState.RUNNING, FinalState.FAILED),
        (a_run(failed=False, exit_decides=True), DatabaseState.RUNNING, FinalState.SUCCESS),
        (a_run(exit_decides=True), DatabaseState.RUNNING, FinalState.FAILED),
        (a_run(), DatabaseState.RESTARTING, FinalState.SUCCESS),
        (a_run(failed=False), DatabaseState.RESTARTING, FinalState.SUCCESS),
        (a_run(), DatabaseState.UNSERIALIZED, "reschedule"),
        (a_run(failed=False), DatabaseState.UNSERIALIZED, "reschedule"),
        (a_run(), DatabaseState.DELETED, "settled"),
        (a_run(), DatabaseState.RUNNING, FinalState.FAILED),
        (a_run(), DatabaseState.QUEUED, "relaunch"),
        (a_run(attempt=1), DatabaseState.QUEUED, FinalState.FAILED),
        (a_run(reason="Error"), DatabaseState.QUEUED, FinalState.FAILED),
        (a_run(may_relaunch=False), DatabaseState.QUEUED, FinalState.FAILED),
        (a_run(report=ReportState.REPORTED), DatabaseState.QUEUED, FinalState.FAILED),
        (a_run(adopted=True), DatabaseState.QUEUED, "reschedule"),
        (a_run(adopted=True), DatabaseState.RUNNING, FinalState.FAILED),
        (a_run(adopted=True, attempt=1), DatabaseState.QUEUED, FinalState.FAILED),
        (a_run(adopted=True, lost=True), DatabaseState.QUEUED, "reschedule"),
        (a_run(adopted=True, lost=True), DatabaseState.RUNNING, "reschedule"),
        (a_run(adopted=True, lost=True), DatabaseState.RESTARTING, FinalState.SUCCESS),
        (a_run(adopted=True, lost=True), DatabaseState.SETTLED, "settled"),
        (a_run(loss="Evicted"), DatabaseState.RUNNING, "replace"),
        (a_run(loss="Evicted", adopted=True), DatabaseState.RUNNING, "replace"),
        (a_run(loss="Evicted"), DatabaseState.QUEUED, "relaunch"),
        (a_run(loss="Evicted", attempt=1), DatabaseState.QUEUED, "replace"),
        (a_run(loss="Evicted", may_relaunch=False), DatabaseState.QUEUED, "replace"),
        (a_run(loss="Evicted"), DatabaseState.SETTLED, "settled"),
        (a_run(loss="Evicted"), DatabaseState.DELETED, "settled"),
        (a_run(loss="Evicted"), DatabaseState.RESTARTING, FinalState.SUCCESS),
        (a_run(loss="Evicted", report=ReportState.REPORTED), DatabaseState.RUNNING, FinalState.FAILED),
    ],
)
def test_the_decision_follows_from_the_run_and_the_database(
    run: WorkerRun, state: DatabaseState, decision: object
) -> None:
    assert decide_outcome(run, state, SETTINGS) == decision


class Database:
    """A database that gives these answers, one per query."""

    def __init__(self, *answers: DatabaseState | Exception, tries: Sequence[LostTry | Exception | None] = ()) -> None:
        self.answers, self.tries = list(answers), list(tries)
        self.task_logs: list[str] = []
        self.rescheduled: list[int] = []
        self.replaced: list[int] = []

    def workload_states(self, workloads: Collection[Workload]) -> Mapping[Workload, DatabaseState]:
        answer = self.answers.pop(0) if self.answers else DatabaseState.SETTLED
        if isinstance(answer, Exception):
            raise answer
        return dict.fromkeys(workloads, answer)

    def hosts(self, workloads: Collection[Workload]) -> Mapping[Workload, str]:
        return dict.fromkeys(workloads, "warm-1")

    def live_executors(self) -> Collection[str]:
        return ()

    def write_task_log(self, workload: Workload, message: str) -> None:
        self.task_logs.append(message)

    def reschedule(self, workloads: Collection[Workload]) -> Collection[Workload]:
        """Succeed at the second attempt, as where a row is locked."""
        self.rescheduled.append(len(workloads))
        return workloads if len(self.rescheduled) > 1 else ()

    def replace_lost(self, messages: Mapping[Workload, str]) -> Mapping[Workload, LostTry]:
        """Answer with the next of ``tries``; None: the row is locked."""
        self.replaced.append(len(messages))
        answer = self.tries.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {} if answer is None else dict.fromkeys(messages, answer)

    def save_positions(self, load_positions: Collection[WatchPosition]) -> None:
        raise AssertionError

    def load_positions(self, server: str, max_age: float) -> Collection[WatchPosition]:
        raise AssertionError


@contextlib.asynccontextmanager
async def reconciling(database: Database, lifecycle: RecordedLifecycle) -> AsyncIterator[OutcomeReconciler]:
    reconciler = OutcomeReconciler(database, lifecycle, SETTINGS)  # type: ignore[arg-type]
    task = asyncio.create_task(reconciler.run())
    try:
        yield reconciler
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until_settled(lifecycle: RecordedLifecycle, run: WorkerRun) -> list[object]:
    async with asyncio.timeout(scaled(5)):
        while not run.settled:  # noqa: ASYNC110 - of the reconciler's own task
            await asyncio.sleep(0.005)
    return list(lifecycle.registry.outbox)


async def test_an_outcome_is_reported_until_the_database_agrees() -> None:
    lifecycle, run = RecordedLifecycle(), a_run()
    database = Database(DatabaseState.RUNNING, DatabaseState.RUNNING, DatabaseState.SETTLED)
    async with reconciling(database, lifecycle) as reconciler:
        reconciler.put(run)
        outcomes = await until_settled(lifecycle, run)
    assert [type(outcome) for outcome in outcomes] == [TaskEvent, WorkloadEnded, WorkloadEnded, SlotReleased]
    assert database.task_logs == ["because"]


async def test_a_success_in_the_database_releases_the_slot_without_a_report() -> None:
    lifecycle, run = RecordedLifecycle(), a_run(failed=False)
    async with reconciling(Database(DatabaseState.SETTLED), lifecycle) as reconciler:
        reconciler.put(run)
        outcomes = await until_settled(lifecycle, run)
    assert [type(outcome) for outcome in outcomes] == [SlotReleased]


async def test_a_task_that_never_began_is_relaunched_with_an_event_that_says_why() -> None:
    lifecycle, run = RecordedLifecycle(), a_run()
    async with reconciling(Database(DatabaseState.QUEUED), lifecycle) as reconciler:
        reconciler.put(run)
        outcomes = await until_settled(lifecycle, run)
    (relaunched,) = lifecycle.launched
    assert (relaunched.workload, relaunched.attempt) == (run.workload, 1)
    assert relaunched.unique_id != run.unique_id
    assert [(type(outcome), outcome.message) for outcome in outcomes] == [(TaskEvent, "because")]  # type: ignore[attr-defined]


async def test_a_revoked_run_is_not_reported() -> None:
    lifecycle, run = RecordedLifecycle(), a_run(revoked=True)
    other = a_run()
    async with reconciling(Database(DatabaseState.RUNNING, DatabaseState.SETTLED), lifecycle) as reconciler:
        reconciler.put(run)
        reconciler.put(other)
        await until_settled(lifecycle, other)
    assert all(outcome.workload is other.workload for outcome in lifecycle.registry.outbox)


async def test_a_lost_run_is_rescheduled_as_soon_as_its_row_is_not_locked() -> None:
    database, lifecycle = Database(*[DatabaseState.RUNNING] * 2), RecordedLifecycle()
    run = a_run(adopted=True, lost=True, disposition=PodDisposition.GONE)
    async with reconciling(database, lifecycle) as reconciler:
        reconciler.put(run)
        outcomes = await until_settled(lifecycle, run)
    assert [type(outcome) for outcome in outcomes] == [TaskEvent, SlotReleased]
    assert database.rescheduled == [1, 1]


async def test_a_try_that_the_cluster_took_is_replaced_and_never_reported_as_failed() -> None:
    database = Database(*[DatabaseState.RUNNING] * 3, tries=[RuntimeError("down"), None, LostTry(1)])
    lifecycle, run = RecordedLifecycle(), a_run(loss="EvictionByEvictionAPI")
    async with reconciling(database, lifecycle) as reconciler:
        reconciler.put(run)
        outcomes = await until_settled(lifecycle, run)
    assert [type(outcome) for outcome in outcomes] == [SlotReleased]
    assert lifecycle.metrics.counts == {("crosswind.losses", "EvictionByEvictionAPI"): 1}


async def test_many_losses_at_once_free_their_slots_step_by_step() -> None:
    """A node takes hundreds of pods, and each try is replaced under a lock of its own."""
    database = Database(*[DatabaseState.RUNNING] * 3, tries=[LostTry(1)] * 3)
    lifecycle, runs = RecordedLifecycle(), [a_run(loss="NodeLost") for _ in range(45)]
    async with reconciling(database, lifecycle) as reconciler:
        for run in runs:
            reconciler.put(run, 0.0)
        for run in runs:
            await until_settled(lifecycle, run)
    assert database.replaced == [20, 20, 5]


async def test_later_losses_wait_for_those_before_them() -> None:
    """While one step of a node's losses is replaced, other nodes lose pods: nobody may be overtaken again and again."""
    lifecycle, loop = RecordedLifecycle(), asyncio.get_running_loop()
    early, late = ([a_run(loss="NodeLost") for _ in range(45)] for _ in range(2))
    order: list[Workload] = []

    class Busy(Database):
        def replace_lost(self, messages: Mapping[Workload, str]) -> Mapping[Workload, LostTry]:
            order.extend(messages)
            if late_ones := late[len(order) - 20 : len(order)]:
                asyncio.run_coroutine_threadsafe(lose(late_ones), loop).result(scaled(5))
            return dict.fromkeys(messages, LostTry(1))

    async def lose(runs: list[WorkerRun]) -> None:
        for run in runs:
            reconciler.put(run, 0.0)

    async with reconciling(Busy(*[DatabaseState.RUNNING] * 9), lifecycle) as reconciler:
        await lose(early)
        for run in [*early, *late]:
            await until_settled(lifecycle, run)
    assert order == [run.workload for run in [*early, *late]]


async def test_a_log_volume_that_does_not_answer_delays_no_replacement() -> None:
    lifecycle, answers = RecordedLifecycle(), threading.Event()
    lost = [a_run(loss="NodeLost") for _ in range(2)]

    class Stuck(Database):
        def write_task_log(self, workload: Workload, message: str) -> None:
            assert answers.wait(scaled(10))
            super().write_task_log(workload, message)

    database = Stuck(*[DatabaseState.RUNNING] * 2, tries=[LostTry(1)] * 2)
    try:
        async with reconciling(database, lifecycle) as reconciler:
            for run in lost:
                reconciler.put(run, 0.0)
                await until_settled(lifecycle, run)
    finally:
        answers.set()
    assert database.replaced == [1, 1]


async def test_a_log_folder_that_refuses_the_reason_costs_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(Database):
        def write_task_log(self, workload: Workload, message: str) -> None:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))

    lines: queue.Queue[logging.LogRecord] = queue.Queue()
    monkeypatch.setattr(logging.getLogger("crosswind.engine.reconciler"), "handle", lines.put)
    lifecycle, run = RecordedLifecycle(), a_run()
    async with reconciling(Full(DatabaseState.RUNNING), lifecycle) as reconciler:
        reconciler.put(run)
        await until_settled(lifecycle, run)
        line = await asyncio.to_thread(lines.get, timeout=scaled(10))
    assert (line.levelname, line.exc_info) == ("WARNING", None)
    assert "File name too long" in line.getMessage()


async def test_what_a_person_sets_while_a_row_is_locked_wins_over_a_loss() -> None:
    database = Database(DatabaseState.RUNNING, DatabaseState.SETTLED, tries=[None])
    lifecycle, run = RecordedLifecycle(), a_run(loss="Evicted")
    async with reconciling(database, lifecycle) as reconciler:
        reconciler.put(run)
        outcomes = await until_settled(lifecycle, run)
    assert [type(outcome) for outcome in outcomes] == [SlotReleased]
    assert lifecycle.metrics.counts == {}


async def test_a_loss_beyond_the_limit_fails_the_task_with_both_reasons() -> None:
    refusal = LostTry(4, "it is loss 4 in a row, and infra_retries is 3")
    database = Database(*[DatabaseState.RUNNING] * 2, DatabaseState.SETTLED, tries=[refusal])
    lifecycle, run = RecordedLifecycle(), a_run(loss="Evicted")
    async with reconciling(database, lifecycle) as reconciler:
        reconciler.put(run)
        outcomes = await until_settled(lifecycle, run)
    event, first, *_ = outcomes
    assert isinstance(event, TaskEvent)
    assert isinstance(first, WorkloadEnded)
    assert [type(outcome) for outcome in outcomes] == [TaskEvent, WorkloadEnded, WorkloadEnded, SlotReleased]
    message = "because. It gets no further try: it is loss 4 in a row, and infra_retries is 3"
    assert (event.event, event.message, first.state, first.message) == (
        *("pod failed", message),
        *(FinalState.FAILED, message),
    )
    assert database.task_logs == [message]


@pytest.mark.parametrize(("reason", "cold"), [(CLAIM_NOT_STARTED, True), ("Evicted", False)])
@pytest.mark.parametrize("lost", [True, False], ids=["no code ran", "loss"])
async def test_a_task_whose_claimed_pod_did_not_start_it_gets_a_pod_of_its_own_for_its_next_try(
    reason: str, cold: bool, lost: bool
) -> None:
    database = Database(*[DatabaseState.RUNNING] * 2, tries=[LostTry(1)])
    lifecycle, run = RecordedLifecycle(), a_run(reason=reason, loss="" if lost else reason, lost=lost)
    async with reconciling(database, lifecycle) as reconciler:
        reconciler.put(run)
        await until_settled(lifecycle, run)
    others = replace(run.task, map_index=run.task.map_index + 1), replace(run.task, run_id="another")
    assert [lifecycle.registry.begins_cold(task) for task in (*others, run.task, run.task)] == [
        False,
        False,
        cold,
        False,
    ]


@pytest.mark.parametrize("earlier", ["warm-1", "warm-2"])
async def test_a_cold_worker_that_airflow_refused_for_a_late_start_by_the_pod_before_costs_no_retry(
    earlier: str,
) -> None:
    database = Database(*[DatabaseState.RUNNING] * 2, DatabaseState.SETTLED)
    lifecycle, run = RecordedLifecycle(), a_run(reason="Error", failed_claims=(earlier,))
    async with reconciling(database, lifecycle) as reconciler:
        reconciler.put(run)
        outcomes = await until_settled(lifecycle, run)
    late = earlier == "warm-1"
    assert database.rescheduled == ([1, 1] if late else [])
    events = [outcome.event for outcome in outcomes if isinstance(outcome, TaskEvent)]
    assert events == ["pod lost" if late else "pod failed"]
