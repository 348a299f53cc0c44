from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from any_json import any_pod
from crosswind.pods.loss_evidence import loss_of
from crosswind.pods.verdict import BaseState, judge

RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
TERMINATED_REPORT = json.dumps({"crosswind": 1, "reason": "terminated"}, separators=(",", ":"))
OOM_REPORT = json.dumps({"crosswind": 1, "reason": "oom"}, separators=(",", ":"))


def ended(code: int, reason: str = "Error", message: str = "", at: str = "2026-01-01T00:01:00Z") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": at}}


def condition(kind: str, status: str = "True", reason: str = "", at: str = "2026-01-01T00:00:30Z") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "lastTransitionTime": at}


def mark(reason: str, at: str = "2026-01-01T00:00:30Z") -> dict[str, str]:
    return condition("DisruptionTarget", reason=reason, at=at)


UNREADY_NODE = (condition("Ready", "False"), condition("ContainersReady"))


def pod(
    state: dict[str, Any], *conditions: dict[str, str], phase: str = "Failed", deleting: bool = False, **status: str
) -> dict[str, Any]:
    return {
        "metadata": {"name": "p"} | ({"deletionTimestamp": "2026-01-01T00:01:00Z"} if deleting else {}),
        "spec": {"containers": [{"name": "base"}], "restartPolicy": "Never", "nodeName": "n"},
        "status": {
            "phase": phase,
            "containerStatuses": [{"name": "base", "state": state}] if state else [],
            "conditions": list(conditions),
            **status,
        },
    }


def loss(manifest: dict[str, Any], *, deleted: bool = False, deleted_is_loss: bool = False) -> str:
    verdict = judge(manifest, deleted=deleted)
    return loss_of(manifest, verdict, deleted=deleted, deleted_is_loss=deleted_is_loss)


DISRUPTIONS = (
    *("PreemptionByScheduler", "DeletionByTaintManager", "EvictionByEvictionAPI"),
    *("DeletionByPodGC", "TerminationByKubelet"),
)


@pytest.mark.parametrize("reason", DISRUPTIONS)
@pytest.mark.parametrize("code", [143, 137, 1])
def test_a_pod_that_a_controller_marked_before_base_ended_is_lost(reason: str, code: int) -> None:
    assert loss(pod(ended(code), mark(reason), deleting=True)) == reason


@pytest.mark.parametrize("reason", DISRUPTIONS)
def test_a_marked_pod_that_is_gone_is_lost(reason: str) -> None:
    assert loss(pod(RUNNING, mark(reason), phase="Running", deleting=True), deleted=True) == reason


@pytest.mark.parametrize("reason", DISRUPTIONS)
def test_a_marked_pod_whose_base_runs_is_not_lost_yet(reason: str) -> None:
    manifest = pod(RUNNING, mark(reason), phase="Running", deleting=True)
    assert judge(manifest).state is BaseState.RUNNING
    assert loss(manifest) == ""


LOST = {
    "preempted by Kueue": (
        pod(ended(143), condition("TerminationTarget", reason="WorkloadEvicted")),
        "TerminationTarget",
    ),
    "evicted for want of memory on the node": (pod(ended(137), reason="Evicted", message="low"), "Evicted"),
    "evicted before it started": (pod({}, reason="Evicted", message="low"), "Evicted"),
    "shut down with its node": (pod(ended(143), reason="Terminated"), "Terminated"),
    "not admitted by its node": (pod({}, reason="OutOfcpu"), "OutOfcpu"),
    "its node started again": (pod(ended(255, "Unknown")), "ContainerStatusUnknown"),
    "its container was lost": (pod(ended(137, "ContainerStatusUnknown")), "ContainerStatusUnknown"),
    "stopped by its node, which says nothing": (pod(ended(143, message=TERMINATED_REPORT)), "TerminatedBySignal"),
    "on a dead node": (
        pod(RUNNING, mark("DeletionByTaintManager"), *UNREADY_NODE, phase="Running", deleting=True),
        "DeletionByTaintManager",
    ),
    "on a node that died while the pod started": (
        pod(
            {"waiting": {"reason": "ContainerCreating"}},
            mark("DeletionByTaintManager"),
            condition("Ready", "False", "ContainersNotReady"),
            condition("ContainersReady", "False", "ContainersNotReady"),
            phase="Pending",
            deleting=True,
        ),
        "DeletionByTaintManager",
    ),
}

