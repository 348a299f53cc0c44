from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest

from crosswind.settings import ReapSettings
from crosswind.sidecars.reaper_policy import (
    SIDECAR_STAYS,
    decide,
    pause_before_retry,
    recorded_steps,
    restrict_plan,
    resume_plan,
)
from crosswind.sidecars.shutdown_plan import StepKind, plan_shutdown
from crosswind.types import Manifest

SCOPE = ReapSettings(("jobs",), "app=job")
RUNNING = {"running": {}}
OVER: Manifest = {
    "metadata": {"name": "etl", "namespace": "jobs", "labels": {"app": "job"}, "annotations": {}},
    "spec": {
        "restartPolicy": "Never",
        "containers": [{"name": "istio-proxy", "image": "istio/proxyv2:1.26.4"}, {"name": "work", "image": "a"}],
    },
    "status": {
        "phase": "Running",
        "containerStatuses": [
            {"name": "istio-proxy", "state": RUNNING},
            {"name": "work", "state": {"terminated": {"exitCode": 0}}},
        ],
    },
}
Change = Callable[[Manifest], Any]


def changed(change: Change) -> Manifest:
    pod = deepcopy(OVER)
    change(pod)
    return pod


def also(pod: Manifest, name: str, state: Manifest, image: str = "b", **spec: Any) -> None:
    pod["spec"]["containers"].append({"name": name, "image": image, **spec})
    pod["status"]["containerStatuses"].append({"name": name, "state": state})


def annotate(pod: Manifest, **annotations: str) -> None:
    pod["metadata"]["annotations"] = {
        key.replace("__", "/").replace("_", "-"): word for key, word in annotations.items()
    }


ENDED = {"terminated": {"exitCode": 0}}
MAIN_WORK = {"crosswind__main_container": "work"}


@pytest.mark.parametrize(
    ("change", "scope"),
    [
        (lambda pod: None, SCOPE),
        (lambda pod: pod["spec"].update(restartPolicy="OnFailure"), SCOPE),
        (lambda pod: pod["status"]["containerStatuses"][1].update(state={"terminated": {"exitCode": 3}}), SCOPE),
        (lambda pod: (also(pod, "second", ENDED), annotate(pod, **MAIN_WORK)), SCOPE),
        (lambda pod: also(pod, "second", ENDED), ReapSettings(("jobs",), "app=job", main="work")),
        (
            lambda pod: also(pod, "shipper", RUNNING),
            ReapSettings(("jobs",), "app=job", sidecars=frozenset({"shipper"})),
        ),
        (lambda pod: (also(pod, "shipper", RUNNING), annotate(pod, crosswind__end_sidecars="shipper")), SCOPE),
        (
            lambda pod: (also(pod, "shipper", RUNNING), annotate(pod, crosswind__end_sidecars="true", **MAIN_WORK)),
            SCOPE,
        ),
        (lambda pod: pod["status"].update(ephemeralContainerStatuses=[{"name": "debugger", "state": ENDED}]), SCOPE),
        (
            lambda pod: pod["metadata"].update(
                labels={"kubernetes_pod_operator": "True"},
                ownerReferences=[{"kind": "Job", "name": "etl", "controller": True}],
            ),
            SCOPE,
        ),
        (
            lambda pod: pod["metadata"]["labels"].update(kubernetes_executor="True"),
            ReapSettings(("jobs",), "app=job", airflow=True),
        ),
    ],
)
def test_a_finished_pod_in_scope_is_ended(change: Change, scope: ReapSettings) -> None:
    decision = decide(changed(change), scope)
    assert (decision.act, str(decision), decision.main) == (True, "", "work")


@pytest.mark.parametrize(
    ("change", "objection"),
    [
        (lambda pod: pod["metadata"].update(namespace="other"), "namespace other is not listed"),
        (lambda pod: pod["metadata"]["labels"].update(kubernetes_executor="True"), "belongs to Airflow's executor"),
        (lambda pod: pod["metadata"]["labels"].update({"airflow-worker": "7"}), "belongs to Airflow's executor"),
        (
            lambda pod: pod["metadata"]["labels"].update(kubernetes_pod_operator="True"),
            "belongs to Airflow's pod operator",
        ),
        (lambda pod: pod["spec"].update(hostNetwork=True), "uses its node's network"),
        (lambda pod: annotate(pod, crosswind__main_container="base"), "has no container base"),
        (lambda pod: also(pod, "base", ENDED), "containers work, base could be the main one"),
        (
            lambda pod: (also(pod, "second", RUNNING), annotate(pod, crosswind__end_sidecars="true")),
            "containers work, second could be the main one",
        ),
        (lambda pod: annotate(pod, crosswind__end_sidecars="work"), "no container is the main one"),
        (lambda pod: pod["spec"]["containers"][1].update(restartPolicy="OnFailure"), "rules of its own for restarts"),
        (lambda pod: pod["spec"]["containers"][1].update(restartPolicyRules=[{}]), "rules of its own for restarts"),
    ],
)
def test_some_pods_are_never_touched(change: Change, objection: str) -> None:
    decision = decide(changed(change), SCOPE)
    assert not decision.act
    assert len(decision.never) == 1
    assert objection in decision.never[0]


