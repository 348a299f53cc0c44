from __future__ import annotations

from typing import Any

import pytest

from kubelocal.controllers.replica_set_sync import decide_replica_set, decide_stateful_set, template_hash
from replicated import NOW, owner, pod, stamp

GOING = {"deletionTimestamp": stamp()}


def replica_set(**spec: Any) -> dict[str, Any]:
    return owner("ReplicaSet", **spec)


def stateful_set(**spec: Any) -> dict[str, Any]:
    return owner("StatefulSet", serviceName="web", **spec)


def numbered(number: int, *, image: str = "a", **more: Any) -> dict[str, Any]:
    revision = f"web-{template_hash(owner('StatefulSet', image=image)['spec']['template'])}"
    return pod(f"web-{number}", labels={"controller-revision-hash": revision}, **more)


@pytest.mark.parametrize(
    ("pods", "made", "deleted"),
    [
        ([], 2, ()),
        ([pod("a")], 1, ()),
        ([pod("a"), pod("b")], 0, ()),
        ([pod("a"), pod("b", "Failed", ready=None)], 1, ()),
        ([pod("a"), pod("b", **GOING)], 1, ()),
        ([pod("a"), pod("b"), pod("c", "Pending", ready=None)], 0, ("c",)),
        ([pod("a", ago=5), pod("b"), pod("c")], 0, ("a",)),
    ],
)
def test_a_replica_set_keeps_as_many_as_it_says(pods: list[Any], made: int, deleted: tuple[str, ...]) -> None:
    plan = decide_replica_set(replica_set(), pods, NOW)
    assert (len(plan.create), plan.delete) == (made, deleted)


def test_pods_are_made_from_the_template_and_belong_to_the_set() -> None:
    made = decide_replica_set(replica_set(), [], NOW).create[0]
    reference = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u"}
    assert made["metadata"] == {
        "generateName": "web-",
        "labels": {"app": "web"},
        "ownerReferences": [{**reference, "controller": True, "blockOwnerDeletion": True}],
    }


def test_pods_count_as_available_after_their_time() -> None:
    plan = decide_replica_set(replica_set(minReadySeconds=30), [pod("a", ready=50), pod("b", ready=10)], NOW)
    status = plan.status
    assert (status["replicas"], status["readyReplicas"], status["availableReplicas"]) == (2, 2, 1)
    assert plan.wait == 20
    assert status["observedGeneration"] == 3


@pytest.mark.parametrize(
    ("policy", "pods", "made"),
    [
        ("OrderedReady", [], ["web-0"]),
        ("OrderedReady", [numbered(0, ready=None)], []),
        ("OrderedReady", [numbered(0)], ["web-1"]),
        ("Parallel", [], ["web-0", "web-1"]),
        ("Parallel", [numbered(0, **GOING)], ["web-1"]),
    ],
)
def test_a_stateful_set_numbers_its_pods(policy: str, pods: list[Any], made: list[str]) -> None:
    plan = decide_stateful_set(stateful_set(podManagementPolicy=policy), pods, NOW)
    assert [one["metadata"]["name"] for one in plan.create] == made
    assert all(
        (one["spec"]["hostname"], one["spec"]["subdomain"]) == (one["metadata"]["name"], "web") for one in plan.create
    )


@pytest.mark.parametrize(
    ("pods", "deleted"),
    [
        ([numbered(0, image="old"), numbered(1, image="old")], ("web-1",)),
        ([numbered(0, image="old"), numbered(1)], ("web-0",)),
        ([numbered(0, image="old"), numbered(1, ready=None)], ()),
        ([numbered(0), numbered(1), numbered(2)], ("web-2",)),
        ([numbered(0), numbered(1, phase="Failed", ready=None)], ("web-1",)),
        ([numbered(0), numbered(1)], ()),
    ],
)
def test_a_stateful_set_replaces_from_the_highest_down(pods: list[Any], deleted: tuple[str, ...]) -> None:
    assert decide_stateful_set(stateful_set(), pods, NOW).delete == deleted


def test_a_stateful_set_is_at_its_new_revision_when_all_pods_are() -> None:
    old = {"currentRevision": "web-old"}
    half = decide_stateful_set(stateful_set(status=old), [numbered(0, image="b"), numbered(1)], NOW).status
    assert (half["currentRevision"], half["updatedReplicas"]) == ("web-old", 1)
    whole = decide_stateful_set(stateful_set(status=old), [numbered(0), numbered(1)], NOW).status
    assert (whole["currentRevision"], whole["updatedReplicas"]) == (whole["updateRevision"], 2)


def test_claims_of_a_stateful_set_are_made_before_the_pod_and_have_no_owner() -> None:
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}
    made, first = decide_stateful_set(stateful_set(volumeClaimTemplates=[claim]), [], NOW).create
    assert made["metadata"] == {"name": "data-web-0"}
    assert first["spec"]["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-0"}}]
