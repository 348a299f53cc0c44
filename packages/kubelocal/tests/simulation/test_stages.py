from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from kubelocal.errors import SettingError
from kubelocal.settings import LocalSettings
from kubelocal.simulation.stages import delay_of, load_stages, next_stage, read_stages, scope_of

STAGES = load_stages(None)
SETTINGS = asdict(LocalSettings(simulated_start=0.5, simulated_run=3))
SIMULATE = "simulate.crosswind/"
SCHEDULED = {"type": "PodScheduled", "status": "True"}
NATIVE = {"name": "mesh", "image": "m", "restartPolicy": "Always"}


def pod(
    phase: str = "Pending", *containers: str, node: str = "n", deleted: bool = False, status: Any = None, **said: str
) -> dict[str, Any]:
    annotations = {f"{SIMULATE}{name.replace('_', '-')}": value for name, value in said.items()}
    metadata = {"name": "p", "uid": "u", "annotations": annotations}
    spec = {"containers": [{"name": name, "image": "x"} for name in containers or ("base",)]}
    return {
        "kind": "Pod",
        "metadata": metadata | ({"deletionTimestamp": "now"} if deleted else {}),
        "spec": spec | ({"nodeName": node} if node else {}),
        "status": {"phase": phase, "conditions": [SCHEDULED], **(status or {})},
    }


BASE_ENDED = {"containerStatuses": [{"name": "base", "state": {"terminated": {"exitCode": 0}}}]}


@pytest.mark.parametrize(
    ("thing", "stage"),
    [
        (pod(node=""), None),
        (pod(), "pod-started"),
        (pod("Running"), "pod-succeeded"),
        (pod("Running", exit_code="0"), "pod-succeeded"),
        (pod("Running", exit_code="3"), "pod-failed"),
        (pod("Running", exit_code="three"), "pod-failed"),
        (pod("Running", oom="true"), "pod-failed"),
        (pod("Running", sidecars="stay"), "pod-succeeded"),
        (pod("Running", "base", "proxy", sidecars="stay"), "pod-base-ended"),
        (pod("Running", "base", "proxy", sidecars="stay", status=BASE_ENDED), None),
        (pod("Succeeded"), None),
        (pod("Failed"), None),
        (pod("Pending", deleted=True), "pod-gone"),
        (pod("Running", deleted=True), "pod-killed"),
        (pod("Succeeded", deleted=True), "pod-gone"),
        ({"kind": "Node", "metadata": {"name": "n"}}, "node-ready"),
        ({"kind": "Node", "metadata": {"name": "n"}, "status": {"conditions": []}}, None),
    ],
)
def test_an_object_waits_for_the_first_stage_that_matches(thing: dict[str, Any], stage: str | None) -> None:
    found = next_stage(STAGES, thing["kind"], scope_of(thing, SETTINGS))
    assert (found.name if found else None) == stage


def played(thing: dict[str, Any]) -> dict[str, Any]:
    scope = scope_of(thing, SETTINGS, now="T", address="10.0.0.1")
    stage = next_stage(STAGES, thing["kind"], scope)
    assert stage
    assert stage.status
    return {**thing, "status": {**thing.get("status", {}), **stage.status(scope)}}


def states(pod: dict[str, Any], field: str = "containerStatuses") -> dict[str, Any]:
    return {one["name"]: one["state"] for one in pod["status"][field]}


def terminated(code: int, reason: str) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "reason": reason, "startedAt": "T", "finishedAt": "T"}}


def test_a_pod_runs_then_succeeds_with_all_its_containers() -> None:
    fresh = pod("Pending", "base", "proxy")
    fresh["spec"]["initContainers"] = [{"name": "fetch", "image": "x"}, NATIVE]
    running = played(fresh)
    assert running["status"]["phase"] == "Running"
    assert running["status"]["podIP"] == "10.0.0.1"
    assert states(running) == {name: {"running": {"startedAt": "T"}} for name in ("base", "proxy")}
    assert states(running, "initContainerStatuses") == {
        "fetch": terminated(0, "Completed"),
        "mesh": {"running": {"startedAt": "T"}},
    }
    assert [one["type"] for one in running["status"]["conditions"]] == [
        "PodScheduled",
        "Initialized",
        "Ready",
        "ContainersReady",
    ]
    done = played(running)
    assert done["status"]["phase"] == "Succeeded"
    assert states(done) == dict.fromkeys(("base", "proxy"), terminated(0, "Completed"))
    assert states(done, "initContainerStatuses")["mesh"] == terminated(0, "Completed")
    assert {one["type"]: one.get("reason") for one in done["status"]["conditions"]}["Ready"] == "PodCompleted"


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ({"exit_code": "3"}, terminated(3, "Error")),
        ({"exit_code": "wrong"}, terminated(1, "Error")),
        ({"exit_code": "999"}, terminated(1, "Error")),
        ({"oom": "true"}, terminated(137, "OOMKilled")),
    ],
)
def test_the_base_container_fails_as_its_annotations_say(said: dict[str, str], outcome: Any) -> None:
    failed = played(played(pod("Pending", "first", "base", **said)))
    assert failed["status"]["phase"] == "Failed"
    assert states(failed) == {"base": outcome, "first": terminated(0, "Completed")}


