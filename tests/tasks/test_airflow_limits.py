"""What Airflow's database cannot hold is a problem of its file: one DAG that cannot be stored stops all others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from airflow.models.dag import DagModel
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import Asset
from airflow.timetables.trigger import CronTriggerTimetable
from hypothesis import given
from hypothesis import strategies as st

from crosswind.dags import _build
from crosswind.tasks.asset_names import asset_problem
from crosswind.tasks.problems import TaskFileProblem
from crosswind.tasks.python_files import dag_file
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


REFUSED = "cannot be an Airflow asset, because"


@pytest.mark.parametrize(
    ("lines", "sql", "dialect", "problem"),
    [
        ("id: context", "SELECT 1", "", f":1: the table 'context' {REFUSED} Airflow reserves that name"),
        ("id: bad\nproduces: self", "SELECT 1", "", f":2: the table 'self' {REFUSED} Airflow reserves that name"),
        ("id: bad", "CREATE TABLE context AS SELECT 1", "", f":2: the table 'context' {REFUSED}"),
        ("id: bad\nappends: context", "INSERT INTO context SELECT 1", "", f":2: the table 'context' {REFUSED}"),
        ("id: bad", f"CREATE TABLE {'t' * 1501} AS SELECT 1", "", f"{REFUSED} its name has more than 1500 characters"),
        ("id: bad\nproduces: 'http://[x'", "SELECT 1", "", f"{REFUSED} its name is not a valid URL"),
        ("id: bad", 'CREATE TABLE " " AS SELECT 1', "postgres", f"{REFUSED} its name is blank"),
        ("id: bad", "CREATE TABLE `airflow:x` AS SELECT 1", "mysql", f"{REFUSED} Airflow reserves the scheme airflow"),
    ],
)
def test_a_table_that_airflow_refuses_as_asset_is_a_problem_of_its_file_alone(
    folder: Any, lines: str, sql: str, dialect: str, problem: str
) -> None:
    folder.write(YAML, f"dialect: '{dialect}'\n")
    folder.write("bad.yaml", f"{lines}\nquery: bad.sql\ntables: []\n")
    folder.write("bad.sql", sql)
    folder.task("reader", "context")
    folder.task("apart/good", "context, self")
    compiled = folder.compile()
    (message,) = [found.describe() for found in compiled.problems]
    assert message.startswith("bad.yaml:")
    assert problem in message
    for plan in compiled.dags:
        problems: list[TaskFileProblem] = []
        built = _build(plan, problems)
        assert problems == []
        written: dict[str, Any] = {}
        exec(compile(dag_file(plan)[1], "dag.py", "exec"), written)
        assert written["task_0"].dag.task_dict.keys() == built.task_dict.keys()


def test_a_reserved_name_with_a_schema_is_accepted(folder: Any) -> None:
    folder.write(YAML, "default_schema: main\n")
    folder.task("context")
    folder.task("daily", "context")
    assert folder.problems() == []


def test_a_table_that_only_looks_reserved_may_be_read(folder: Any) -> None:
    folder.task("daily", "context")
    assert folder.problems() == []


def test_a_dag_that_reads_the_refused_table_of_another_one_does_not_run_on_old_data(folder: Any) -> None:
    folder.task("context")
    folder.task("sales/daily", "context")
    assert {dag.dag_id: dag.assets for dag in folder.compile().dags} == {"shop": (), "sales": ("broken__context",)}


def test_an_asset_that_only_airflow_refuses_leaves_its_dag_and_is_a_problem(folder: Any) -> None:
    folder.task("daily")
    (plan,) = folder.compile().dags
    problems: list[TaskFileProblem] = []
    dag = _build(replace(plan, assets=("orders", "context")), problems)
    assert [problem.file for problem in problems] == ["daily.yaml"]
    assert "cannot run after context: Airflow refuses" in problems[0].message
    assert dag.schedule == [Asset("orders"), Asset("broken__context")]


def test_a_pattern_does_not_follow_what_airflow_refuses(folder: Any) -> None:
    folder.write(YAML, "external: {assets: ['*']}\n")
    folder.task("daily", "context")
    folder.task("good", "raw.orders")
    (problem,) = folder.problems()
    assert problem.startswith(f"daily.yaml:3: external.assets of {YAML} has 'context', which {REFUSED[:6]}")
    assert folder.compile().dags[0].assets == ("raw.orders",)


@pytest.mark.parametrize("line", ["tables: ['@s']", "tables: []\nproduces: '@s'"])
def test_a_name_without_a_table_in_it_is_named_as_it_is_written(folder: Any, line: str) -> None:
    folder.write(YAML, "dialect: snowflake\n")
    folder.write("a.yaml", f"id: a\nquery: a.sql\n{line}\n")
    folder.write("a.sql", "SELECT 1")
    graph = folder.compile().graph
    assert "@s" in {*graph.nodes["a"].reads, *graph.nodes["a"].writes}


@given(st.text(max_size=20) | st.sampled_from(["self", "context", "AIRFLOW:x", "http://[", "x" * 1500, "x" * 1501]))
def test_the_rules_for_names_of_assets_are_those_of_airflow(name: str) -> None:
    try:
        Asset(name)
        accepted = True
    except ValueError:
        accepted = False
    assert accepted == (asset_problem(name) == "")


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


@pytest.mark.parametrize("schedule", ["0 0 31 2 *", "0 0 31 4,6,9,11 *", "0 0 30-31 2 *"])
def test_a_day_that_no_month_has_is_a_problem(folder: Any, schedule: str) -> None:
    folder.task("a", schedule=f'"{schedule}"')
    (problem,) = folder.problems()
    assert problem == "a.yaml:4: schedule names a day that no month has, so that the task would never run"


@pytest.mark.parametrize("schedule", ["R R * * *", "r(0-5) * * * *", "0,R/5 * * * *"])
def test_a_random_schedule_is_a_problem(folder: Any, schedule: str) -> None:
    folder.task("a", schedule=f'"{schedule}"')
    (problem,) = folder.problems()
    assert problem.startswith("a.yaml:4: schedule ")


@pytest.mark.parametrize("schedule", ["0 0 29 2 *", "0 0 31 2 1", "0 0 L * *", "0 0 * APR FRI", "0 0 29 2 1#5"])
def test_a_rare_schedule_loads(folder: Any, schedule: str) -> None:
    folder.task("a", schedule=f'"{schedule}"')
    assert folder.problems() == []


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
