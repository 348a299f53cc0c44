"""What a claimed pod's silence means, and its end: tables."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from crosswind.engine.claim_outcome import ClaimStep, late_start_result, next_step, unstarted_result
from crosswind.engine.database import DatabaseState
from crosswind.engine.reconciler import decide_outcome
from crosswind.engine.state import FinalState, PodClaim, RunResult, RunStage, RunTimes, WorkerRun, Workload
from crosswind.engine.worker_pod import WorkerTask
from crosswind.pods.verdict import BaseState, Verdict
from crosswind.pods.worker_report import WorkerReport
from crosswind.settings import EngineSettings

QUEUED, RUNNING, SETTLED = DatabaseState.QUEUED, DatabaseState.RUNNING, DatabaseState.SETTLED


def claim(
    *,
    touched: bool = False,
    given_up: bool = False,
    alive: bool = False,
    asked: bool = False,
    taken: bool | None = None,
) -> PodClaim:
    """Return a claim; ``asked``: its pod's log was asked for."""
    asked = asked or taken is not None
    return PodClaim(
        "pool", "nonce", at=100.0, touched=touched, given_up=given_up, alive=alive, log_asked=asked, taken=taken
    )


@pytest.mark.parametrize(
    ("made", "state", "asked_at", "step"),
    [
        (claim(), QUEUED, 100.5, "wait"),
        (claim(), QUEUED, 101.0, "touch"),
        (claim(touched=True), QUEUED, 101.5, "wait"),
        (claim(touched=True), QUEUED, 103.0, "read log"),
        (claim(), QUEUED, 103.0, "read log"),
        (claim(asked=True), QUEUED, 103.5, "wait"),
        (claim(taken=False), QUEUED, 103.5, "give up"),
        (claim(taken=True), QUEUED, 103.5, "wait"),
        (claim(taken=True), QUEUED, 3600.0, "wait"),
        (claim(taken=True), RUNNING, 110.0, "alive"),
        (claim(), RUNNING, 100.1, "alive"),
        (claim(), RUNNING, 200.0, "alive"),
        (claim(), SETTLED, 100.1, "alive"),
        (claim(given_up=True), QUEUED, 110.0, "wait"),
        (claim(given_up=True), RUNNING, 110.0, "wait"),
    ],
)
def test_the_next_step_follows_from_row_and_age(
    made: PodClaim, state: DatabaseState, asked_at: float, step: ClaimStep
) -> None:
    assert next_step(made, state, asked_at) == step


def a_run(
    made: PodClaim | None, *, adopted: bool = False, attempt: int = 0, failed_claims: tuple[str, ...] = ()
) -> WorkerRun:
    task = WorkerTask("dag", "task", "run", 1, "u1")
    workload = Workload("key", task, 1.0, None if adopted else lambda: b"{}", ref="row")
    run = WorkerRun(workload, task, RunTimes(0.0), stage=RunStage.CREATED, attempt=attempt)
    run.claim, run.failed_claims = made, failed_claims
    return run


def ended(run: WorkerRun, verdict: Verdict) -> WorkerRun:
    result = unstarted_result(run, verdict) or RunResult(failed=True, reason="Error", may_relaunch=True)
    run.mark_ended(result, 1.0)
    return run


KILLED = Verdict(BaseState.TERMINATED, 137, "Error", started=True)
GONE = Verdict(BaseState.GONE, started=True)
ENDED_WAITING = Verdict(BaseState.TERMINATED, 0, "Completed", started=True, report=WorkerReport("waiting"))


@pytest.mark.parametrize(
    ("run", "verdict", "state", "decision"),
    [
        (a_run(claim(given_up=True)), GONE, QUEUED, "relaunch"),
        (a_run(claim(given_up=True)), GONE, RUNNING, "replace"),
        (a_run(claim(given_up=True)), ENDED_WAITING, RUNNING, "reschedule"),
        (a_run(claim(given_up=True)), GONE, SETTLED, "settled"),
        (a_run(claim(given_up=True), adopted=True), GONE, QUEUED, "reschedule"),
        (a_run(claim()), KILLED, QUEUED, "relaunch"),
        (a_run(claim(alive=True)), KILLED, RUNNING, FinalState.FAILED),
        # failed claims are no attempts: launch_retries is 1, and "Error" is excluded from it
        (a_run(claim(), attempt=2, failed_claims=("warm-1", "warm-2")), KILLED, QUEUED, "relaunch"),
        (a_run(None), KILLED, QUEUED, FinalState.FAILED),
    ],
    ids=[
        "given up, not begun: a pod of its own",
        "given up, begun unseen: a loss",
        "given up before it had the task, which runs nevertheless",
        "given up, and ended by itself",
        "given up, its workload unknown here",
        "killed before it began",
        "killed while it ran",
        "killed before it began, again",
        "a cold pod's failure counts",
    ],
)
def test_the_end_of_a_claimed_pod_costs_no_attempt_before_the_task_began(
    run: WorkerRun, verdict: Verdict, state: DatabaseState, decision: str
) -> None:
    assert decide_outcome(ended(run, verdict), state, EngineSettings("7")) == decision