def test_without_a_container_called_base_the_first_is_it() -> None:
    failed = played(played(pod("Pending", "main", "proxy", exit_code="3")))
    assert states(failed) == {"main": terminated(3, "Error"), "proxy": terminated(0, "Completed")}


def test_sidecars_that_stay_keep_the_pod_running() -> None:
    ended = played(played(pod("Pending", "base", "proxy", sidecars="stay", exit_code="3")))
    assert ended["status"]["phase"] == "Running"
    assert states(ended) == {"base": terminated(3, "Error"), "proxy": {"running": {"startedAt": "T"}}}


def test_a_running_pod_that_is_deleted_fails_first() -> None:
    killed = played(pod("Running", deleted=True, status={"startTime": "T"}))
    assert (killed["status"]["phase"], states(killed)) == ("Failed", {"base": terminated(137, "Error")})


def test_a_node_gets_room_and_conditions() -> None:
    node = played({"kind": "Node", "metadata": {"name": "n"}})
    assert node["status"]["allocatable"] == {"cpu": "32", "memory": "256Gi", "pods": "110"}
    assert node["status"]["conditions"][0]["status"] == "True"


@pytest.mark.parametrize(
    ("thing", "chance", "seconds"),
    [
        (pod(), 0.0, 0.5),
        (pod(), 1.0, 1.0),
        (pod(start_seconds="7"), 1.0, 7),
        (pod("Running"), 1.0, 3),
        (pod("Running", run_seconds="0.25"), 1.0, 0.25),
        (pod("Succeeded", deleted=True), 1.0, 0),
    ],
)
def test_delays_come_from_annotation_or_settings(thing: dict[str, Any], chance: float, seconds: float) -> None:
    scope = scope_of(thing, SETTINGS)
    stage = next_stage(STAGES, "Pod", scope)
    assert stage
    assert delay_of(stage, scope, lambda: chance) == seconds


def test_without_seconds_a_stage_never_comes() -> None:
    scope = scope_of(pod("Running"), asdict(LocalSettings(simulated_run=None)))
    stage = next_stage(STAGES, "Pod", scope)
    assert stage
    assert delay_of(stage, scope, lambda: 0) is None


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan"])
def test_a_delay_that_is_no_number_is_refused(text: str) -> None:
    scope = scope_of(pod("Running", run_seconds=text), SETTINGS)
    stage = next_stage(STAGES, "Pod", scope)
    assert stage
    with pytest.raises(ValueError, match=r"float|number of seconds"):
        delay_of(stage, scope, lambda: 0)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "write a mapping with the list `stages`"),
        ({"stages": [1]}, r"stages\[0\]: a mapping is required, not 1"),
        ({"stages": [{"name": "a", "kind": "Job", "remove": True}]}, "a name and the kind Pod or Node are needed"),
        ({"stages": [{"name": "a", "kind": "Pod"}]}, "status, event or remove is required"),
        ({"stages": [{"name": 3}]}, r"stages\[0\]\.name: 3 is not a str"),
        ({"stages": [{"next": {}}]}, "unknown field 'next'; there are name, kind, when"),
        (
            {"stages": [{"name": "a", "kind": "Pod", "remove": True, "delay": {"millis": 3}}]},
            r"stages\[0\]\.delay: unknown field 'millis'; there are seconds, jitter, annotation",
        ),
        ({"stages": [{"name": "a", "kind": "Pod", "when": {"a b": 1}, "remove": True}]}, "'a b' is not a path"),
    ],
)
def test_wrong_stages_are_refused_with_the_place(document: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        read_stages(document, "mine")


def test_a_missing_stages_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"none\.yaml"):
        load_stages(tmp_path / "none.yaml")
