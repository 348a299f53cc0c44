from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelocal.controllers.job_sync import TRACKING, decide, format_indexes, parse_indexes

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def stamp(seconds_ago: float = 0) -> str:
    return (NOW - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": {"job-name": "j"}}, "spec": {"containers": [{"name": "base"}]}}
    spec = {"parallelism": 1, "completions": 1, "backoffLimit": 6, "template": template, **spec}
    metadata = {"name": "j", "namespace": "n", "uid": "u", "creationTimestamp": stamp(100)}
    return {"metadata": metadata, "spec": spec, "status": status or {}}


def pod(name: str, phase: str, *, ago: float = 0, counted: bool = False, **more: Any) -> dict[str, Any]:
    ended = [{"name": "base", "restartCount": 0, "state": {"terminated": {"finishedAt": stamp(ago)}}}]
    status: dict[str, Any] = {"phase": phase}
    if phase in ("Succeeded", "Failed"):
        status["containerStatuses"] = ended
    metadata = {"name": name, "creationTimestamp": stamp(50), "finalizers": [] if counted else [TRACKING]}
    return {"metadata": {**metadata, **more.pop("metadata", {})}, "spec": more.pop("spec", {}), "status": status | more}


def conditions(status: dict[str, Any]) -> dict[str, str]:
    return {c["type"]: c["reason"] for c in status.get("conditions", []) if c["status"] == "True"}


def test_new_job_gets_its_pods_and_a_start_time() -> None:
    plan = decide(job(parallelism=3, completions=2), [], NOW)
    assert plan.status["startTime"] == stamp()
    assert len(plan.create) == 2
    made = plan.create[0]["metadata"]
    assert (made["generateName"], made["finalizers"], made["labels"]) == ("j-", [TRACKING], {"job-name": "j"})
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "u"}
    assert made["ownerReferences"] == [{**owner, "controller": True, "blockOwnerDeletion": True}]


@pytest.mark.parametrize(
    ("phases", "succeeded", "failed", "active"),
    [
        (["Running"], None, None, 1),
        (["Succeeded", "Running"], 1, None, 1),
        (["Failed", "Failed", "Pending"], None, 2, 1),
    ],
)
def test_pods_are_counted(phases: list[str], succeeded: int | None, failed: int | None, active: int) -> None:
    pods = [pod(f"p{i}", phase) for i, phase in enumerate(phases)]
    plan = decide(job(completions=9, parallelism=len(phases)), pods, NOW)
    assert [plan.status.get(k) for k in ("succeeded", "failed", "active")] == [succeeded, failed, active]
    assert set(plan.release) == {f"p{i}" for i, phase in enumerate(phases) if phase in ("Succeeded", "Failed")}


def test_counted_pods_are_not_counted_again() -> None:
    plan = decide(job({"failed": 1, "startTime": stamp(9)}), [pod("a", "Failed", counted=True)], NOW)
    assert plan.status["failed"] == 1


def test_job_is_complete_when_enough_pods_have_succeeded() -> None:
    plan = decide(job({"startTime": stamp(9)}), [pod("a", "Succeeded")], NOW)
    done = {"SuccessCriteriaMet": "CompletionsReached", "Complete": "CompletionsReached"}
    assert conditions(plan.status) == done
    assert plan.status["completionTime"] == stamp()
    assert [h.reason for h in plan.events] == ["Completed"]


def test_work_queue_is_complete_when_one_has_succeeded_and_the_rest_ended() -> None:
    queue = job({"startTime": stamp(9)}, completions=None, parallelism=2)
    going_on = decide(queue, [pod("a", "Succeeded"), pod("b", "Running")], NOW)
    assert (conditions(going_on.status), going_on.create) == ({}, ())
    over = decide(queue, [pod("a", "Succeeded"), pod("b", "Failed")], NOW)
    assert "Complete" in conditions(over.status)


def test_job_fails_beyond_its_backoff_limit() -> None:
    plan = decide(job({"startTime": stamp(9)}, backoffLimit=0), [pod("a", "Failed")], NOW)
    assert conditions(plan.status)["Failed"] == "BackoffLimitExceeded"
    assert "completionTime" not in plan.status