@pytest.mark.parametrize(
    ("change", "objection"),
    [
        (lambda pod: pod["status"]["containerStatuses"][1].update(state=RUNNING), "container work is running"),
        (lambda pod: pod["spec"].update(restartPolicy="Always"), "restartPolicy is Always"),
        (lambda pod: pod["metadata"].update(deletionTimestamp="now"), "is being deleted"),
        (lambda pod: pod["status"].update(phase="Succeeded"), "phase is Succeeded"),
        (
            lambda pod: (also(pod, "second", RUNNING), annotate(pod, **MAIN_WORK)),
            "container second runs and may be a second worker",
        ),
        (
            lambda pod: (also(pod, "airflow-xcom-sidecar", RUNNING), annotate(pod, crosswind__end_sidecars="true")),
            "airflow-xcom-sidecar still holds the task's result",
        ),
        (
            lambda pod: pod["status"].update(ephemeralContainerStatuses=[{"name": "debugger", "state": RUNNING}]),
            "debug container debugger runs",
        ),
        (lambda pod: pod["status"]["containerStatuses"][0].update(state=ENDED), "no sidecar runs"),
    ],
)
def test_some_objections_pass_when_the_pod_changes(change: Change, objection: str) -> None:
    decision = decide(changed(change), SCOPE)
    assert (decision.act, decision.never) == (False, ())
    assert objection in decision.not_yet[0]


@pytest.mark.parametrize("name", ["worker-kerberos", "scheduler-log-groomer", "istio-proxy"])
def test_a_name_alone_makes_no_sidecar(name: str) -> None:
    pod = changed(lambda pod: (pod["spec"]["containers"].pop(0), also(pod, name, RUNNING, image="mine")))
    assert f"containers work, {name} could be the main one" in str(decide(pod, SCOPE))


def steps(pod: Manifest, scope: ReapSettings = SCOPE) -> dict[str, list[StepKind]]:
    plan = restrict_plan(plan_shutdown(pod, base="work", delete=True), pod, "work", scope)
    steps_by_container = {target.container: [step.way for step in target.taken] for target in plan.targets}
    return steps_by_container | ({"": [StepKind.DELETE]} if not plan.last.skip else {})


SQL = "gcr.io/cloud-sql-connectors/cloud-sql-proxy:2.25-alpine"
DOWN = {"terminated": {"exitCode": 1}}


@pytest.mark.parametrize(
    ("scope", "change", "ways"),
    [
        (SCOPE, lambda pod: None, [StepKind.ASK, StepKind.CLIENT]),
        (SCOPE, lambda pod: pod["spec"].update(restartPolicy="OnFailure"), [StepKind.ASK, StepKind.CLIENT]),
        (
            ReapSettings(("jobs",), "x", may_fail=True),
            lambda pod: None,
            [StepKind.ASK, StepKind.CLIENT, StepKind.SIGNAL],
        ),
        (
            ReapSettings(("jobs",), "x", may_fail=True),
            lambda pod: pod["spec"].update(restartPolicy="OnFailure"),
            [StepKind.ASK, StepKind.CLIENT],
        ),
        (
            SCOPE,
            lambda pod: pod["status"]["containerStatuses"][1].update(state=DOWN),
            [StepKind.ASK, StepKind.CLIENT, StepKind.SIGNAL],
        ),
    ],
)
def test_a_success_is_not_turned_into_a_failure(scope: ReapSettings, change: Change, ways: list[StepKind]) -> None:
    pod = changed(lambda pod: (also(pod, "db", RUNNING, image=SQL), change(pod)))
    steps_by_container = steps(pod, scope)
    assert steps_by_container["db"] == ways
    assert ("" in steps_by_container) is (StepKind.SIGNAL in ways)


def test_a_step_with_unknown_exit_code_needs_a_named_container() -> None:
    named = changed(lambda pod: (also(pod, "own", RUNNING), annotate(pod, crosswind__end_sidecars="own")))
    assert set(steps(named)["own"]) == {StepKind.SIGNAL}
    injected = changed(lambda pod: also(pod, "envoy", RUNNING, image="x.example/aws-appmesh-envoy:v1"))
    assert steps(injected)["envoy"] == []


NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def event(message: str, reason: str = "EndingSidecar", component: str = "crosswind") -> Manifest:
    return {
        "source": {"component": component},
        "reason": reason,
        "message": message,
        "lastTimestamp": "2026-01-01T11:59:56Z",
    }


def test_a_step_that_was_taken_only_has_the_rest_of_its_time() -> None:
    plan = plan_shutdown(OVER, base="work")
    asked = plan.targets[0].steps[0]
    again = resume_plan(plan, recorded_steps([event(asked.note("istio-proxy"))], NOW)).targets[0].steps
    assert (again[0].way, again[0].deadline) == (StepKind.WAIT, asked.deadline - 4)
    assert again[1:] == plan.targets[0].steps[1:]


def test_the_steps_of_a_round_that_left_a_sidecar_are_taken_again_in_the_next_round() -> None:
    plan = plan_shutdown(OVER, base="work")
    notes = {step.note("istio-proxy"): 620.0 for step in plan.targets[0].steps}
    assert resume_plan(plan, notes | {SIDECAR_STAYS: 620.0}) == plan
    begun_again = resume_plan(plan, notes | {SIDECAR_STAYS: 620.0, plan.targets[0].steps[0].note("istio-proxy"): 1.0})
    assert begun_again.targets[0].steps[0].way is StepKind.WAIT
    assert begun_again.targets[0].steps[1:] == plan.targets[0].steps[1:]


def test_steps_of_others_and_of_other_containers_do_not_count() -> None:
    plan = plan_shutdown(OVER, base="work")
    note = plan.targets[0].steps[0].note
    events = [event(note("istio-proxy"), component="kubelet"), event(note("second"))]
    assert resume_plan(plan, recorded_steps(events, NOW)) == plan


@pytest.mark.parametrize(("retry", "left"), [(600, 596), (3, 0)])
def test_a_pod_whose_sidecars_stayed_rests(retry: float, left: float) -> None:
    assert pause_before_retry(recorded_steps([event("it stays", SIDECAR_STAYS)], NOW), retry) == left
    assert pause_before_retry({}, retry) == 0
