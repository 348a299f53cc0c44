"""What the kubelet does next, by tables."""

from __future__ import annotations

from typing import Any

import pytest

from kubelocal.kubelet.pod_actions import (
    ContainerEnd,
    ContainerRecord,
    ContainerStop,
    PodActions,
    all_containers,
    next_actions,
    stop_after,
)

NONE = ContainerRecord()
RUNS = ContainerRecord(state="running", image="i", startup=True, ready=True)
STARTING_UP = ContainerRecord(state="running", image="i", startup=None)


def over(code: int) -> ContainerRecord:
    return ContainerRecord(state="ended", image="i", ended=ContainerEnd(code, "", "", 0, 0, ""))


def pod(policy: str = "Never", inits: str = "", containers: str = "base", image: str = "i") -> dict[str, Any]:
    """``inits``: names, sidecars with a star."""
    made = [{"name": name, "image": image} for name in containers.split()]
    before = [
        {"name": name.strip("*"), "image": image, **({"restartPolicy": "Always"} if "*" in name else {})}
        for name in inits.split()
    ]
    return {"spec": {"restartPolicy": policy, "containers": made, "initContainers": before}}


def plan_of(made: dict[str, Any], **seen: ContainerRecord) -> PodActions:
    return next_actions(made, {name: seen.get(name, NONE) for name in all_containers(made)})


@pytest.mark.parametrize(
    ("made", "seen", "plan"),
    [
        (pod(), {}, PodActions(("base",))),
        (pod(containers="base side"), {}, PodActions(("base", "side"))),
        (pod(), {"base": RUNS}, PodActions()),
        (pod(), {"base": over(0)}, PodActions(finish=True)),
        (pod(), {"base": over(1)}, PodActions(finish=True)),
        (pod(containers="base side"), {"base": over(1), "side": RUNS}, PodActions()),
        (pod("OnFailure"), {"base": over(0)}, PodActions(finish=True)),
        (pod("OnFailure"), {"base": over(1)}, PodActions(("base",))),
        (pod("Always"), {"base": over(0)}, PodActions(("base",))),
        (pod(inits="a b"), {}, PodActions(("a",))),
        (pod(inits="a b"), {"a": RUNS}, PodActions()),
        (pod(inits="a b"), {"a": over(0)}, PodActions(("b",))),
        (pod(inits="a b"), {"a": over(0), "b": over(0)}, PodActions(("base",))),
        (pod(inits="a b"), {"a": over(1)}, PodActions(finish=True)),
        (pod("OnFailure", inits="a b"), {"a": over(1)}, PodActions(("a",))),
        (pod(inits="s* b"), {}, PodActions(("s",))),
        (pod(inits="s* b"), {"s": STARTING_UP}, PodActions()),
        (pod(inits="s* b"), {"s": RUNS}, PodActions(("b",))),
        (pod(inits="s* b"), {"s": over(1)}, PodActions(("s",))),
        (pod(inits="s* b"), {"s": over(1), "b": RUNS}, PodActions(("s",))),
        (pod(inits="s*"), {"s": over(1), "base": RUNS}, PodActions(("s",))),
        (pod(inits="s*"), {"s": over(1), "base": over(0)}, PodActions(finish=True)),
        (pod(inits="s*"), {"s": RUNS, "base": over(0)}, PodActions(finish=True)),
        (pod(inits="s* t*"), {"s": RUNS, "t": STARTING_UP}, PodActions()),
        (pod(inits="a s*"), {"a": over(0), "s": RUNS}, PodActions(("base",))),
    ],
)
def test_starts_what_is_due_in_order(made: dict[str, Any], seen: dict[str, ContainerRecord], plan: PodActions) -> None:
    assert plan_of(made, **seen) == plan


@pytest.mark.parametrize("policy", ["Never", "OnFailure", "Always"])
def test_a_changed_image_restarts_whatever_the_policy(policy: str) -> None:
    plan = plan_of(pod(policy, containers="base side", image="new"), base=RUNS, side=over(0))
    assert plan.kill == (ContainerStop("base", "Container base definition changed, will be restarted"),)
    assert "base" in plan.start


@pytest.mark.parametrize(
    ("policy", "message", "start"),
    [
        ("Never", "Container base failed liveness probe", ()),
        ("OnFailure", "Container base failed liveness probe, will be restarted", ("base",)),
    ],
)
def test_a_failed_liveness_probe_ends_the_container(policy: str, message: str, start: tuple[str, ...]) -> None:
    sick = ContainerRecord(state="running", image="i", startup=True, healthy=False)
    assert plan_of(pod(policy), base=sick) == PodActions(start, (ContainerStop("base", message, "liveness"),))


def test_a_sidecar_that_fails_its_startup_probe_is_started_again() -> None:
    plan = plan_of(pod(inits="s*"), s=ContainerRecord(state="running", image="i", startup=False))
    assert plan == PodActions(("s",), (ContainerStop("s", "Init container s failed startup probe", "startup"),))


def test_ephemeral_containers_start_before_the_pod_is_initialized() -> None:
    made = pod(inits="a")
    made["spec"]["ephemeralContainers"] = [{"name": "late", "image": "i"}]
    assert plan_of(made, a=RUNS) == PodActions(("late",))
    assert plan_of(made, a=RUNS, late=over(0)) == PodActions()


def test_native_sidecars_end_last_and_in_reverse() -> None:
    made = pod(inits="a s* t*", containers="base other")
    assert stop_after(made, "base") == []
    assert stop_after(made, "t") == ["a", "base", "other"]
    assert stop_after(made, "s") == ["a", "base", "other", "t"]


RESTART_42 = {"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}
RESTART_NOT_1 = {"action": "Restart", "exitCodes": {"operator": "NotIn", "values": [0, 1]}}


@pytest.mark.parametrize(
    ("of_pod", "own", "rules", "code", "again"),
    [
        ("Never", None, [], 1, False),
        ("OnFailure", None, [], 1, True),
        ("OnFailure", None, [], 0, False),
        ("Always", "Never", [], 1, False),
        ("Never", "OnFailure", [], 1, True),
        ("Never", "OnFailure", [], 0, False),
        ("Never", "Always", [], 0, True),
        ("Never", "Never", [RESTART_42], 42, True),
        ("Never", "Never", [RESTART_42], 1, False),
        ("Always", "Never", [RESTART_NOT_1], 7, True),
        ("Always", "Never", [RESTART_NOT_1], 1, False),
    ],
)
def test_a_container_starts_again_by_its_own_rules_then_its_policy_then_the_pods(
    of_pod: str, own: str | None, rules: list[Any], code: int, again: bool
) -> None:
    made = pod(of_pod)
    if own:
        made["spec"]["containers"][0] |= {"restartPolicy": own, "restartPolicyRules": rules}
    assert plan_of(made, base=over(code)) == (PodActions(("base",)) if again else PodActions(finish=True))


def test_an_init_container_with_a_policy_of_its_own_is_tried_again_in_a_pod_that_never_restarts() -> None:
    made = pod("Never", inits="a")
    made["spec"]["initContainers"][0]["restartPolicy"] = "OnFailure"
    assert plan_of(made, a=over(1)) == PodActions(("a",))
