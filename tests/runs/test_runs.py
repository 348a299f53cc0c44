"""The states of a run, and which lead to which."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from crosswind.pods.workers import WorkerTask
from crosswind.runs.workloads import End, Pod, Report, Run, Stage, Workload

MOVES: dict[Stage, Callable[[Run], None]] = {
    Stage.CREATED: lambda run: run.has_pod(1.0),
    Stage.BEGUN: lambda run: run.begins(2.0),
    Stage.ENDED: lambda run: run.ends(End(failed=True, message="why"), 3.0),
}
ALLOWED = {
    (Stage.CLAIMED, Stage.CREATED),
    (Stage.CLAIMED, Stage.ENDED),
    (Stage.WAITING, Stage.CREATED),
    (Stage.WAITING, Stage.ENDED),
    (Stage.CREATED, Stage.BEGUN),
    (Stage.CREATED, Stage.ENDED),
    (Stage.BEGUN, Stage.ENDED),
}


def a_run(stage: Stage = Stage.WAITING) -> Run:
    task = WorkerTask("dag", "task", "run", 1, "u1")
    return Run(Workload("key", task, 1.0, lambda: b"{}"), task, 0.0, stage=stage, manifest={})


@pytest.mark.parametrize(("before", "after"), [*itertools.product(Stage, MOVES)])
def test_a_run_goes_forward_only(before: Stage, after: Stage) -> None:
    run = a_run(before)
    if (before, after) in ALLOWED:
        MOVES[after](run)
        assert run.stage is after
    else:
        with pytest.raises(AssertionError, match=f"from {before.name} to {after.name}"):
            MOVES[after](run)
        assert run.stage is before


def test_a_pod_frees_the_manifest_and_what_the_run_waited_for() -> None:
    run = a_run()
    run.waits_for = lambda: "a quota"
    run.has_pod(1.0)
    assert (run.manifest, run.waits_for, run.created_at) == (None, None, 1.0)
    run.waits_for = lambda: "an image"
    run.begins(2.0)
    assert (run.waits_for, run.begun_at) == (None, 2.0)


def test_an_end_says_how_and_when() -> None:
    run = a_run()
    assert (run.failed, run.message, run.reason) == (False, "", "")
    run.ends(End(failed=True, message="why", reason="OOMKilled"), 3.0)
    assert (run.failed, run.message, run.reason, run.over_at) == (True, "why", "OOMKilled", 3.0)


def test_what_was_settled_or_revoked_is_never_open_again() -> None:
    run = a_run()
    run.was_told()
    assert (run.report, run.settled) == (Report.TOLD, False)
    run.settle()
    run.was_told()
    assert run.settled
    revoked = a_run()
    revoked.revoke()
    revoked.was_told()
    assert (revoked.revoked, revoked.settled) == (True, True)


def test_a_pod_that_is_unwanted_goes_in_the_end() -> None:
    run = a_run()
    assert (run.pod, run.gone) == (Pod.OURS, False)
    run.pod_is_unwanted()
    assert (run.pod, run.gone) == (Pod.UNWANTED, False)
    run.pod_is_gone()
    assert run.gone