def test_restarts_in_place_count_against_the_backoff_limit() -> None:
    restarted = pod("a", "Running", spec={"restartPolicy": "OnFailure"}, containerStatuses=[{"restartCount": 2}])
    assert decide(job({"startTime": stamp(9)}, backoffLimit=3), [restarted], NOW).delete == ()
    plan = decide(job({"startTime": stamp(9)}, backoffLimit=2), [restarted], NOW)
    assert (plan.delete, conditions(plan.status)) == (("a",), {"FailureTarget": "BackoffLimitExceeded"})


def test_failing_job_waits_for_its_last_pod_before_it_says_so() -> None:
    old = job({"startTime": stamp(60)}, activeDeadlineSeconds=30)
    first = decide(old, [pod("a", "Running")], NOW)
    assert (first.delete, conditions(first.status)) == (("a",), {"FailureTarget": "DeadlineExceeded"})
    ending = pod("a", "Running", counted=True, metadata={"deletionTimestamp": stamp()})
    second = decide(job(first.status, activeDeadlineSeconds=30), [ending], NOW)
    assert "Failed" not in conditions(second.status)
    last = decide(job(second.status, activeDeadlineSeconds=30), [], NOW)
    assert conditions(last.status)["Failed"] == "DeadlineExceeded"


def test_deadline_is_looked_at_in_time() -> None:
    assert decide(job({"startTime": stamp(10)}, activeDeadlineSeconds=30), [pod("a", "Running")], NOW).wait == 20


@pytest.mark.parametrize(("failures", "pause"), [(1, 10.0), (2, 20.0), (3, 40.0), (40, 600.0)])
def test_new_tries_wait_longer_with_each_failure(failures: int, pause: float) -> None:
    failed = [pod(f"p{i}", "Failed") for i in range(failures)]
    plan = decide(job({"startTime": stamp(9)}, backoffLimit=99), failed, NOW)
    assert (plan.create, plan.wait) == ((), pause)


def terminating(asked_ago: float, grace: int = 600, **more: Any) -> dict[str, Any]:
    """A pod whose deletion was asked for, and which may run on until the end of its grace period."""
    metadata = {"deletionTimestamp": stamp(asked_ago - grace), "deletionGracePeriodSeconds": grace}
    spec = {"nodeName": "x"}
    return pod("old", "Running", metadata=metadata | more.pop("metadata", {}), **{"spec": spec, **more})


@pytest.mark.parametrize(("asked_ago", "created", "wait"), [(11, 1, None), (4, 0, 6.0)])
def test_a_terminating_pod_is_replaced_after_the_back_off_and_not_after_its_grace_period(
    asked_ago: float, created: int, wait: float | None
) -> None:
    plan = decide(job({"startTime": stamp(99)}), [terminating(asked_ago)], NOW)
    assert (len(plan.create), plan.wait, plan.status["failed"]) == (created, wait, 1)


def test_a_pod_whose_containers_have_not_all_ended_ended_when_it_was_no_longer_ready() -> None:
    ended = [{"name": "a", "state": {"terminated": {"finishedAt": stamp(50)}}}, {"name": "b", "state": {"running": {}}}]
    unready = [{"type": "Ready", "status": "False", "lastTransitionTime": stamp(3)}]
    plan = decide(job({"startTime": stamp(99)}), [terminating(9, containerStatuses=ended, conditions=unready)], NOW)
    assert (plan.create, plan.wait) == ((), 7.0)


def test_a_job_that_replaces_failed_pods_alone_waits_for_a_terminating_one() -> None:
    body = job({"startTime": stamp(99)}, podReplacementPolicy="Failed")
    plan = decide(body, [terminating(11)], NOW)
    assert (plan.create, plan.release) == ((), ())
    assert [plan.status.get(key) for key in ("active", "failed", "terminating")] == [None, None, 1]
    failed = decide(body, [pod("old", "Failed", ago=11, metadata={"deletionTimestamp": stamp()})], NOW)
    assert (len(failed.create), failed.status["failed"]) == (1, 1)


