from __future__ import annotations

from typing import Any

import pytest

from crosswind.pods.reattaching import Standing, could_start, preferred, standing, was_stopped
from crosswind.pods.verdicts import judge

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
    """Metadata of a pod whose deletion was asked for at a time: its time stamp is the end of the grace period."""
    return {"deletionTimestamp": since.replace(":20Z", ":50Z"), "deletionGracePeriodSeconds": 30}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (pod(phase="Pending"), Standing.LIVING),
        (pod(state={"running": {}}), Standing.LIVING),
        (pod(state=ended(0)), Standing.SUCCEEDED),
        (pod(state=ended(1), phase="Failed"), Standing.DEAD),
        (pod(phase="Failed") | {"status": {"phase": "Failed", "reason": "Evicted"}}, Standing.DEAD),
        (pod() | {"status": {"phase": "Failed", "reason": "DeadlineExceeded"}}, Standing.DEAD),
        (pod() | {"status": {"phase": "Failed", "reason": "OutOfcpu"}}, Standing.DEAD),
        (pod(state={"waiting": {"reason": "ErrImagePull"}}, phase="Pending"), Standing.DEAD),
        (pod(state=ended(0), labels={"already_checked": "True"}), Standing.USED),
        (pod(state={"running": {}}, labels={"already_checked": "True"}), Standing.USED),
        (pod(state=ended(0), uid="7"), Standing.USED),
        (pod(state={"running": {}}, **leaving()), Standing.LEAVING),
        (pod(phase="Pending", **leaving()), Standing.LEAVING),
        (pod(state=ended(0), **leaving()), Standing.SUCCEEDED),
        (pod(state=ended(0, "2026-01-01T00:00:20Z"), **leaving()), Standing.SUCCEEDED),
        (pod(state=ended(0, "2026-01-01T00:00:25Z"), **leaving()), Standing.LEAVING),
        (pod(state=ended(0, "later"), **leaving()), Standing.LEAVING),
        (pod(state=ended(1), **leaving()), Standing.LEAVING),
    ],
)
def test_what_a_pod_of_an_earlier_try_is_to_the_next_one(given: dict[str, Any], wanted: Standing) -> None:
    assert standing(given, "base", FATAL, used=("7",)) is wanted


def test_a_failed_init_container_makes_a_dead_pod_without_a_state_of_base() -> None:
    init = {"name": "before", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
    given = pod(phase="Failed") | {"status": {"phase": "Failed", "initContainerStatuses": [init]}}
    given["spec"]["initContainers"] = [{"name": "before"}]
    assert standing(given, "base", FATAL) is Standing.DEAD


def test_of_several_pods_the_living_one_counts_then_the_newest() -> None:
    dead = pod(state=ended(1), phase="Failed", labels={"try_number": "3"})
    done = pod(state=ended(0), labels={"try_number": "4"})
    old = pod(state={"running": {}}, labels={"try_number": "1"}, creationTimestamp="2026-01-01T00:00:00Z")
    new = pod(state={"running": {}}, labels={"try_number": "1"}, creationTimestamp="2026-01-01T00:00:01Z")
    pods = [dead, new, done, old]
    found = [standing(one, "base", FATAL) for one in pods]
    assert pods[preferred(pods, found)] is new
    assert preferred([dead, done], [found[0], found[2]]) == 1
    assert preferred([old, pod(labels={"try_number": "2"})], [Standing.LIVING, Standing.LIVING]) == 1


@pytest.mark.parametrize(
    ("ended_at", "reasons", "wanted"),
    [
        ("10", ["Started"], False),
        ("10", [], False),
        ("10", ["Started", "Killing"], True),  # the node's clock is behind
        ("20", ["Started"], False),
        ("20", ["Started", "Killing"], True),
        ("20", [], True),
    ],
)
def test_the_kubelet_reports_whether_it_stopped_base(ended_at: str, reasons: list[str], wanted: bool) -> None:
    given = pod(state=ended(0, f"2026-01-01T00:00:{ended_at}Z"), **leaving())
    events = [{"reason": one, "involvedObject": {"fieldPath": "spec.containers{base}"}} for one in reasons]
    side = {"reason": "Killing", "involvedObject": {"fieldPath": "spec.containers{side}"}}
    assert was_stopped(given, [*events, side, None], "base") is wanted


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (pod(phase="Pending"), True),
        (pod(state={"waiting": {"reason": "ErrImagePull"}}, phase="Pending"), True),
        ({"metadata": {"name": "pod"}}, True),
        (pod(state={"running": {}}), False),
        (pod(state=ended(1), phase="Failed"), False),
        (pod() | {"status": {"phase": "Failed", "reason": "Evicted"}}, False),
    ],
)
def test_a_pod_that_never_began_could_start_after_all(given: dict[str, Any], wanted: bool) -> None:
    assert could_start(given, judge(given, fatal=FATAL, restarts=True)) is wanted