# --- all orders of events ---------------------------------------------------------------------------------------------

WARM_POD, COLD_POD = "warm-1", "cold-1"
EVENTS = "row is asked", "deletion is sent", "SIGTERM arrives", "pod is gone", "row is read", "cold worker asks"
"""What happens to a claim that is given up, in this order. Airflow carries the worker's request out before one of them,
or never."""

NO_CODE = Verdict(BaseState.TERMINATED, 143, "Error", started=True, report=WorkerReport("terminated"))
CODE_BEGAN = Verdict(BaseState.TERMINATED, 143, "Error", started=True, report=WorkerReport("terminated", run=0.4))
SIGKILLED = Verdict(BaseState.TERMINATED, 137, "Error", started=True, report=WorkerReport("terminated"))
SUCCEEDED = Verdict(BaseState.TERMINATED, 0, "Completed", started=True)
UNSEEN = Verdict(BaseState.GONE, None, "Deleted", started=True)


@dataclass
class Row:
    """The task instance, as Airflow's route ``/run`` changes it."""

    state: DatabaseState = QUEUED
    host: str = ""

    def start(self, host: str) -> bool:
        """Carry a request out; False: it is refused."""
        if self.state is not QUEUED:
            return False
        self.state, self.host = RUNNING, host
        return True


def steps_of(run_before: str, worker: Verdict, *, waiting_reported: bool = True) -> list[str]:
    """Return what the engine decides, step by step, until somebody runs the task or Airflow schedules it again.

    ``run_before``: the event before which Airflow carries the request of the claimed pod out. ``worker``: how that pod
    ends. ``waiting_reported``: the engine sees the row before the cold worker has asked.
    """
    row, run = Row(), a_run(claim(touched=True, taken=False))
    run.name = WARM_POD
    steps: list[str] = []

    def happens(event: str) -> None:
        if event == run_before:
            row.start(WARM_POD)

    happens("row is asked")
    assert run.claim is not None
    steps.append(next_step(run.claim, row.state, asked_at=103.0))
    if steps[-1] != "give up":
        return steps
    run.claim.given_up = True
    happens("deletion is sent")
    happens("SIGTERM arrives")
    happens("pod is gone")
    if worker is SUCCEEDED and row.state is RUNNING:
        row.state = SETTLED
    happens("row is read")
    steps.append(str(decide_outcome(ended(run, worker), row.state, EngineSettings("7"))))
    if steps[-1] != "relaunch":
        return steps
    cold = a_run(None, attempt=1, failed_claims=(WARM_POD,))
    cold.name = COLD_POD
    happens("cold worker asks")
    result = late_start_result(cold, row.host) if waiting_reported else None
    if result is None and row.start(COLD_POD):
        assert late_start_result(cold, row.host) is None, "its own start is no late one"
        return [*steps, "runs cold"]
    result = result or late_start_result(cold, row.host)  # Airflow has refused the cold worker, which has ended
    assert result is not None
    cold.mark_ended(result, 1.0)
    return [*steps, str(decide_outcome(cold, row.state, EngineSettings("7")))]


@pytest.mark.parametrize(
    ("run_before", "worker", "steps"),
    [
        ("row is asked", SUCCEEDED, ["alive"]),
        *((event, worker, ["give up", "reschedule"]) for event in EVENTS[1:5] for worker in (NO_CODE, ENDED_WAITING)),
        *((event, CODE_BEGAN, ["give up", "replace"]) for event in EVENTS[1:3]),
        *((event, SUCCEEDED, ["give up", "settled"]) for event in EVENTS[1:4]),
        *((event, worker, ["give up", "replace"]) for event in EVENTS[1:5] for worker in (SIGKILLED, UNSEEN)),
        *(
            ("cold worker asks", worker, ["give up", "relaunch", "reschedule"])
            for worker in (NO_CODE, ENDED_WAITING, SIGKILLED, UNSEEN)
        ),
        *(("never", worker, ["give up", "relaunch", "runs cold"]) for worker in (NO_CODE, ENDED_WAITING, UNSEEN)),
    ],
)
@pytest.mark.parametrize("waiting_reported", [True, False], ids=["seen while the cold pod starts", "seen at its end"])
def test_in_every_order_of_events_the_task_runs_on_and_no_retry_is_used(
    run_before: str, worker: Verdict, steps: list[str], waiting_reported: bool
) -> None:
    assert steps_of(run_before, worker, waiting_reported=waiting_reported) == steps
    assert FinalState.FAILED not in steps
    assert steps[-1] in ("alive", "settled", "runs cold", "reschedule", "replace")


@pytest.mark.parametrize(
    ("host", "late"),
    [("warm-1", True), ("warm-1.pods.cluster.local", True), ("cold-1", False), ("warm-2", False), ("", False)],
)
def test_a_start_is_late_if_the_pod_of_a_failed_claim_made_it(host: str, late: bool) -> None:
    run = a_run(None, failed_claims=("warm-1",))
    assert (late_start_result(run, host) is not None) == late
