"""Decides what a claimed pod's silence and its end mean. Pure."""

from __future__ import annotations

import signal
from typing import Literal

from crosswind.engine.database import DatabaseState
from crosswind.engine.state import PodClaim, RunResult, WorkerRun
from crosswind.pods.verdict import Verdict
from crosswind.pods.worker_report import TERMINATED, WAITING

__all__ = [
    "CLAIM_NOT_STARTED",
    "GIVE_UP_S",
    "TOUCH_S",
    "ClaimStep",
    "late_start_result",
    "next_step",
    "unstarted_result",
]

TOUCH_S = 1.0
"""Seconds without a sign of life after which the pod is changed once more: a kubelet that has synced the pod within
the last second delivers the first change late, up to 1 s by measurement."""
GIVE_UP_S = 3.0
"""Seconds without a sign of life after which the task gets another pod, unless the pod's log shows that its worker has
the workload. A worker needs half a second. A busy Airflow that has not answered it would answer no other one sooner."""

CLAIM_NOT_STARTED = "ClaimNotStarted"
"""The reason of a run whose claimed pod did not start its task."""

_EXIT_TERMINATED = 128 + signal.SIGTERM

ClaimStep = Literal["wait", "touch", "read log", "give up", "alive"]


def next_step(claim: PodClaim, state: DatabaseState, asked_at: float) -> ClaimStep:
    """Return what to do about a claim whose task's row had ``state`` at ``asked_at`` or later.

    Any state but QUEUED is a sign of life: a short task has ended before it was seen to run. A worker that has the
    workload is waited for without a limit, as that of a cold pod: its container ends when it cannot start the task.
    """
    if claim.given_up:
        return "wait"  # its pod is being deleted, also if the task begins meanwhile
    if state is not DatabaseState.QUEUED:
        return "alive"
    if asked_at - claim.at >= GIVE_UP_S:
        if claim.taken is None:
            return "wait" if claim.log_asked else "read log"
        return "wait" if claim.taken else "give up"
    return "touch" if asked_at - claim.at >= TOUCH_S and not claim.touched else "wait"


def unstarted_result(run: WorkerRun, verdict: Verdict) -> RunResult | None:
    """Return the result of a claimed pod that ended without a sign of life; None for the result that its end gives.

    The worker may have asked Airflow to start the task before the pod's deletion reached it. If the row is RUNNING by
    the time it is read again, the pod counts as lost (``RunResult.loss``), unless the worker's report shows that no
    code of the task has run (``RunResult.lost``). Neither costs a retry; only a loss counts against ``infra_retries``.
    """
    claim = run.claim
    if claim is None or claim.alive:
        return None
    if claim.given_up:
        message = f"Warm pod {run.pod_path} did not start its task within {GIVE_UP_S:g} s"
        idle = _ran_no_code(verdict)
        loss = "" if idle else CLAIM_NOT_STARTED
        return RunResult(
            failed=True, reason=CLAIM_NOT_STARTED, message=message, may_relaunch=True, lost=idle, loss=loss
        )
    if verdict.report is not None and verdict.report.reason == WAITING:
        message = f"Warm pod {run.pod_path} ended before it received its task"
        return RunResult(failed=True, reason=CLAIM_NOT_STARTED, message=message, may_relaunch=True)
    return None


def _ran_no_code(verdict: Verdict) -> bool:
    """Whether the report of a worker that has ended shows that no code of its task has run.

    After a SIGTERM, the worker writes its report before it exits. A worker that is killed before that may have left an
    older report, and its exit code shows that.
    """
    report = verdict.report
    if report is None:
        return False
    terminated = report.reason == TERMINATED and verdict.exit_code == _EXIT_TERMINATED and report.run is None
    return report.reason == WAITING or terminated


def late_start_result(run: WorkerRun, host: str) -> RunResult | None:
    """Return the result of a run whose task an earlier pod has started, from ``host``; None for another host.

    Airflow carries out a request to start a task also after the worker that sent it has ended, up to seconds later on a
    busy server. The task then runs for nobody, no code of it has run, and Airflow refuses the worker of the next pod.
    """
    if not host or host.partition(".")[0] not in run.failed_claims:
        return None
    message = f"Pod {run.pod_path} cannot run the task: Pod {host}, which is gone, had asked Airflow to start it"
    return RunResult(failed=True, reason=CLAIM_NOT_STARTED, message=message, lost=True)
