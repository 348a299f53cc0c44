"""What Airflow's database cannot hold is a problem of its file: one DAG that cannot be stored stops all others."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.models.dag import DagModel
from airflow.models.taskinstance import TaskInstance
from airflow.timetables.trigger import CronTriggerTimetable
from hypothesis import given
from hypothesis import strategies as st

from crosswind.dags import _build
from crosswind.tasks.schedules import check_schedule

YAML = "crosswind.yaml"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (f"pool: {'p' * 257}", "pool is longer than 256 characters; shorten it"),
        (f"queue: {'q' * 257}", "queue is longer than 256 characters; shorten it"),
        (f"tags: [a, {'t' * 101}]", "tags.1 is longer than 100 characters; shorten it"),
        ("max_active_runs: 999999999999999", "max_active_runs must be 10000 or less"),
        ("retry_delay: 999999999999999", "retry_delay must be 31536000 or less"),
        ("retry_delay: -1", "retry_delay must be 0 or more"),
        (f"run: {{operator: a.B, arguments: {{pool: {'p' * 257}}}}}", "run has a pool of more than 256 characters"),
    ],
)
def test_a_value_that_airflow_cannot_store_is_a_problem(folder: Any, line: str, problem: str) -> None:
    folder.write(YAML, f"{line}\n")
    (message,) = folder.problems()
    assert message.startswith(f"{YAML}:1: {problem}")


@pytest.mark.parametrize("field", ["pool", "queue"])
def test_the_longest_pool_and_queue_are_as_long_as_airflows_columns(folder: Any, field: str) -> None:
    length = TaskInstance.__table__.columns[field].type.length
    folder.task("a", **{field: "x" * length})
    assert folder.problems() == []
    folder.task("b", **{field: "x" * (length + 1)})
    assert len(folder.problems()) == 1


def test_owners_that_airflow_cannot_store_together_are_replaced_by_that_of_the_folder(folder: Any) -> None:
    folder.write(YAML, "owner: analysts\ninputs: ignore\n")
    folder.write("bad.yaml", "id: bad\n")
    for number in range(70):
        folder.task(f"task_{number:02}", owner=f"firstname{number}.lastname@example.com")
    compiled = folder.compile()
    (warning,) = [problem for problem in compiled.problems if not problem.fatal]
    (plan,) = compiled.dags
    replaced = [task for task in plan.tasks if task.owner == "analysts"]
    assert warning.file == replaced[0].path
    assert f"{len(replaced)} tasks, of which this is the first, have the owner analysts instead" in warning.message
    assert 0 < len(replaced) < 20
    limit = DagModel.__table__.columns["owners"].type.length
    assert limit - 40 < len(_build(plan, []).owner) <= limit


def test_a_schedule_that_airflow_cannot_describe_is_a_problem(folder: Any) -> None:
    folder.write("t.sql", "SELECT 1")
    for name, minutes in (("good", range(60)), ("bad", [minute for minute in range(60) for _ in range(4)])):
        schedule = f"{','.join(map(str, minutes))} 8-18 1 * 1"
        folder.write(f"{name}.yaml", f"id: {name}\nquery: t.sql\ntables: []\nschedule: {schedule}\n")
    assert folder.problems() == [
        "bad.yaml:4: schedule has more values than Airflow can describe; write ranges and steps, such as 8-18 or */5"
    ]


def _field(*items: str) -> st.SearchStrategy[str]:
    return st.just("*") | st.lists(st.sampled_from(items), min_size=1, max_size=30).map(",".join)


CRONS = st.tuples(
    _field("59", "17-59", "*/15", "19/19", "11-59/17"),
    _field("23", "11-20", "11-20/17"),
    _field("31", "*/15", "30-31", "11-30/12", "L"),
    _field("9", "9-9", "9/1", "SEP-SEP", "9-9/11"),
    _field("3", "WED", "3-3", "WED-WED", "0-6/2", "3#5"),
).map(" ".join)


@given(CRONS)
def test_airflow_can_store_the_description_of_each_accepted_schedule(schedule: str) -> None:
    limit = DagModel.__table__.columns["timetable_description"].type.length
    try:
        check_schedule(schedule)
    except ValueError:
        return
    assert len(CronTriggerTimetable(schedule, timezone="UTC").description) <= limit
