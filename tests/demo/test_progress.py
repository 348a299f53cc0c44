from __future__ import annotations

from typing import Any

from crosswind.demo.progress import RunProgress

UNPULLED = {"waiting": {"reason": "ErrImagePull", "message": "not found"}}
RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def pod(state: dict[str, Any], *, deleting: bool = False) -> dict[str, Any]:
    metadata = {"name": "p", "uid": "u", "labels": {"task_id": "extract", "try_number": "1"}}
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {
        "metadata": metadata,
        "spec": {"containers": [{"name": "base", "image": "i:1"}]},
        "status": {"phase": "Pending", "containerStatuses": [{"name": "base", "restartCount": 0, "state": state}]},
    }


def test_the_trouble_of_a_pod_that_is_deleted_before_it_starts_is_reported_at_once_and_once() -> None:
    run = RunProgress()
    run.observe_pod("ADDED", pod(UNPULLED), [])
    assert run.take_lines() == []
    run.observe_pod("MODIFIED", pod(UNPULLED, deleting=True), [])
    run.observe_pod("DELETED", pod(UNPULLED, deleting=True), [])
    (line,) = run.take_lines()
    assert "extract" in line
    assert "'i:1' of container base cannot be pulled" in line
    assert run.take_lines() == []


def test_a_trouble_that_has_passed_is_not_reported() -> None:
    run = RunProgress()
    run.observe_pod("ADDED", pod(UNPULLED), [])
    run.observe_pod("MODIFIED", pod(RUNNING), [])
    run.observe_pod("DELETED", pod(RUNNING), [])
    assert run.take_lines() == []
