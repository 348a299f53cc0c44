"""The states of a run and the transitions between them; the events that a registry sends to task authors."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest

from crosswind.engine.state import (
    PodDisposition,
    ReportState,
    RunRegistry,
    RunResult,
    RunStage,
    RunTimes,
    TaskEvent,
    WaitReason,
    WorkerRun,
    Workload,
)
from crosswind.engine.worker_pod import WorkerTask

TRANSITIONS: dict[RunStage, Callable[[WorkerRun], None]] = {
    RunStage.CREATED: lambda run: run.mark_created(1.0),
    RunStage.RUNNING: lambda run: run.mark_running(2.0),
    RunStage.ENDED: lambda run: run.mark_ended(RunResult(failed=True, message="why"), 3.0),
}
ALLOWED = {
    (RunStage.ADOPTING, RunStage.CREATED),
    (RunStage.ADOPTING, RunStage.ENDED),
    (RunStage.WAITING, RunStage.CREATED),
    (RunStage.WAITING, RunStage.ENDED),
    (RunStage.CREATED, RunStage.RUNNING),
    (RunStage.CREATED, RunStage.ENDED),
    (RunStage.RUNNING, RunStage.ENDED),
}


def a_run(stage: RunStage = RunStage.WAITING) -> WorkerRun:
    task = WorkerTask("dag", "task", "run", 1, "u1")
    return WorkerRun(Workload("key", task, 1.0, lambda: b"{}"), task, RunTimes(0.0), stage=stage, manifest={})


@pytest.mark.parametrize(("before", "after"), [*itertools.product(RunStage, TRANSITIONS)])
def test_a_run_enters_later_stages_only(before: RunStage, after: RunStage) -> None:
    run = a_run(before)
    if (before, after) in ALLOWED:
        TRANSITIONS[after](run)
        assert run.stage is after
    else:
        with pytest.raises(AssertionError, match=f"from {before.name} to {after.name}"):
            TRANSITIONS[after](run)
        assert run.stage is before


def test_a_transition_frees_the_manifest_and_clears_the_wait_reason() -> None:
    run = a_run()
    run.wait = WaitReason(lambda: "a quota", "QuotaExceeded")
    run.mark_created(1.0)
    assert (run.manifest, run.wait, run.times.created) == (None, None, 1.0)
    run.wait = WaitReason(lambda: "an image", "ErrImagePull")
    run.mark_running(2.0)
    assert (run.wait, run.times.started) == (None, 2.0)


def test_creation_does_not_mark_a_pod_as_unseen_that_the_watch_has_reported() -> None:
    run, reported = a_run(), a_run()
    reported.unseen_since = None
    run.mark_created(1.0)
    reported.mark_created(1.0)
    assert (run.unseen_since, reported.unseen_since) == (1.0, None)


def test_an_ended_run_has_a_result_and_a_time() -> None:
    run = a_run()
    assert (run.failed, run.message, run.reason) == (False, "", "")
    run.mark_ended(RunResult(failed=True, message="why", reason="OOMKilled"), 3.0)
    assert (run.failed, run.message, run.reason, run.times.ended) == (True, "why", "OOMKilled", 3.0)


def test_a_settled_or_revoked_run_stays_settled() -> None:
    run = a_run()
    run.mark_reported()
    assert (run.report, run.settled) == (ReportState.REPORTED, False)
    run.settle()
    run.mark_reported()
    assert run.settled
    revoked = a_run()
    revoked.revoke()
    revoked.mark_reported()
    assert (revoked.revoked, revoked.settled) == (True, True)


def test_a_pod_to_delete_is_gone_in_the_end() -> None:
    run = a_run()
    assert (run.disposition, run.pod_gone) == (PodDisposition.BY_POLICY, False)
    run.delete_in_any_case()
    assert (run.disposition, run.pod_gone) == (PodDisposition.DELETE, False)
    run.mark_pod_gone()
    assert run.pod_gone


def messages(registry: RunRegistry) -> list[str]:
    return [outcome.message for outcome in registry.outbox if isinstance(outcome, TaskEvent)]


def test_a_hundred_messages_with_one_reason_send_one_event() -> None:
    registry, run = RunRegistry(), a_run()
    for number in range(100):
        registry.send_event(run, "pod waits", f"0/12 nodes are available: {number} Insufficient cpu", "Unschedulable")
    assert len(messages(registry)) == 1


def test_another_reason_or_another_event_is_sent_at_once() -> None:
    registry, run = RunRegistry(), a_run()
    registry.send_event(run, "pod waits", "no node", "Unschedulable")
    registry.send_event(run, "pod waits", "no image", "ErrImagePull")
    registry.send_event(run, "pod waits", "no node again", "Unschedulable")
    registry.send_event(run, "pod failed", "no image", "ErrImagePull")
    assert messages(registry) == ["no node", "no image", "no image"]


@pytest.mark.parametrize(("minutes", "again"), [(0, False), (29, False), (31, True)])
def test_the_same_reason_is_sent_again_after_half_an_hour(minutes: int, again: bool) -> None:
    registry, run = RunRegistry(), a_run()
    run.events_sent = {("pod waits", "Unschedulable"): time.monotonic() - 60 * minutes}
    registry.send_event(run, "pod waits", "no node", "Unschedulable")
    assert messages(registry) == ["no node"] * again
    registry.send_event(run, "pod waits", "no node", "Unschedulable")
    assert messages(registry) == ["no node"] * again


def test_no_event_is_sent_for_a_revoked_run_or_without_a_message() -> None:
    registry, run = RunRegistry(), a_run()
    run.revoked = True
    registry.send_event(run, "pod waits", "no node", "Unschedulable")
    registry.send_event(a_run(), "pod waits", "", "Unschedulable")
    assert messages(registry) == []