NOT_LOST = {
    "success": pod(ended(0, "Completed"), phase="Succeeded"),
    "success of an evicted pod": pod(ended(0, "Completed"), mark("EvictionByEvictionAPI"), deleting=True),
    "failure of the task": pod(ended(1)),
    "failure of the task before the mark": pod(ended(1, at="2026-01-01T00:00:10Z"), mark("EvictionByEvictionAPI")),
    "out of memory": pod(ended(137, "OOMKilled")),
    "out of memory while it is evicted": pod(ended(137, "OOMKilled"), mark("EvictionByEvictionAPI"), deleting=True),
    "out of memory, seen by the worker alone": pod(ended(137, message=OOM_REPORT), mark("TerminationByKubelet")),
    "killed by itself": pod(ended(137)),
    "deadline": pod(ended(143, message=TERMINATED_REPORT), reason="DeadlineExceeded"),
    "more disk than its limit": pod(
        ended(143, message=TERMINATED_REPORT), reason="Evicted", message='emptyDir "x" exceeds the limit "1Gi".'
    ),
    "deleted by a person": pod(ended(143, message=TERMINATED_REPORT), deleting=True),
    "image missing": pod({"waiting": {"reason": "InvalidImageName"}}, phase="Pending"),
    "mark that was taken back": pod(ended(1), condition("DisruptionTarget", "False", "EvictionByEvictionAPI")),
}


@pytest.mark.parametrize("name", LOST)
def test_what_the_cluster_took_is_lost(name: str) -> None:
    manifest, reason = LOST[name]
    assert loss(manifest) == reason


@pytest.mark.parametrize("name", NOT_LOST)
def test_what_the_task_or_a_person_did_is_no_loss(name: str) -> None:
    assert loss(NOT_LOST[name]) == ""


def test_a_pod_that_disappeared_without_a_mark_was_deleted_by_a_person() -> None:
    manifest = pod(RUNNING, phase="Running", deleting=True)
    assert loss(manifest, deleted=True) == ""
    assert loss(manifest, deleted=True, deleted_is_loss=True) == "Deleted"


def test_a_pod_that_disappeared_with_its_node_is_lost() -> None:
    assert loss(pod(RUNNING, *UNREADY_NODE, phase="Running"), deleted=True) == "NodeLost"


@pytest.mark.parametrize(
    ("state", "expected"), [(ended(143), "Deleted"), (ended(137), "Deleted"), (ended(1), ""), (ended(0), "")]
)
def test_a_deletion_counts_where_that_is_wished_unless_the_task_ended_by_itself(
    state: dict[str, Any], expected: str
) -> None:
    assert loss(pod(state, deleting=True), deleted_is_loss=True) == expected


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        (UNREADY_NODE, BaseState.GONE),
        ((condition("Ready"), condition("ContainersReady")), BaseState.RUNNING),
        # a kubelet that ends the pod gives a reason
        ((condition("Ready", "False", "ContainersNotReady"), condition("ContainersReady", "False")), BaseState.RUNNING),
        ((condition("Ready", "False", "ReadinessGatesNotReady"), condition("ContainersReady")), BaseState.RUNNING),
        ((), BaseState.RUNNING),
    ],
)
def test_a_tainted_pod_is_gone_only_while_its_node_is_not_ready(
    conditions: tuple[dict[str, str], ...], state: BaseState
) -> None:
    manifest = pod(RUNNING, mark("DeletionByTaintManager"), *conditions, phase="Running", deleting=True)
    assert judge(manifest).state is state


@given(any_pod)
def test_any_json_gets_an_answer(value: Any) -> None:
    for deleted in (False, True):
        assert isinstance(loss_of(value, judge(value, deleted=deleted), deleted=deleted, deleted_is_loss=True), str)
