"""The record of a pod, from whatever is known of it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswind.engine.last_pod_state import last_pod_state
from crosswind.engine.pod_history import DETAIL_LIMIT, EndedPod, PodRecord, detail_json, pod_detail, pod_record
from crosswind.engine.state import RunResult, RunStage, RunTimes, WorkerRun, Workload
from crosswind.engine.worker_pod import WorkerTask
from crosswind.pods.added_fields import asked_fields
from crosswind.pods.fields import as_pod

NOW, OFFSET = 1_800_000_000.0, 1_700_000_000.0
REPORT = b'{"crosswind":1,"peak":123456789,"cpu":1.5,"imports":0.9,"parse":0.1,"run":2.5}'


def make_run(end: RunResult | None = None, **fields: Any) -> WorkerRun:
    task = WorkerTask("dag", "task", "run", 2, "unique", map_index=3, ti_id="ti", queue="etl")
    fields = {"name": "pod", "namespace": "work", "uid": "uid", **fields}
    return WorkerRun(
        Workload("key", task, 1.0, lambda: b"{}"),
        task,
        RunTimes(99_999_000.0),
        stage=RunStage.ENDED,
        result=end,
        **fields,
    )


def make_pod(message: str = "", **metadata: Any) -> dict[str, Any]:
    ended = {
        "exitCode": 1,
        "startedAt": "2027-01-15T07:59:00Z",
        "finishedAt": "2027-01-15T07:59:30Z",
        "message": message,
    }
    return {
        "metadata": {"uid": "uid", "creationTimestamp": "2027-01-15T07:58:00Z", **metadata},
        "spec": {
            "nodeName": "node-1",
            "containers": [
                {"name": "base", "image": "airflow", "resources": {"limits": {"memory": "1Gi"}}},
                {"name": "istio-proxy", "image": "docker.io/istio/proxyv2:1.26"},
            ],
        },
        "status": {
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2027-01-15T07:58:01Z"},
                {"type": "Ready", "status": "False", "lastTransitionTime": "2027-01-15T07:59:31Z"},
            ],
            "containerStatuses": [
                {"name": "base", "state": {"terminated": ended}},
                {"name": "istio-proxy", "state": {"running": {"startedAt": "2027-01-15T07:58:30Z"}}},
            ],
        },
    }


def record(run: WorkerRun, pod: object = None, **more: Any) -> PodRecord:
    last = None if pod is None else last_pod_state(as_pod(pod), run.requested_fields)
    return pod_record(EndedPod(run, last, "https://api", NOW, OFFSET, **more))


def test_a_pod_gives_its_times_its_resources_and_its_other_containers() -> None:
    made = record(make_run(RunResult(failed=True, reason="Error", message="why")), make_pod())
    assert (made.pod, made.ti_id, made.map_index, made.try_number, made.node) == ("uid", "ti", 3, 2, "node-1")
    assert (made.outcome, made.reason, made.exit_code) == ("failed", "Error", 1)
    times = made.detail["times"]
    assert times["queued"] == 1_799_999_000.0
    assert [times[name] - times["created"] for name in ("scheduled", "started", "ended")] == [1, 60, 90]
    assert made.detail["limits"] == {"memory": "1Gi"}
    (sidecar,) = made.detail["containers"]
    assert sidecar == {"name": "istio-proxy", "kind": "ordinary", "state": "running", "injected": True}


def test_fields_that_admission_added_are_named_when_it_is_known_what_was_asked_for() -> None:
    pod = make_pod(labels={"dag_id": "d", "istio.io/rev": "default"})
    pod["spec"]["volumes"] = [{"name": "kube-api-access-x"}]
    requested_fields = asked_fields(
        {"metadata": {"labels": {"dag_id": "d"}}, "spec": {"containers": [{"name": "base"}]}}
    )
    added = ["labels/istio.io/rev", "volumes/kube-api-access-x"]
    assert record(make_run(RunResult(failed=False), requested_fields=requested_fields), pod).detail["added"] == added
    assert pod_detail(as_pod(pod), (), requested_fields)["added"] == added
    assert "added" not in record(make_run(RunResult(failed=False)), pod).detail  # of another scheduler


def test_added_fields_are_the_first_to_go_where_there_is_no_room() -> None:
    pod = make_pod(labels={f"{number}{'x' * 190}": "" for number in range(60)})
    made = record(make_run(RunResult(failed=False), requested_fields=frozenset(["labels/dag_id"])), pod)
    assert len(made.detail["added"]) == 40
    kept = orjson.loads(detail_json(made.detail))
    assert "added" not in kept
    assert kept["containers"]


def test_what_the_worker_measured_is_part_of_it_and_the_task_s_own_words_stay() -> None:
    made = record(make_run(RunResult(failed=False)), make_pod(f"{REPORT.decode()}\nloaded 7 rows"))
    assert (made.detail["peak_memory"], made.detail["cpu"]) == (123456789, 1.5)
    assert made.detail["seconds"] == {"imports": 0.9, "parse": 0.1, "run": 2.5}
    assert made.detail["message"] == "loaded 7 rows"


@pytest.mark.parametrize(
    ("run", "outcome"),
    [
        (make_run(RunResult(failed=False)), "success"),
        (make_run(RunResult(failed=True, lost=True)), "lost"),
        (make_run(RunResult(failed=True, reason="Evicted")), "failed"),
        (make_run(RunResult(failed=False), revoked=True), "revoked"),
    ],
)
def test_each_outcome_has_its_word(run: WorkerRun, outcome: str) -> None:
    assert record(run).outcome == outcome


def test_a_run_without_a_pod_is_recorded_under_its_own_id() -> None:
    made = record(make_run(RunResult(failed=True, reason="NotLaunched"), uid="", name=""))
    assert (made.pod, made.node, made.exit_code) == ("unique", "", None)


def test_the_image_was_there_when_the_kubelet_s_event_says_so() -> None:
    pulled = {"reason": "Pulled", "message": "Container image already present", "lastTimestamp": "2027-01-15T07:58:05Z"}
    made = record(make_run(RunResult(failed=True)), make_pod(), events=[pulled])
    assert made.detail["times"]["pulled"] - made.detail["times"]["created"] == 5
    assert made.detail["events"][0]["reason"] == "Pulled"


def test_a_long_detail_loses_what_matters_least_first() -> None:
    events = [{"reason": "r" * 60, "message": "ä" * 200}] * 9
    made = record(make_run(RunResult(failed=True, message="é" * 900)), make_pod(), events=events)
    text = detail_json(made.detail)
    assert len(text.encode()) <= DETAIL_LIMIT
    kept = orjson.loads(text)
    assert "events" not in kept
    assert "times" in kept


def test_an_image_of_any_length_leaves_the_detail_within_its_limit() -> None:
    pod = make_pod()
    pod["spec"]["containers"][0]["image"] = "registry.example/" + "x" * 5000
    made = record(make_run(RunResult(failed=False)), pod)
    assert len(detail_json(made.detail).encode()) <= DETAIL_LIMIT
    assert made.detail["image"].startswith("registry.example/xxx")


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda children: st.lists(children) | st.dictionaries(TEXT, children),
    max_leaves=20,
)


@given(st.fixed_dictionaries({}, optional={"metadata": JSON, "spec": JSON, "status": JSON}))
def test_any_json_gives_a_record(pod: dict[str, Any]) -> None:
    made = record(make_run(RunResult(failed=True)), pod)
    assert made.outcome == "failed"
    assert len(detail_json(made.detail).encode()) <= DETAIL_LIMIT
