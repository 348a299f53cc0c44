"""What follows from each change of a run's state, with and without a session."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.engine.recording import RecordedLifecycle

from crosswind.engine.state import (
    AdoptionRequest,
    PodDisposition,
    ReportState,
    RunResult,
    RunStage,
    RunTimes,
    SlotReleased,
    WorkerRun,
    Workload,
)
from crosswind.engine.worker_pod import WorkerTask
from crosswind.engine.workload_secrets import SecretBatch

FAILURE = RunResult(failed=True, reason="OOMKilled", message="why")


def a_workload(key: str = "key", **fields: Any) -> Workload:
    return Workload(key, WorkerTask("dag", key, "run", 1, f"{key}-id"), 1.0, lambda: b"{}", **fields)


def a_run(lifecycle: RecordedLifecycle, stage: RunStage = RunStage.CREATED, key: str = "key") -> WorkerRun:
    workload = a_workload(key)
    run = WorkerRun(workload, workload.task, RunTimes(1.0), stage=stage)
    lifecycle.registry.add(run)
    lifecycle.registry.newest[key] = run
    lifecycle.registry.set_pod(run, "ns", key)
    return run


def mount(lifecycle: RecordedLifecycle, *runs: WorkerRun, pending: bool = False) -> SecretBatch:
    batch = SecretBatch("s", "ns", 0.0, {run.unique_id: lambda: b"{}" for run in runs}, pending=pending)
    lifecycle.registry.secrets.add(batch)
    for run in runs:
        run.secret = "s"
    return batch


async def test_accepted_workloads_are_launched_and_prepared() -> None:
    lifecycle, prepared = RecordedLifecycle(), []
    lifecycle.accept([a_workload("a", prepare=lambda: prepared.append("a")), a_workload("b")])
    assert [run.workload.key for run in lifecycle.launched] == ["a", "b"]
    assert prepared == ["a"]


async def test_an_error_while_preparing_one_workload_leaves_all_launched() -> None:
    def broken() -> None:
        raise ValueError("not JSON")

    lifecycle = RecordedLifecycle()
    with pytest.raises(ValueError, match="not JSON"):
        lifecycle.accept([a_workload("a", prepare=broken), a_workload("b")])
    assert [run.workload.key for run in lifecycle.launched] == ["a", "b"]


async def test_the_try_after_a_claim_in_vain_starts_cold_and_the_one_after_it_as_ever() -> None:
    lifecycle = RecordedLifecycle()
    lifecycle.registry.start_next_try_cold(a_workload("a").task)
    lifecycle.accept([a_workload("a"), a_workload("b")])
    lifecycle.accept([a_workload("a")])
    assert [(run.workload.key, run.starts_cold) for run in lifecycle.launched] == [
        ("a", True),
        ("b", False),
        ("a", False),
    ]


async def test_tasks_that_never_come_again_are_forgotten() -> None:
    registry, first = RecordedLifecycle().registry, a_workload("first").task
    for number in range(5_001):
        registry.start_next_try_cold(replace(first, map_index=number))
    assert len(registry.cold_tasks) == 5_000
    assert not registry.begins_cold(replace(first, map_index=0))
    assert registry.begins_cold(replace(first, map_index=1))


async def test_a_workload_whose_unique_id_is_in_use_gets_another_one() -> None:
    lifecycle = RecordedLifecycle()
    lifecycle.accept([a_workload(), a_workload()])
    assert len({run.unique_id for run in lifecycle.launched}) == 2


async def test_while_no_pod_can_be_created_runs_fail_at_once() -> None:
    lifecycle = RecordedLifecycle()
    lifecycle.registry.refusal = "the kubeconfig is not YAML"
    lifecycle.accept([a_workload()])
    (run,) = lifecycle.ended
    assert (run.reason, run.message) == ("NotLaunched", "No pod could be created: the kubeconfig is not YAML")
    assert lifecycle.launched == []


async def test_a_success_releases_the_slot_and_a_failure_waits_for_the_database() -> None:
    lifecycle = RecordedLifecycle()
    good, bad = a_run(lifecycle, RunStage.RUNNING, "good"), a_run(lifecycle, RunStage.RUNNING, "bad")
    lifecycle.end(good, RunResult(failed=False))
    lifecycle.end(bad, FAILURE)
    assert list(lifecycle.registry.outbox) == [SlotReleased(good.workload)]
    assert lifecycle.ended == lifecycle.cleaned_up == [good, bad]
    assert lifecycle.registry.newest == {}
    assert lifecycle.metrics.counts == {("crosswind.pod_failures", "OOMKilled"): 1}


async def test_the_last_run_of_a_secret_has_it_deleted() -> None:
    lifecycle = RecordedLifecycle()
    first, last = a_run(lifecycle, key="first"), a_run(lifecycle, key="last")
    batch = mount(lifecycle, first, last)
    lifecycle.end(first, FAILURE)
    assert lifecycle.deleted_secrets == []
    lifecycle.end(last, FAILURE)
    assert lifecycle.deleted_secrets == [batch]


async def test_a_run_is_forgotten_when_its_pod_is_gone_and_its_end_is_settled() -> None:
    lifecycle = RecordedLifecycle()
    run = a_run(lifecycle)
    lifecycle.end(run, FAILURE)
    lifecycle.settle(run)
    assert lifecycle.registry.runs
    lifecycle.pod_removed(run)
    assert (lifecycle.registry.runs, lifecycle.registry.pods) == ({}, {})


async def test_a_run_of_another_executor_is_forgotten_without_a_report_or_a_clean_up() -> None:
    lifecycle = RecordedLifecycle()
    run = a_run(lifecycle, RunStage.RUNNING)
    lifecycle.release_to_other_executor(run)
    assert (run.stage, lifecycle.registry.runs, lifecycle.registry.newest) == (RunStage.ENDED, {}, {})
    assert (lifecycle.ended, lifecycle.cleaned_up) == ([], [])


@pytest.mark.parametrize("stage", [RunStage.WAITING, RunStage.CREATED])
async def test_a_dropped_run_frees_its_slot_and_an_existing_pod_is_deleted(stage: RunStage) -> None:
    lifecycle = RecordedLifecycle()
    run = a_run(lifecycle, stage)
    lifecycle.drop(run)
    assert list(lifecycle.registry.outbox) == [SlotReleased(run.workload)]
    assert run.revoked
    assert lifecycle.cleaned_up == ([run] if stage is RunStage.CREATED else [])


async def test_a_pod_whose_run_was_revoked_is_deleted_when_its_creation_is_answered() -> None:
    lifecycle = RecordedLifecycle()
    run = a_run(lifecycle, RunStage.WAITING)
    lifecycle.revoke("key")
    run.mark_created(2.0)
    lifecycle.pod_created(run)
    assert lifecycle.cleaned_up == [run]


async def test_a_cleared_task_without_a_pod_is_reported_by_a_run_of_its_own() -> None:
    lifecycle = RecordedLifecycle()
    run = a_run(lifecycle, RunStage.WAITING)
    lifecycle.restart(run)
    (cleared,) = lifecycle.ended
    assert (run.revoked, cleared is run) == (True, False)
    assert (cleared.workload, cleared.disposition) == (run.workload, PodDisposition.GONE)
    assert cleared.unique_id in lifecycle.registry.runs


async def test_a_new_session_gets_every_run_at_its_stage_and_unused_secrets() -> None:
    lifecycle = RecordedLifecycle()
    parts = lifecycle.parts
    waiting, ready = (a_run(lifecycle, RunStage.WAITING, key) for key in ("waiting", "ready"))
    running, over = a_run(lifecycle, RunStage.RUNNING, "running"), a_run(lifecycle, RunStage.RUNNING, "over")
    gone = a_run(lifecycle, RunStage.RUNNING, "gone")
    gone.mark_pod_gone()
    unused = mount(lifecycle, over)
    lifecycle.detach()
    lifecycle.end(over, FAILURE)
    assert lifecycle.cleaned_up == []
    mount(lifecycle, ready)
    lifecycle.attach(parts)
    assert lifecycle.launched == [waiting, ready]
    assert lifecycle.watched == ["ns", "ns"]
    assert lifecycle.cleaned_up == [over, unused]
    assert running.unseen_since is not None
    assert ready.secret == "s", "its Secret exists, so that its pod is created without another one"


async def test_a_secret_whose_creation_was_never_answered_is_replaced_in_a_new_session() -> None:
    lifecycle = RecordedLifecycle()
    parts = lifecycle.parts
    run = a_run(lifecycle, RunStage.WAITING)
    batch = mount(lifecycle, run, pending=True)
    lifecycle.detach()
    lifecycle.attach(parts)
    assert run.secret == ""
    assert lifecycle.launched == [run]
    assert lifecycle.deleted_secrets == [batch]


async def test_a_requested_adoption_is_a_run_of_its_own() -> None:
    lifecycle = RecordedLifecycle()
    workload = a_workload()
    lifecycle.request_adoption([AdoptionRequest("ti", ("dag", "key", "run", 1, -1), workload, owner="5")])
    (run,) = lifecycle.registry.at(RunStage.ADOPTING)
    assert (run.workload, run.report, lifecycle.registry.newest["key"]) == (workload, ReportState.PENDING, run)


async def test_runs_that_have_waited_too_long_for_a_session_fail_with_the_cause() -> None:
    lifecycle = RecordedLifecycle()
    run = a_run(lifecycle, RunStage.WAITING)
    lifecycle.fail_waiting("connection refused", patience=1e12)
    assert run.stage is RunStage.WAITING
    lifecycle.fail_waiting("connection refused", patience=0.0)
    assert run.message == "No pod could be created: connection refused"


@pytest.mark.parametrize("result", [FAILURE, RunResult(failed=False)])
async def test_a_run_whose_slot_was_released_ends_by_the_settings_without_a_report(result: RunResult) -> None:
    lifecycle = RecordedLifecycle()
    run = a_run(lifecycle)
    lifecycle.release_slot(run)
    lifecycle.registry.send_event(run, "pod waits", "for a node")
    lifecycle.revoke("key")  # of a later run under the same key
    assert run.disposition is PodDisposition.BY_POLICY
    assert (run.revoked, lifecycle.cleaned_up) == (False, [])
    lifecycle.end(run, result)
    assert (lifecycle.cleaned_up, lifecycle.ended) == ([run], [])
    assert list(lifecycle.registry.outbox) == [SlotReleased(run.workload)]
    lifecycle.pod_removed(run)
    assert lifecycle.registry.runs == {}


async def test_a_run_whose_slot_was_released_is_forgotten_when_no_trace_of_its_pod_exists() -> None:
    lifecycle = RecordedLifecycle()
    run = a_run(lifecycle, RunStage.ADOPTING)
    lifecycle.release_slot(run)
    run.mark_pod_gone()
    lifecycle.end(run, RunResult(failed=True, reason="PodLost", lost=True))
    assert lifecycle.registry.runs == {}
    assert lifecycle.ended == []
