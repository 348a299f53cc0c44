from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from kubelocal.controllers.deployment_sync import decide_deployment
from kubelocal.controllers.replica_set_sync import WorkloadPlan
from replicated import NOW, owner, stamp

ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}


def deployment(*, status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return owner("Deployment", status=status, **{"strategy": ROLLING, "progressDeadlineSeconds": 600, **spec})


def made(deployment: dict[str, Any]) -> dict[str, Any]:
    """Return the ReplicaSet that a new template gets."""
    (one,) = decide_deployment(deployment, [], NOW).create
    return {**one, "metadata": {**one["metadata"], "creationTimestamp": stamp(50)}}


def replica_set(image: str, replicas: int, available: int | None = None, *, number: int = 1, **status: Any) -> Any:
    one = made(deployment(image=image))
    one["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = str(number)
    one["spec"]["replicas"] = replicas
    ready = replicas if available is None else available
    one["status"] = {"replicas": replicas, "readyReplicas": ready, "availableReplicas": ready, **status}
    return one


def scaled(plan: WorkloadPlan, *sets: dict[str, Any]) -> list[int | None]:
    """Return what each set is to have, None where it stays."""
    return [plan.patch.get(one["metadata"]["name"], {}).get("spec", {}).get("replicas") for one in sets]


def condition(plan: WorkloadPlan, kind: str) -> tuple[str, str]:
    found = next(one for one in plan.status["conditions"] if one["type"] == kind)
    return found["status"], found["reason"]


def test_a_new_template_gets_a_replica_set_of_its_own() -> None:
    plan = decide_deployment(deployment(), [], NOW)
    (one,) = plan.create
    mark = one["spec"]["template"]["metadata"]["labels"]["pod-template-hash"]
    assert one["metadata"]["name"] == f"web-{mark}"
    assert one["spec"]["selector"]["matchLabels"] == {"app": "web", "pod-template-hash": mark}
    assert (one["spec"]["replicas"], plan.annotations) == (2, {"deployment.kubernetes.io/revision": "1"})
    assert condition(plan, "Progressing") == ("True", "NewReplicaSetCreated")


@pytest.mark.parametrize(
    ("strategy", "old", "new", "wanted"),
    [
        ({"maxSurge": 1, "maxUnavailable": 0}, (2, 2), (1, 0), [None, None]),
        ({"maxSurge": 1, "maxUnavailable": 0}, (2, 2), (1, 1), [1, None]),
        ({"maxSurge": 1, "maxUnavailable": 0}, (1, 1), (1, 1), [None, 2]),
        ({"maxSurge": 1, "maxUnavailable": 0}, (1, 1), (2, 2), [0, None]),
        ({"maxSurge": 0, "maxUnavailable": 1}, (2, 2), (0, 0), [1, None]),
        ({"maxSurge": 0, "maxUnavailable": 0}, (2, 2), (0, 0), [1, None]),
        ({"maxSurge": 1, "maxUnavailable": 1}, (2, 0), (1, 0), [1, None]),
    ],
)
def test_pods_move_step_by_step_and_enough_stay(
    strategy: dict[str, Any], old: tuple[int, int], new: tuple[int, int], wanted: list[int | None]
) -> None:
    sets = [replica_set("old", *old), replica_set("a", *new, number=2)]
    given = deployment(strategy={"type": "RollingUpdate", "rollingUpdate": strategy})
    assert scaled(decide_deployment(given, sets, NOW), *sets) == wanted


@pytest.mark.parametrize(
    ("old", "wanted"),
    [
        (replica_set("old", 2), [0, None]),
        (replica_set("old", 0, terminatingReplicas=1), [None, None]),
        (replica_set("old", 0, terminatingReplicas=0), [None, 2]),
    ],
)
def test_recreate_waits_until_the_old_pods_are_gone(old: Any, wanted: list[int | None]) -> None:
    sets = [old, replica_set("a", 0, number=2)]
    assert scaled(decide_deployment(deployment(strategy={"type": "Recreate"}), sets, NOW), *sets) == wanted


def test_going_back_makes_the_old_set_the_newest() -> None:
    sets = [replica_set("a", 0, number=1), replica_set("b", 2, number=2)]
    plan = decide_deployment(deployment(), sets, NOW)
    assert plan.patch == {
        sets[0]["metadata"]["name"]: {"metadata": {"annotations": {"deployment.kubernetes.io/revision": "3"}}}
    }


def test_status_adds_the_sets_up() -> None:
    plan = decide_deployment(deployment(), [replica_set("old", 1), replica_set("a", 2, 1, number=2)], NOW)
    counts = {key: value for key, value in plan.status.items() if key != "conditions"}
    assert counts == {
        "observedGeneration": 3,
        "replicas": 3,
        "updatedReplicas": 2,
        "readyReplicas": 2,
        "availableReplicas": 2,
        "unavailableReplicas": 1,
    }
    assert condition(plan, "Available") == ("True", "MinimumReplicasAvailable")


@pytest.mark.parametrize(
    ("available", "since", "wanted"),
    [
        (2, 0, ("True", "NewReplicaSetAvailable")),
        (1, 599, ("True", "ReplicaSetUpdated")),
        (1, 601, ("False", "ProgressDeadlineExceeded")),
    ],
)
def test_progress_is_told_and_has_a_deadline(available: int, since: int, wanted: tuple[str, str]) -> None:
    times = {"lastUpdateTime": stamp(since), "lastTransitionTime": stamp(since)}
    known = [{"type": "Progressing", "status": "True", "reason": "ReplicaSetUpdated", **times}]
    before = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 1, "availableReplicas": 1, "conditions": known}
    plan = decide_deployment(deployment(status=before), [replica_set("a", 2, available)], NOW)
    assert condition(plan, "Progressing") == wanted
    assert (plan.wait is None) == (wanted[1] != "ReplicaSetUpdated")


def test_a_finished_rollout_stays_finished_when_a_pod_fails_later() -> None:
    first = decide_deployment(deployment(), [replica_set("a", 2)], NOW)
    later = decide_deployment(deployment(status=first.status), [replica_set("a", 2, 0)], NOW + timedelta(hours=1))
    assert condition(later, "Progressing") == ("True", "NewReplicaSetAvailable")
    assert condition(later, "Available") == ("False", "MinimumReplicasUnavailable")


def test_old_sets_beyond_the_history_go() -> None:
    sets = [replica_set(image, 0, number=number) for number, image in enumerate(("x", "y", "z"), 1)]
    plan = decide_deployment(deployment(revisionHistoryLimit=1), [*sets, replica_set("a", 2, number=4)], NOW)
    assert plan.delete == tuple(one["metadata"]["name"] for one in sets[:2])


def test_paused_it_makes_no_new_set() -> None:
    assert decide_deployment(deployment(paused=True), [replica_set("old", 2)], NOW).create == ()