def test_a_terminating_pod_of_a_job_that_replaces_failed_pods_alone_keeps_its_index() -> None:
    body = job({"startTime": stamp(99)}, podReplacementPolicy="Failed", completionMode="Indexed", completions=3)
    body["spec"]["parallelism"] = 2
    held = terminating(11, metadata={"annotations": {"batch.kubernetes.io/job-completion-index": "0"}})
    assert [p["spec"]["hostname"] for p in decide(body, [held], NOW).create] == ["j-1"]


def test_a_deleted_pod_that_had_no_node_holds_no_slot() -> None:
    body = job({"startTime": stamp(99)}, podReplacementPolicy="Failed")
    assert len(decide(body, [terminating(11, spec={})], NOW).create) == 1


def test_success_makes_the_next_try_prompt() -> None:
    pods = [pod("a", "Failed", ago=30), pod("b", "Succeeded", ago=1)]
    assert len(decide(job({"startTime": stamp(99)}, completions=5), pods, NOW).create) == 1


def test_suspended_job_ends_its_pods_without_counting_them() -> None:
    plan = decide(job({"startTime": stamp(9)}, suspend=True), [pod("a", "Running")], NOW)
    assert (plan.delete, plan.release) == (("a",), ("a",))
    assert (conditions(plan.status), "startTime" in plan.status) == ({"Suspended": "JobSuspended"}, False)
    resumed = decide(job(plan.status), [], NOW)
    assert (conditions(resumed.status), resumed.status["startTime"], len(resumed.create)) == ({}, stamp(), 1)
    assert [h.reason for h in resumed.events] == ["Resumed"]


def test_surplus_pods_go_the_cheapest_first() -> None:
    running, pending = pod("a", "Running", spec={"nodeName": "x"}), pod("b", "Pending")
    plan = decide(job({"startTime": stamp(9)}, completions=5, parallelism=1), [running, pending], NOW)
    assert (plan.delete, plan.release) == (("b",), ("b",))


@pytest.mark.parametrize(("ago", "remove", "wait"), [(5, False, 5.0), (10, True, None)])
def test_finished_job_goes_after_its_time(ago: float, remove: bool, wait: float | None) -> None:
    ended = {"type": "Complete", "status": "True", "reason": "", "lastTransitionTime": stamp(ago)}
    plan = decide(job({"conditions": [ended]}, ttlSecondsAfterFinished=10), [], NOW)
    assert (plan.remove, plan.wait) == (remove, wait)


def test_indexed_job_makes_the_missing_indexes() -> None:
    done = pod("a", "Succeeded", metadata={"annotations": {"batch.kubernetes.io/job-completion-index": "1"}})
    body = job({"startTime": stamp(9)}, completionMode="Indexed", completions=4, parallelism=2)
    plan = decide(body, [done], NOW)
    assert (plan.status["completedIndexes"], plan.status["succeeded"]) == ("1", 1)
    assert [p["spec"]["hostname"] for p in plan.create] == ["j-0", "j-2"]
    first = plan.create[0]
    assert first["metadata"]["generateName"] == "j-0-"
    assert first["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"


def test_job_that_is_being_deleted_makes_no_pods() -> None:
    body = job({"startTime": stamp(9)})
    body["metadata"]["deletionTimestamp"] = stamp()
    assert decide(body, [], NOW).create == ()


@given(st.sets(st.integers(0, 300)))
def test_indexes_are_read_as_they_are_written(indexes: set[int]) -> None:
    assert parse_indexes(format_indexes(indexes)) == indexes


@given(st.lists(st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]), max_size=8), st.integers(1, 5))
def test_job_never_has_more_pods_than_it_may(phases: list[str], parallelism: int) -> None:
    pods = [pod(f"p{i}", phase, ago=999) for i, phase in enumerate(phases)]
    plan = decide(job({"startTime": stamp(99)}, parallelism=parallelism, completions=4), pods, NOW)
    active = sum(phase in ("Pending", "Running") for phase in phases)
    assert len(plan.create) + active - len(plan.delete) <= max(parallelism, 0) or "Complete" in conditions(plan.status)
