from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from crosswind.engine.database import DatabaseState
from crosswind.engine.state import Workload
from crosswind.engine.worker_pod import WorkerTask
from crosswind.provider.metadata_db import AirflowMetadataDatabase, TaskInstanceRef, database_state_of


@pytest.mark.parametrize(
    ("state", "external_id", "queued_by", "standing"),
    [
        ("queued", "mine", 7, DatabaseState.QUEUED),
        ("running", "mine", 7, DatabaseState.RUNNING),
        ("restarting", "mine", 7, DatabaseState.RESTARTING),
        ("running", None, None, DatabaseState.RUNNING),
        ("running", "another", 7, DatabaseState.SETTLED),
        ("queued", "mine", 8, DatabaseState.SETTLED),
        ("success", "mine", 7, DatabaseState.SETTLED),
        ("failed", "mine", 7, DatabaseState.SETTLED),
        ("deferred", "mine", 7, DatabaseState.SETTLED),
        ("scheduled", "mine", None, DatabaseState.SETTLED),
        ("up_for_reschedule", "mine", 7, DatabaseState.SETTLED),
        (None, None, None, DatabaseState.SETTLED),
    ],
)
def test_only_an_unfinished_row_that_is_ours_is_not_settled(
    state: str | None, external_id: str | None, queued_by: int | None, standing: DatabaseState
) -> None:
    assert database_state_of(TaskInstanceRef(uuid.uuid4(), "mine"), 7, state, external_id, queued_by) is standing


@pytest.mark.parametrize(
    ("queued_by", "standing"), [(5, DatabaseState.RUNNING), (7, DatabaseState.RUNNING), (8, DatabaseState.SETTLED)]
)
def test_a_row_that_names_the_scheduler_from_which_we_adopt_is_ours_already(
    queued_by: int, standing: DatabaseState
) -> None:
    claim = TaskInstanceRef(uuid.uuid4(), "mine", former_job=5)
    assert database_state_of(claim, 7, "running", "mine", queued_by) is standing


def test_the_reason_is_added_to_the_tasks_own_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(tmp_path))
    task = WorkerTask("dag", "task", "run", 1, "u")
    workload = Workload("key", task, 1.0, None, log_path="dag/task/1.log")
    AirflowMetadataDatabase(7).write_task_log(workload, "out of memory")
    AirflowMetadataDatabase(7).write_task_log(Workload("key", task, 1.0, None), "no log, no line")
    (line,) = (tmp_path / "dag" / "task" / "1.log").read_text().splitlines()
    assert json.loads(line)["event"] == "out of memory"
