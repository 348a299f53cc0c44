from __future__ import annotations

from typing import Any

import pytest

from crosswind.podrun.reattach import EarlierPodState, could_start, earlier_pod_state, preferred_pod, was_stopped
from crosswind.pods.verdict import judge

FATAL = frozenset({"ErrImagePull"})


def pod(*, state: dict[str, Any] | None = None, phase: str = "Running", **metadata: Any) -> dict[str, Any]:
    statuses = [{"name": "base", "state": state}] if state else []
    return {
        "metadata": {"name": "pod", "uid": "1", "labels": {}} | metadata,
        "spec": {"restartPolicy": "Never", "containers": [{"name": "base"}]},
        "status": {"phase": phase, "containerStatuses": statuses},
    }


def ended(code: int, at: str = "2026-01-01T00:00:10Z") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": "Completed", "finishedAt": at}}


def leaving(since: str = "2026-01-01T00:00:20Z") -> dict[str, Any]:
    """Return metadata of a pod whose deletion was requested at a time; the time stamp is the grace period's end."""
    return {"deletionTimestamp": since.replace(":20Z", ":50Z"), "deletionGracePeriodSeconds": 30}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (pod(phase="Pending"), EarlierPodState.ALIVE),
        (pod(state={"running": {}}), EarlierPodState.ALIVE),
        (pod(state=ended(0)), EarlierPodState.SUCCEEDED),
        (pod(state=ended(1), phase="Failed"), EarlierPodState.FAILED),
        (pod(phase="Failed") | {"status": {"phase": "Failed", "reason": "Evicted"}}, EarlierPodState.FAILED),
        (pod() | {"status": {"phase": "Failed", "reason": "DeadlineExceeded"}}, EarlierPodState.FAILED),
        (pod() | {"status": {"phase": "Failed", "reason": "OutOfcpu"}}, EarlierPodState.FAILED),
        (pod(state={"waiting": {"reason": "ErrImagePull"}}, phase="Pending"), EarlierPodState.FAILED),
        (pod(state=ended(0), labels={"already_checked": "True"}), EarlierPodState.USED),
        (pod(state={"running": {}}, labels={"already_checked": "True"}), EarlierPodState.USED),
        (pod(state=ended(0), uid="7"), EarlierPodState.USED),
        (pod(state={"running": {}}, **leaving()), EarlierPodState.TERMINATING),
        (pod(phase="Pending", **leaving()), EarlierPodState.TERMINATING),
        (pod(state=ended(0), **leaving()), EarlierPodState.SUCCEEDED),
        (pod(state=ended(0, "2026-01-01T00:00:20Z"), **leaving()), EarlierPodState.SUCCEEDED),
        (pod(state=ended(0, "2026-01-01T00:00:25Z"), **leaving()), EarlierPodState.TERMINATING),
        (pod(state=ended(0, "later"), **leaving()), EarlierPodState.TERMINATING),
        (pod(state=ended(1), **leaving()), EarlierPodState.TERMINATING),
    ],
)
def test_the_state_of_an_earlier_trys_pod(given: dict[str, Any], expected: EarlierPodState) -> None:
    assert earlier_pod_state(given, "base", FATAL, used=("7",)) is expected


def test_a_failed_init_container_makes_a_dead_pod_without_a_state_of_base() -> None:
    init = {"name": "before", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
    given = pod(phase="Failed") | {"status": {"phase": "Failed", "initContainerStatuses": [init]}}
    given["spec"]["initContainers"] = [{"name": "before"}]
    assert earlier_pod_state(given, "base", FATAL) is EarlierPodState.FAILED


def test_the_living_pod_is_preferred_then_the_newest() -> None:
    dead = pod(state=ended(1), phase="Failed", labels={"try_number": "3"})
    done = pod(state=ended(0), labels={"try_number": "4"})
    old = pod(state={"running": {}}, labels={"try_number": "1"}, creationTimestamp="2026-01-01T00:00:00Z")
    new = pod(state={"running": {}}, labels={"try_number": "1"}, creationTimestamp="2026-01-01T00:00:01Z")
    pods = [dead, new, done, old]
    states = [earlier_pod_state(pod, "base", FATAL) for pod in pods]
    assert pods[preferred_pod(pods, states)] is new
    assert preferred_pod([dead, done], [states[0], states[2]]) == 1
    assert preferred_pod([old, pod(labels={"try_number": "2"})], [EarlierPodState.ALIVE, EarlierPodState.ALIVE]) == 1


@pytest.mark.parametrize(
    ("ended_at", "reasons", "expected"),
    [
        ("10", ["Started"], False),
        ("10", [], False),
        ("10", ["Started", "Killing"], True),  # the node's clock is behind
        ("20", ["Started"], False),
        ("20", ["Started", "Killing"], True),
        ("20", [], True),
    ],
)
def test_the_kubelet_reports_whether_it_stopped_base(ended_at: str, reasons: list[str], expected: bool) -> None:
    given = pod(state=ended(0, f"2026-01-01T00:00:{ended_at}Z"), **leaving())
    events = [{"reason": reason, "involvedObject": {"fieldPath": "spec.containers{base}"}} for reason in reasons]
    side = {"reason": "Killing", "involvedObject": {"fieldPath": "spec.containers{side}"}}
    assert was_stopped(given, [*events, side, None], "base") is expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (pod(phase="Pending"), True),
        (pod(state={"waiting": {"reason": "ErrImagePull"}}, phase="Pending"), True),
        ({"metadata": {"name": "pod"}}, True),
        (pod(state={"running": {}}), False),
        (pod(state=ended(1), phase="Failed"), False),
        (pod() | {"status": {"phase": "Failed", "reason": "Evicted"}}, False),
    ],
)
def test_a_pod_that_never_began_could_start_after_all(given: dict[str, Any], expected: bool) -> None:
    assert could_start(given, judge(given, fatal=FATAL, restarts=True)) is expected
