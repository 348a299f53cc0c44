"""A pod's status, by tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kubelocal.kubelet.pod_actions import ContainerEnd, ContainerRecord, Waiting
from kubelocal.kubelet.pod_status import Outlook, pod_status

NOW = 1_700_000_000.0
OUTLOOK = Outlook(now=NOW, start_time=NOW, host_ip="10.0.0.1", pod_ip="10.0.0.2", sandbox=True)
RUNS = ContainerRecord(state="running", image="i", container_id="c", started_at=NOW, startup=True, ready=True)
BACK_OFF = Waiting("CrashLoopBackOff", "back-off")


def over(code: int, reason: str = "Error") -> ContainerRecord:
    return ContainerRecord(
        state="ended", image="i", container_id="c", ended=ContainerEnd(code, reason, "", NOW, NOW, "c")
    )


def status(
    seen: dict[str, ContainerRecord], *, policy: str = "Never", outlook: Outlook = OUTLOOK, **old: Any
) -> dict[str, Any]:
    """Init containers are those called i..., sidecars s..., all others are regular."""
    inits = [{"name": one, "image": "i"} for one in seen if one[0] in "is"]
    for one in inits:
        if one["name"][0] == "s":
            one["restartPolicy"] = "Always"
    spec = {
        "restartPolicy": policy,
        "initContainers": inits,
        "containers": [{"name": one, "image": "i"} for one in seen if one[0] not in "is"],
    }
    return pod_status({"metadata": {"name": "p"}, "spec": spec, "status": old}, seen, outlook)


def condition(made: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(one for one in made["conditions"] if one["type"] == kind)


@pytest.mark.parametrize(
    ("seen", "is_over", "phase"),
    [
        ({"b": ContainerRecord()}, False, "Pending"),
        ({"b": RUNS}, False, "Running"),
        ({"b": RUNS, "c": ContainerRecord()}, False, "Pending"),
        ({"b": over(0), "c": RUNS}, False, "Running"),
        ({"b": over(0)}, False, "Running"),
        ({"b": over(0), "s": RUNS}, False, "Running"),
        ({"b": replace(over(1), waiting=BACK_OFF)}, False, "Running"),
        ({"b": over(0)}, True, "Succeeded"),
        ({"b": over(0), "c": over(143)}, True, "Failed"),
        ({"b": over(0), "s": over(137)}, True, "Succeeded"),
        ({"b": ContainerRecord(), "i": over(5)}, True, "Failed"),
        ({"b": ContainerRecord(), "i": RUNS}, False, "Pending"),
        ({"b": ContainerRecord()}, True, "Failed"),
    ],
)
def test_the_phase_comes_from_regular_containers_alone(
    seen: dict[str, ContainerRecord], is_over: bool, phase: str
) -> None:
    assert status(seen, outlook=replace(OUTLOOK, over=is_over))["phase"] == phase


@pytest.mark.parametrize(
    ("seen", "kind", "wanted"),
    [
        ({"b": RUNS}, "Ready", ("True", None, None)),
        ({"b": RUNS, "s": RUNS}, "Ready", ("True", None, None)),
        ({"b": RUNS, "s": replace(RUNS, ready=False)}, "Ready", ("False", "ContainersNotReady", "[s]")),
        ({"b": over(0), "c": RUNS}, "ContainersReady", ("False", "ContainersNotReady", "[b]")),
        ({"b": ContainerRecord()}, "Initialized", ("True", None, None)),
        ({"b": ContainerRecord(), "i": RUNS}, "Initialized", ("False", "ContainersNotInitialized", "[i]")),
        ({"b": ContainerRecord(), "i": over(0)}, "Initialized", ("True", None, None)),
        (
            {"b": ContainerRecord(), "s": replace(RUNS, startup=None)},
            "Initialized",
            ("False", "ContainersNotInitialized", "[s]"),
        ),
        ({"b": ContainerRecord(), "s": RUNS}, "Initialized", ("True", None, None)),
        ({"b": RUNS, "s": over(1)}, "Initialized", ("True", None, None)),
    ],
)
def test_conditions_tell_which_container_is_in_the_way(
    seen: dict[str, ContainerRecord], kind: str, wanted: tuple[str, str | None, str | None]
) -> None:
    made = condition(status(seen), kind)
    assert (made["status"], made.get("reason")) == wanted[:2]
    assert (wanted[2] or "") in made.get("message", "")


@pytest.mark.parametrize(("code", "reason"), [(0, "PodCompleted"), (1, "PodFailed")])
def test_a_pod_that_is_over_is_not_ready(code: int, reason: str) -> None:
    made = status({"b": over(code)}, outlook=replace(OUTLOOK, over=True))
    for kind in ("Ready", "ContainersReady"):
        assert (condition(made, kind)["status"], condition(made, kind)["reason"]) == ("False", reason)


def test_a_container_in_back_off_waits_and_its_end_is_the_last_state() -> None:
    made = status({"b": replace(over(4), restarts=2, waiting=BACK_OFF)}, policy="Always")["containerStatuses"][0]
    assert made["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    assert made["lastState"]["terminated"]["exitCode"] == 4
    assert made["restartCount"] == 2


def test_a_container_in_back_off_when_the_pod_ends_keeps_its_end_as_state() -> None:
    outlook = replace(OUTLOOK, over=True)
    made = status({"b": replace(over(4), waiting=BACK_OFF)}, outlook=outlook)["containerStatuses"][0]
    assert made["state"]["terminated"]["exitCode"] == 4


def test_a_container_does_not_run_before_its_post_start_hook_has_ended() -> None:
    made = status({"b": replace(RUNS, starting=True)})
    assert made["phase"] == "Pending"
    assert made["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}


def test_containers_behind_an_init_container_wait_for_initializing() -> None:
    made = status({"i": RUNS, "b": ContainerRecord()})
    assert made["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}


def test_a_deadline_decides_phase_and_reason_and_containers_keep_their_ends() -> None:
    outlook = replace(OUTLOOK, over=True, phase="Failed", reason="DeadlineExceeded", message="too long")
    made = status({"b": over(0, "Completed")}, outlook=outlook)
    assert (made["phase"], made["reason"], made["message"]) == ("Failed", "DeadlineExceeded", "too long")
    assert made["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 0


def test_conditions_of_others_and_the_times_of_unchanged_ones_are_kept() -> None:
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2020-01-01T00:00:00Z"}
    mine = {"type": "example.com/Mine", "status": "True"}
    made = status({"b": RUNS}, conditions=[ready, mine], qosClass="Burstable")
    assert condition(made, "Ready")["lastTransitionTime"] == "2020-01-01T00:00:00Z"
    assert condition(made, "example.com/Mine") == mine
    assert condition(made, "Initialized")["lastTransitionTime"] == "2023-11-14T22:13:20Z"
    assert made["qosClass"] == "Burstable"


def test_readiness_gates_hold_back_ready_alone() -> None:
    spec = {"containers": [{"name": "b", "image": "i"}], "readinessGates": [{"conditionType": "example.com/up"}]}
    made = pod_status({"metadata": {"name": "p"}, "spec": spec}, {"b": RUNS}, OUTLOOK)
    assert condition(made, "ContainersReady")["status"] == "True"
    assert condition(made, "Ready")["reason"] == "ReadinessGatesNotReady"


@pytest.mark.parametrize(("containers", "kept"), [(1, 4096), (3, 4096), (4, 3072), (6, 2048)])
def test_the_termination_messages_of_a_pod_share_twelve_kibibytes(containers: int, kept: int) -> None:
    seen = {
        f"{kind}{number}": replace(over(1), ended=ContainerEnd(1, "Error", "\u00e9" * 2048, NOW, NOW, "c"))
        for number, kind in enumerate("cis"[number % 3] for number in range(containers))
    }
    made = status(seen, outlook=replace(OUTLOOK, over=True))
    messages = [one["state"]["terminated"]["message"] for one in made["containerStatuses"]]
    assert {len(message.encode()) for message in messages} == {kept}


def test_the_message_of_the_run_before_has_its_share_too() -> None:
    seen = {
        f"c{number}": replace(RUNS, last=ContainerEnd(1, "Error", "x" * 4096, NOW, NOW, "c")) for number in range(6)
    }
    made = status(seen, policy="Always")
    assert len(made["containerStatuses"][0]["lastState"]["terminated"]["message"]) == 2048
