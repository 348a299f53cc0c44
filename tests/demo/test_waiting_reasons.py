from __future__ import annotations

import re
from typing import Any

import pytest

from crosswind.demo.reasons import last_error, pod_trouble, troubled_attempts, waits_for
from crosswind.demo.timelines import PodTimeline


def pod(phase: str = "Pending", deleted: bool = False, **states: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "p", "uid": "u", **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {})}
    return {
        "metadata": metadata,
        "spec": {"containers": [{"name": name.replace("_", "-"), "image": "i:1"} for name in states]},
        "status": {
            "phase": phase,
            "containerStatuses": [
                {"name": name.replace("_", "-"), "restartCount": 1 if "lastState" in state else 0}
                | (state if "state" in state else {"state": state})
                for name, state in states.items()
            ],
        },
    }


CREATING = {"waiting": {"reason": "ContainerCreating"}}
RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
UNSTARTED = {"terminated": {"exitCode": 128, "reason": "StartError", "message": "Permission denied"}}
CRASHING = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": UNSTARTED}


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (pod(base=CREATING), ""),
        (pod(base={"waiting": {"reason": "PodInitializing"}}), ""),
        (pod("Running", base=RUNNING, istio_proxy=RUNNING), ""),
        (pod(base={"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}), "'i:1'.*cannot be pulled"),
        (pod("Running", base=RUNNING, istio_proxy=UNSTARTED), "istio-proxy could not be started .*Permission denied"),
        (pod(base=CREATING, istio_proxy=CRASHING), r"istio-proxy waits: CrashLoopBackOff \(exit code 128: Permission"),
        (pod("Running", deleted=True, base=RUNNING, istio_proxy=UNSTARTED), ""),
    ],
)
def test_what_holds_a_pod_up_is_named_whichever_container_it_is(manifest: dict[str, Any], words: str) -> None:
    trouble = pod_trouble(manifest)
    assert bool(trouble) == bool(words)
    assert re.search(words, trouble)


def test_a_volume_that_cannot_be_mounted_is_known_from_its_event() -> None:
    event = {"reason": "FailedMount", "message": 'configmap "c" not found', "lastTimestamp": "2026-01-01T00:00:00Z"}
    assert 'configmap "c" not found' in pod_trouble(pod(base=CREATING), [event])


def task(state: str | None, tries: int, index: int = -1) -> dict[str, Any]:
    return {"task_id": "t", "map_index": index, "state": state, "try_number": tries}


def test_tries_count_as_failed_also_after_the_next_has_begun() -> None:
    attempts = troubled_attempts([task("running", 3, 4), task("success", 1), task("failed", 2), task(None, 0)])
    assert [(attempt.label, attempt.number, attempt.failed) for attempt in attempts] == [
        ("t [4]", 1, True),
        ("t [4]", 2, True),
        ("t", 1, True),
        ("t", 2, True),
    ]
    assert [(attempt.number, attempt.failed) for attempt in troubled_attempts([task("up_for_reschedule", 1)])] == [
        (1, False)
    ]


def test_the_last_error_of_a_log_is_its_exception_or_its_last_line_of_an_error() -> None:
    lines: list[Any] = [{"event": "first", "level": "error"}, {"event": "dag not found", "level": "error"}, "text"]
    thrown = {"event": "Task failed", "error_detail": [{"exc_type": "ValueError", "exc_value": "12 rows, not 13"}]}
    assert last_error(lines) == "dag not found"
    assert last_error([thrown, *lines]) == "ValueError: 12 rows, not 13"
    assert last_error([{"event": "fine", "level": "info"}]) == ""


def timeline(name: str, **more: Any) -> PodTimeline:
    return PodTimeline(uid=name, name=name, task=name, attempt="1", created=0.0, **more)


def test_what_the_run_waits_for_is_the_next_thing_that_must_happen() -> None:
    going, tasks = {"state": "running"}, [task("success", 1), task(None, 0, 2)]
    assert waits_for(False, None, [], []) == "Airflow's API server to answer"
    assert "parse the DAG" in waits_for(True, None, [], [])
    assert waits_for(True, going, tasks, []) == "the scheduler to start t [2]"
    many = [timeline(name) for name in "abcde"]
    assert waits_for(True, going, tasks, many) == "a, b, c and 2 more to start in a pod"
    assert waits_for(True, going, tasks, [timeline("a", running=1.0)]) == "a to finish"
    assert waits_for(False, None, [], [timeline("a", running=1.0)]) == "a to finish", "a busy server may answer later"
    assert waits_for(True, going, tasks, [timeline("a", running=1.0, base_done=2.0)]) == "a to have its pod deleted"
    assert waits_for(True, {"state": "success"}, [task("success", 1)], []) == ""
