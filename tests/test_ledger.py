from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from crosswind.ledger import DatabaseLedger, TaskClaim, standing_of
from crosswind.pods.workers import WorkerTask
from crosswind.runs.workloads import Standing, Workload


@pytest.mark.parametrize(
    ("state", "external_id", "queued_by", "standing"),
    [
        ("queued", "mine", 7, Standing.QUEUED),
        ("running", "mine", 7, Standing.RUNNING),
        ("restarting", "mine", 7, Standing.RESTARTING),
        ("running", None, None, Standing.RUNNING),
        ("running", "another", 7, Standing.SETTLED),
        ("queued", "mine", 8, Standing.SETTLED),
        ("success", "mine", 7, Standing.SETTLED),
        ("failed", "mine", 7, Standing.SETTLED),
        ("deferred", "mine", 7, Standing.SETTLED),
        ("scheduled", "mine", None, Standing.SETTLED),
        ("up_for_reschedule", "mine", 7, Standing.SETTLED),
        (None, None, None, Standing.SETTLED),
    ],
)
def test_only_an_unfinished_row_that_is_ours_is_not_settled(
    state: str | None, external_id: str | None, queued_by: int | None, standing: Standing
) -> None:
    assert standing_of(TaskClaim(uuid.uuid4(), "mine"), 7, state, external_id, queued_by) is standing


@pytest.mark.parametrize(
    ("queued_by", "standing"), [(5, Standing.RUNNING), (7, Standing.RUNNING), (8, Standing.SETTLED)]
)
def test_a_row_that_names_the_scheduler_from_which_we_adopt_is_ours_already(queued_by: int, standing: Standing) -> None:
    claim = TaskClaim(uuid.uuid4(), "mine", former=5)
    assert standing_of(claim, 7, "running", "mine", queued_by) is standing


def test_the_reason_is_added_to_the_tasks_own_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(tmp_path))
    task = WorkerTask("dag", "task", "run", 1, "u")
    workload = Workload("key", task, 1.0, None, log_path="dag/task/1.log")
    DatabaseLedger(7).report(workload, "out of memory")
    DatabaseLedger(7).report(Workload("key", task, 1.0, None), "no log, no line")
    (line,) = (tmp_path / "dag" / "task" / "1.log").read_text().splitlines()
    assert json.loads(line)["event"] == "out of memory"
