"""The rules by which a folder of task files is compiled."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from crosswind import dags
from crosswind.errors import ConfigError
from crosswind.tasks import compile_task
from crosswind.tasks.python_files import dag_file
from kubelocal.kubelet.environment import expand

YAML = "crosswind.yaml"
GIVEN = {"connection": "warehouse"}


def test_three_lines_schedule_a_query_after_the_tables_that_it_reads(folder: Any) -> None:
    folder.task("orders")
    folder.task("users")
    folder.task("daily_revenue", "orders, users")
    assert folder.edges() == {"shop": {"daily_revenue": ["orders", "users"], "orders": [], "users": []}}
    assert folder.problems() == []


@pytest.mark.parametrize(
    ("more", "sql", "makes"),
    [
        ({"produces": "other"}, "CREATE TABLE x AS SELECT 1", ("other",)),
        ({"produces": "[a, b]"}, "SELECT 1", ("a", "b")),
        ({}, "CREATE TABLE x AS SELECT 1", ("x",)),
        ({}, "SELECT 1", ("task",)),
    ],
)
def test_the_made_table_is_that_of_the_field_else_of_the_query_else_the_id(
    folder: Any, more: dict[str, str], sql: str, makes: tuple[str, ...]
) -> None:
    folder.task("task", sql=sql, **more)
    assert folder.compile().graph.nodes["task"].writes == makes


def test_names_meet_by_the_rules_of_the_dialect(folder: Any) -> None:
    folder.write(YAML, "dialect: snowflake\ndefault_schema: prod.main\n")
    folder.task("orders", sql="CREATE TABLE Main.Orders AS SELECT 1 AS a")
    folder.task("daily", "prod.main.ORDERS", sql="CREATE TABLE daily AS SELECT * FROM orders")
    assert folder.edges()["shop"]["daily"] == ["orders"]
    assert folder.problems() == []


def test_a_table_that_the_query_reads_is_waited_for_though_it_is_not_declared(folder: Any) -> None:
    folder.task("orders")
    folder.task("daily", "", "\nINSERT INTO daily SELECT * FROM orders")
    assert folder.edges()["shop"]["daily"] == ["orders"]
    assert folder.problems() == ["daily.yaml:3: warning: tables lacks orders, which daily.sql:2 reads; add it"]


def test_a_declared_table_that_the_query_does_not_read_is_a_warning(folder: Any) -> None:
    folder.task("orders")
    folder.task("daily", "orders", "INSERT INTO daily SELECT 1")
    assert folder.problems() == ["daily.yaml:3: warning: tables has orders, which daily.sql does not read; take it out"]


@pytest.mark.parametrize(("inputs", "fatal"), [("warn", [False]), ("error", [True]), ("ignore", [])])
def test_a_setting_says_how_bad_that_is(folder: Any, inputs: str, fatal: list[bool]) -> None:
    folder.task("daily", "orders", "INSERT INTO daily SELECT 1")
    assert [problem.fatal for problem in folder.compile(inputs=inputs).problems] == fatal


def test_a_text_that_is_no_query_is_an_error_even_where_tables_are_only_compared(folder: Any) -> None:
    folder.task("orders")
    folder.task("daily", "orders", "\nselec * form orders")
    (problem,) = folder.problems()
    assert problem == "daily.yaml:2: daily.sql:2: this is no query: selec * form orders; did you mean SELECT?"
    assert folder.problems(inputs="ignore") == []


def test_an_empty_query_is_an_error(folder: Any) -> None:
    folder.task("daily", sql="\n\n")
    assert folder.problems() == ["daily.yaml:2: query daily.sql is empty; write the SQL that the task runs"]


def test_no_table_is_reported_as_needless_when_the_sql_is_not_understood(folder: Any) -> None:
    for number, sql in enumerate(
        [
            "CALL refresh_orders()",
            "WOBBLE TABLE orders",
            "INSERT INTO x SELECT * FROM {{ params.table }}",
            "SELECT * FRM (",
        ]
    ):
        folder.task(f"task_{number}", "orders", sql)
    assert not [problem for problem in folder.problems() if "take it out" in problem]
    folder.task("clear", "orders", "INSERT INTO y SELECT 1")
    assert "clear.yaml:3: warning: tables has orders, which clear.sql does not read; take it out" in folder.problems()


def test_unreadable_sql_is_reported_and_the_declared_tables_count(folder: Any) -> None:
    folder.task("orders")
    folder.task("daily", "orders", "SELECT * FRM (")
    (problem,) = folder.problems()
    assert problem.startswith("daily.yaml:2: warning: daily.sql:1 cannot be read as SQL")
    assert folder.edges()["shop"]["daily"] == ["orders"]


def test_a_task_may_read_the_table_that_it_makes(folder: Any) -> None:
    folder.task("totals", "totals", "INSERT INTO totals SELECT * FROM totals")
    assert folder.edges() == {"shop": {"totals": []}}
    assert folder.problems() == []


def test_many_tasks_may_append_to_a_table_that_one_of_them_makes_or_none(folder: Any) -> None:
    folder.task("orders", sql="CREATE TABLE orders AS SELECT 1", appends="[audit]")
    folder.write("orders.sql", "CREATE TABLE orders AS SELECT 1; INSERT INTO audit VALUES ('orders')")
    folder.task("users", sql="CREATE TABLE users AS SELECT 1; INSERT INTO audit VALUES ('users')", appends="audit")
    folder.task("report", "audit")
    folder.task("retention", sql="DELETE FROM orders WHERE day < '2020-01-01'", appends="[orders]")
    assert folder.problems() == []
    assert folder.edges() == {
        "shop": {"orders": [], "users": [], "report": ["orders", "users"], "retention": ["orders"]}
    }
    tasks = {task.task_id: task for task in folder.compile().dags[0].tasks}
    assert tasks["users"].outlets == ("users", "audit")
    assert tasks["retention"].outlets == ("retention", "orders")


def test_tasks_that_read_and_append_to_a_shared_table_do_not_wait_for_each_other(folder: Any) -> None:
    for name in ("a", "b"):
        sql = f"CREATE TABLE {name} AS SELECT 1; INSERT INTO audit SELECT MAX(id) + 1 FROM audit"
        folder.task(name, sql=sql, appends="[audit]")
    assert folder.edges() == {"shop": {"a": [], "b": []}}
    assert folder.problems(external={"unknown": "refuse"}) == []


def test_a_dag_that_appends_to_a_table_does_not_run_after_itself(folder: Any) -> None:
    folder.task("a/one", sql="CREATE TABLE one AS SELECT 1; INSERT INTO audit VALUES (1)", appends="[audit]")
    folder.task("a/seen", "audit")
    folder.task("b/two", sql="CREATE TABLE two AS SELECT 1; INSERT INTO audit VALUES (1)", appends="[audit]")
    folder.task("c/all", "audit")
    assets = {dag.dag_id: dag.assets for dag in folder.compile().dags}
    assert assets == {"a": (), "b": (), "c": ("audit",)}


def test_appended_tables_are_compared_with_the_query(folder: Any) -> None:
    folder.task("a", sql="CREATE TABLE a AS SELECT 1", appends="[x, a]", produces="a")
    assert folder.problems() == [
        "a.yaml:4: warning: appends has a, which produces has, too; a table is either made or added to",
        "a.yaml:4: warning: appends has x, which a.sql does not change; take it out",
    ]


def test_a_missing_connection_is_reported_once_for_a_folder(folder: Any) -> None:
    folder.task("a")
    folder.task("sub/b")
    folder.write("own/crosswind.yaml", "run: {image: x, arguments: [go]}\n")
    folder.task("own/c")
    (problem,) = folder.problems(connection=None)
    assert problem.startswith("crosswind.yaml: connection is missing, and run needs it")
    broken = {task.task_id for dag in folder.compile(connection=None).dags for task in dag.tasks if task.broken}
    assert broken == {"broken__a", "broken__b"}


def test_two_makers_of_a_table_are_both_wrong_and_name_each_other(folder: Any) -> None:
    folder.task("a", sql="CREATE TABLE t AS SELECT 1")
    folder.task("b/b", sql="CREATE TABLE t AS SELECT 2")
    folder.task("c", "t")
    hint = "one task makes a table. A query that only adds to it, or cleans it up, says so: appends: [t]"
    assert folder.problems() == [
        f"a.yaml:2: table t is also made by b/b.yaml; {hint}",
        f"b/b.yaml:2: table t is also made by a.yaml; {hint}",
    ]
    assert folder.edges()["shop"]["c"] == ["broken__a"]


def test_an_id_given_twice_is_wrong_in_both_files(folder: Any) -> None:
    folder.task("same")
    folder.task("b/same", sql="CREATE TABLE other AS SELECT 1")
    assert [problem.partition(";")[0] for problem in folder.problems()] == [
        "b/same.yaml:1: id same is also that of same.yaml",
        "same.yaml:1: id same is also that of b/same.yaml",
    ]


def test_a_loop_is_one_error_that_names_it_and_later_tasks_fail_too(folder: Any) -> None:
    folder.task("a", "c")
    folder.task("b", "a")
    folder.task("c", "b")
    folder.task("after", "c")
    folder.task("apart")
    (problem,) = folder.problems()
    assert problem.startswith("a.yaml:3: the tasks wait for each other: a → b → c → a (a.yaml, b.yaml, c.yaml)")
    assert folder.edges()["shop"] == {
        "after": ["broken__c"], "apart": [], "broken__a": [], "broken__b": [], "broken__c": []
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "id: t\nquerry: t.sql\ntables: []\n",
            ["1: query is missing", "2: querry is not a field; did you mean query?"],
        ),
        ("id: t\nquery: t.sql\n", ["1: tables is missing; a task file needs id, query and tables (tables: []"]),
        ("id: 5\nquery: t.sql\ntables: []\n", ["1: id must be text; put it into quotes"]),
        ("id: a b\nquery: t.sql\ntables: []\n", ["1: id may have letters, digits, dots"]),
        ("id: t\nquery: t.sql\ntables: orders\n", ["3: tables must be a list, such as [orders, users]"]),
        ("id: t\nquery: t.sql\ntables:\n- a\n- 5\n", ["5: tables.1 must be text"]),
        ("id: t\nquery: no.sql\ntables: []\n", ["2: query no.sql does not exist; its path is relative to this file"]),
        ("id: t\nquery: .\ntables: []\n", ["2: query . cannot be read"]),
        ("id: t\nquery: ../../etc/passwd\ntables: []\n", ["2: query ../../etc/passwd leads out of the folder"]),
        ("id: t\nquery: /etc/passwd\ntables: []\n", ["2: query /etc/passwd leads out of the folder"]),
        ("id: t\nquery: link.sql\ntables: []\n", ["2: query link.sql leads out of the folder"]),
        ("id: t\nquery: big.sql\ntables: []\n", ["2: query big.sql is larger than 256 KiB"]),
        ("id: t\nquery: t.sql\ntables: []\nretries: -1\n", ["4: retries"]),
        ("id: t\nquery: t.sql\ntables: []\nretries: two\n", ["4: retries must be a whole number"]),
        ("id: t\nquery: t.sql\ntables: []\nschedule: often\n", ["4: schedule is neither a cron expression"]),
        ("id: t\nquery: t.sql\ntables: []\nresources:\n  cpus: 1\n", ["5: resources.cpus is not a field"]),
        ("id: t\nquery: t.sql\ntables: [\n", ["4: not readable as YAML"]),
        ("x" * 10_000_000, ["larger than 64 KiB"]),
    ],
)
def test_a_broken_file_is_reported_with_its_line_and_the_others_load(
    folder: Any, tmp_path: Path, text: str, expected: list[str]
) -> None:
    folder.task("good")
    folder.write("t.sql", "SELECT 1")
    folder.write("big.sql", "x" * 10_000_000)
    (tmp_path / "secret").write_text("root")
    (folder.path / "link.sql").symlink_to(tmp_path / "secret")
    folder.write("bad.yaml", text)
    problems = folder.problems()
    assert len(problems) == len(expected)
    for problem, words in zip(problems, expected, strict=True):
        assert problem.startswith("bad.yaml:")
        assert words in problem
    assert "good" in folder.edges()["shop"]


def test_no_task_works_on_the_old_table_of_a_broken_file(folder: Any) -> None:
    folder.task("orders", retries="-1")
    folder.task("daily", "orders")
    (dag,) = folder.compile().dags
    broken, daily = sorted(dag.tasks, key=lambda task: task.task_id)[0], dag.tasks[1]
    assert broken.broken.startswith("orders.yaml:4: retries")
    assert daily.upstream == (broken.task_id,) == ("broken__orders",)


def test_wrong_settings_keep_their_folder_from_loading_and_no_other(folder: Any) -> None:
    folder.task("a")
    folder.task("b/b")
    folder.task("b/c/c")
    folder.write(f"b/{YAML}", "retries: 1\ndialect: klingon\n")
    assert folder.problems() == [f"b/{YAML}:2: dialect unknown dialect 'klingon'."]
    assert folder.edges() == {"shop": {"a": []}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("run: {operator: a.B, image: x}", "1: run needs either operator or image"),
        ("run: {operator: a.B, arguments: {q: '${task.querry}'}}", "1: run has ${task.querry}; there are"),
        ("run: {image: x, arguments: {a: b}}", "1: run with image takes arguments as a list"),
        ("start_date: tomorrow", "1: start_date"),
        ("start_date: '2026-02-30'", "1: start_date day is out of range"),
        ("dag_id: ${task.id}", "1: dag_id has ${task.id}; there are ${folder} and ${first}"),
        ("group: none", "1: group"),
        ("shedule: '@daily'", "did you mean schedule?"),
        ("external: {sensor: {operator: a.B, arguments: {x: '${task.id}'}}}", "${task.id}"),
    ],
)
def test_wrong_settings_are_reported(folder: Any, text: str, problem: str) -> None:
    folder.write(YAML, text)
    (problem,) = folder.problems()
    assert problem in problem


def test_folders_inherit_and_task_files_override(folder: Any) -> None:
    folder.write(YAML, "owner: platform\nretries: 3\nconnection: warehouse\nexternal: {unknown: refuse, tables: [x]}\n")
    folder.write(f"b/{YAML}", "owner: sales\nexternal: {tables: [y]}\n")
    folder.task("a", "x")
    folder.task("b/b", "y", retries="5")
    tasks = {task.task_id: task for dag in folder.compile(owner="nobody", pool="p").dags for task in dag.tasks}
    assert (tasks["a"].owner, tasks["a"].retries, tasks["a"].pool) == ("platform", 3, "p")
    assert (tasks["b"].owner, tasks["b"].retries, tasks["b"].pool) == ("sales", 5, "p")
    assert tasks["b"].arguments["conn_id"] == "warehouse"


def test_each_task_runs_as_the_platform_says(folder: Any) -> None:
    folder.write(YAML, "run:\n  image: wh:1\n  arguments: ['--into=${task.table}']\n  env: {Q: '${task.query}'}\n")
    folder.task("a", sql="CREATE TABLE t AS SELECT 1", resources="{cpu: 1, memory: 2Gi}", image="wh:2")
    (task,) = folder.compile().dags[0].tasks
    assert task.operator == "crosswind.operators.KubernetesPodOperator"
    assert task.arguments == {
        "image": "wh:2", "arguments": ["--into=t"], "env_vars": {"Q": "CREATE TABLE t AS SELECT 1\n"}
    }  # fmt: skip
    assert task.resources == {"cpu": "1", "memory": "2Gi"}


@pytest.mark.parametrize(
    "run",
    [
        "{image: 'wh:$1', command: ['${task.query}', $HOME], "
        "arguments: ['$$(A) ${task.query}'], env: {Q: '${task.query}'}}",
        "{operator: some.KubernetesPodOperator, arguments: {image: 'wh:$1', cmds: ['${task.query}', $HOME], "
        "arguments: ['$$(A) ${task.query}'], env_vars: {Q: '${task.query}'}}}",
    ],
)
def test_a_pod_gets_the_signs_of_a_query_and_the_references_of_the_platform(folder: Any, run: str) -> None:
    folder.write(YAML, f"run: {run}\ninputs: ignore\n")
    sql = "DO $$ BEGIN INSERT INTO t SELECT '$(A) $x' $"
    folder.task("a", sql=sql)
    (task,) = folder.compile().dags[0].tasks
    assert expand(task.arguments["env_vars"]["Q"], {"A": "a"}) == f"{sql}\n"
    assert [expand(text, {"A": "a"}) for text in task.arguments["cmds"]] == [f"{sql}\n", "$HOME"]
    assert [expand(text, {"A": "a"}) for text in task.arguments["arguments"]] == [f"$(A) {sql}\n"]
    assert task.arguments["image"] == "wh:$1"


def test_an_operator_gets_the_query_as_it_is(folder: Any) -> None:
    folder.task("a", sql="SELECT $$x$$")
    (task,) = folder.compile().dags[0].tasks
    assert task.arguments["sql"] == "SELECT $$x$$\n"


@pytest.mark.parametrize(("size", "count"), [(128 * 1024 - len("Q=\n\0"), 0), (128 * 1024 - len("Q=\n\0") + 1, 1)])
@pytest.mark.parametrize("run", ["env: {Q: '${task.query}'}", "arguments: ['Q=${task.query}']"])
def test_a_query_that_linux_cannot_pass_to_its_pod_is_a_problem(folder: Any, run: str, size: int, count: int) -> None:
    folder.write(YAML, f"run: {{image: x, {run}}}\n")
    start = "SELECT '"
    folder.task("a", sql=start + "$" * (size - len(start) - 1) + "'")
    problems = folder.problems()
    assert len(problems) == count
    assert all(problem.startswith("a.yaml:2: query a.sql makes an argument") for problem in problems)


def test_a_long_query_is_no_problem_of_an_operator(folder: Any) -> None:
    folder.task("a", sql=f"SELECT '{'x' * 200_000}'")
    assert folder.problems() == []


@pytest.mark.parametrize(
    ("external", "expected"),
    [
        ("{unknown: allow}", []),
        ("{unknown: refuse, tables: [raw.*]}", ["no task file makes table elsewhere"]),
        ("{unknown: refuse, tables: ['*']}", []),
        ("{unknown: refuse, assets: [raw.*, ELSEWHERE]}", []),
        ("{unknown: refuse}", ["no task file makes table elsewhere", "no task file makes table raw.orders"]),
    ],
)
def test_tables_from_outside_are_allowed_or_refused(folder: Any, external: str, expected: list[str]) -> None:
    folder.write(YAML, f"external: {external}\n")
    folder.task("a", "raw.orders, elsewhere")
    messages = [problem.message for problem in folder.compile().problems]
    assert len(messages) == len(expected)
    assert all(any(words in message for message in messages) for words in expected)


def test_a_sensor_waits_for_each_table_from_outside_once(folder: Any) -> None:
    sensor = "{operator: my.Sensor, arguments: {sql: 'SELECT 1 FROM ${table}'}}"
    folder.write(YAML, f"external: {{sensor: {sensor}}}\n")
    folder.task("a", "raw.orders")
    folder.task("b", "raw.orders, a")
    (dag,) = folder.compile().dags
    tasks = {task.task_id: task for task in dag.tasks}
    assert tasks["wait_for_raw.orders"].arguments == {"sql": "SELECT 1 FROM raw.orders"}
    assert tasks["a"].upstream == ("wait_for_raw.orders",)
    assert tasks["b"].upstream == ("a", "wait_for_raw.orders")


def test_dags_of_other_folders_are_followed_by_assets(folder: Any) -> None:
    folder.task("base/orders")
    folder.task("sales/daily", "orders")
    folder.task("sales/weekly", "daily")
    dags = {dag.dag_id: dag for dag in folder.compile().dags}
    assert (dags["base"].assets, dags["sales"].assets) == ((), ("orders",))
    assert {task.task_id: task.upstream for task in dags["sales"].tasks} == {"daily": (), "weekly": ("daily",)}
    assert dags["base"].tasks[0].outlets == ("orders",)


@pytest.mark.parametrize(("follows", "assets"), [("assets", ("o",)), ("both", ("o",)), ("schedule", ())])
def test_a_setting_says_whether_other_dags_are_followed(folder: Any, follows: str, assets: tuple[str, ...]) -> None:
    folder.write(YAML, f"follows: {follows}\n")
    folder.task("a/o")
    folder.task("b/p", "o")
    assert folder.compile().dags[1].assets == assets


def test_dags_that_wait_for_each_other_are_reported_and_run_by_schedule(folder: Any) -> None:
    folder.task("a/one")
    folder.task("b/two", "one")
    folder.task("a/three", "two")
    compiled = folder.compile()
    (problem,) = [problem.describe() for problem in compiled.problems]
    assert problem.startswith(
        f"a/{YAML}: the DAGs wait for each other: a → b → a, by the tables one, two; write group: conn"
    )
    assert [dag.assets for dag in compiled.dags] == [(), ()]
    assert list(folder.edges(group="connected")) == ["a.one"]


def test_dags_that_wait_for_each_other_by_a_table_to_which_one_appends_are_reported(folder: Any) -> None:
    folder.task("a/s")
    folder.task("c/z", "s")
    folder.task("b/feed", "z", sql="INSERT INTO s SELECT * FROM z", appends="s")
    compiled = folder.compile()
    (problem,) = [problem.describe() for problem in compiled.problems]
    assert problem.startswith(f"b/{YAML}: the DAGs wait for each other: b → c → b, by the tables s, z; write")
    assert [dag.assets for dag in compiled.dags] == [(), (), ()]


PLATFORM = """run:
  operator: airflow.providers.common.sql.operators.sql.SQLExecuteQueryOperator
  arguments:
    sql: ${task.query}
    pool: default_pool
    queue: general
    parameters: {most: .inf, none: [-.inf, .nan]}
    executor_config: {pod_template_file: /t.yaml}
"""


def test_the_written_files_have_the_tasks_and_arguments_of_load_tasks(folder: Any) -> None:
    folder.write(YAML, PLATFORM)
    folder.task("plain")
    folder.task("own", pool="warehouse", queue="large", image="own:1", resources="{memory: 1Gi}")
    compiled = folder.compile()
    assert compiled.problems == []
    (plan,) = compiled.dags
    written: dict[str, Any] = {}
    exec(compile(dag_file(plan)[1], "dag.py", "exec"), written)
    loaded, file = dags._build(plan, []), written["task_0"].dag
    for task_id in ("plain", "own"):
        first, second = loaded.get_task(task_id), file.get_task(task_id)
        assert (first.pool, first.queue) == (second.pool, second.queue)
        assert first.executor_config == second.executor_config
        assert repr(first.parameters) == repr(second.parameters)
    own = loaded.get_task("own")
    assert (own.pool, own.queue, sorted(own.executor_config)) == (
        "warehouse", "large", ["pod_override", "pod_template_file"]
    )  # fmt: skip
    assert loaded.get_task("plain").queue == "general"


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("arguments: {\"x=print('here'), y\": 1}", "which is not a valid name of a Python argument"),
        ("arguments: {class: 1}", "which is not a valid name of a Python argument"),
        ("arguments: {retries: 1}", "which Crosswind sets for each task; write the field retries"),
        ("arguments: {task_id: a}", "write id in the task's file"),
    ],
)
def test_arguments_that_python_or_crosswind_cannot_pass_are_problems(folder: Any, run: str, message: str) -> None:
    folder.write(YAML, f"run:\n  operator: some.Operator\n  {run}\n")
    folder.task("one")
    (problem,) = folder.problems()
    assert problem.startswith(f"{YAML}:")
    assert message in problem


def test_a_class_below_a_keyword_is_a_problem(folder: Any) -> None:
    folder.write(YAML, "run:\n  operator: some.import.Operator\n  arguments: {}\n")
    folder.task("one")
    assert "contains a Python keyword" in folder.problems()[0]


def test_a_task_of_another_schedule_gets_a_dag_of_that_schedule(folder: Any) -> None:
    folder.task("orders")
    folder.task("often", "orders", schedule='"*/5 * * * *"')
    dags = {dag.dag_id: dag for dag in folder.compile().dags}
    assert {name: (dag.schedule, dag.assets) for name, dag in dags.items()} == {
        "shop": ("@daily", ()), "shop.x_5_x_x_x_x": ("*/5 * * * *", ())
    }  # fmt: skip


def test_connected_groups_are_dags_of_their_own(folder: Any) -> None:
    folder.write(YAML, "group: connected\n")
    folder.task("a/a")
    folder.task("b/b", "a")
    folder.task("b/z")
    assert folder.edges() == {"a.a": {"a": [], "b": ["a"]}, "b.z": {"z": []}}


def test_two_dags_with_one_id_are_reported(folder: Any) -> None:
    folder.write(YAML, "dag_id: all\n")
    folder.task("a/a")
    folder.task("b/b")
    (problem,) = folder.problems()
    assert "two DAGs would have the id all" in problem


OFTEN = '"@hourly"'
LONG = f"{'d' * 200}/{'e' * 100}"


@pytest.mark.parametrize(
    ("tasks", "plain", "keeps"),
    [
        ({"s/a": '"0 6 * * 1-5"', "s/b": '"0 6 * * 1,5"'}, "s.0_6_x_x_1_5", ""),
        ({"s/a": OFTEN, "s/hourly/b": ""}, "s.hourly", "b"),
        ({"отчёт/a": "", "склад/b": ""}, "_____", ""),
        ({"a b/a": "", "a_b/b": ""}, "a_b", "b"),
        ({"sales/eu/a": "", "sales.eu/b": ""}, "sales.eu", "a"),
        ({"a": "", "shop/b": ""}, "shop", ""),
        ({f"{LONG}/a": "", f"{LONG}f/b": ""}, LONG[:241].replace("/", "."), ""),
    ],
)
def test_groups_whose_ids_would_be_the_same_are_dags_of_their_own(
    folder: Any, tasks: dict[str, str], plain: str, keeps: str
) -> None:
    for path, schedule in tasks.items():
        folder.task(path, **({"schedule": schedule} if schedule else {}))
    compiled = folder.compile()
    assert compiled.problems == []
    ids = {task.task_id: dag.dag_id for dag in compiled.dags for task in dag.tasks}
    assert len(compiled.dags) == len({*ids.values()}) == 2
    for task_id, dag_id in ids.items():
        assert re.fullmatch(re.escape(plain) + ("" if task_id == keeps else r"\.[0-9a-f]{8}"), dag_id)
        alone = compile_task(folder.path, GIVEN, None, dag_id, task_id)
        assert alone is not None, "a worker finds the task under that id"
        assert alone.dag_id == dag_id


def test_spaces_do_not_make_another_schedule(folder: Any) -> None:
    folder.task("a", schedule='"0 6  * * 1"')
    folder.task("b", schedule='" 0 6 * * 1 "')
    assert {dag.dag_id: (dag.schedule, len(dag.tasks)) for dag in folder.compile().dags} == {
        "shop.0_6_x_x_1": ("0 6 * * 1", 2)
    }


def test_a_folder_named_like_the_id_of_another_dag_is_a_dag_of_its_own(folder: Any) -> None:
    folder.task("s@eu/a")
    folder.task("s$eu/b")
    taken = folder.compile().dags[0].dag_id
    folder.task(f"{taken}/c")
    assert sorted(len(dag.tasks) for dag in folder.compile().dags) == [1, 1, 1]


@pytest.mark.parametrize(("group", "placeholder"), [("folder", "${folder}"), ("connected", "${first}")])
def test_a_fixed_dag_id_does_not_merge_dags_and_the_problem_names_what_helps(
    folder: Any, group: str, placeholder: str
) -> None:
    folder.write(YAML, f"dag_id: {'all' if group == 'folder' else 'all-${folder}'}\ngroup: {group}\n")
    folder.task("a/a")
    folder.task("a/z" if group == "connected" else "b/z")
    compiled = folder.compile()
    (problem,) = compiled.problems
    assert problem.file == "a/a.yaml"
    assert f"let dag_id in {YAML} hold {placeholder}." in problem.message
    assert sorted(len(dag.tasks) for dag in compiled.dags) == [1, 1]


def test_hidden_files_are_left_out_and_links_inside_are_followed(folder: Any, tmp_path: Path) -> None:
    folder.task("..data/a/one")
    (folder.path / "a").symlink_to("..data/a")
    (folder.path / "loop").symlink_to(".")
    (folder.path / "out").symlink_to(tmp_path)
    folder.write(".hidden.yaml", "nonsense")
    assert folder.edges() == {"a": {"one": []}}


@pytest.mark.parametrize(
    ("path", "settings", "problem"),
    [("no", {}, "no such folder"), ("", {"retrys": 1}, "did you mean retries"), ("", {"dialect": "x"}, "dialect")],
)
def test_a_missing_folder_and_wrong_settings_raise(
    folder: Any, path: str, settings: dict[str, Any], problem: str
) -> None:
    folder.path = folder.path / path
    with pytest.raises(ConfigError, match=problem):
        folder.compile(**settings)


PLAN = """
import json, sys
from pathlib import Path
from crosswind.tasks import compile_folder
print(repr(compile_folder(Path(sys.argv[1]), {"connection": "warehouse"}, None).dags))
"""


def test_the_plan_is_the_same_on_every_host(folder: Any, tmp_path: Path) -> None:
    for name in "abcdefgh":
        folder.task(f"{name}/{name}", "x, y, z" + (", a" if name > "a" else ""))
    copy = tmp_path / "elsewhere" / "shop"
    copy.parent.mkdir()
    subprocess.run(["cp", "-r", folder.path, copy], check=True)
    outputs = {
        subprocess.run(
            [sys.executable, "-c", PLAN, path],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for path, seed in ((folder.path, "1"), (copy, "2"))
    }
    assert len(outputs) == 1


def test_a_worker_reads_one_query_only(folder: Any) -> None:
    folder.task("a")
    folder.task("b", "a")
    (folder.path / "a.sql").unlink()
    plan = compile_task(folder.path, GIVEN, None, "shop", "b")
    assert plan is not None
    assert (plan.dag_id, [(task.task_id, task.outlets) for task in plan.tasks]) == ("shop", [("b", ("b",))])
    assert compile_task(folder.path, GIVEN, None, "shop", "a") is None
    assert compile_task(folder.path, GIVEN, None, "shop", "wait_for_x") is None
    assert compile_task(folder.path, GIVEN, None, "another", "b") is None, "a DAG of another folder, the same task id"


@pytest.mark.parametrize("settings", [{}, {"group": "connected"}, {"dag_id": "x-${folder}"}, {"dag_id": "y.${first}"}])
def test_a_worker_finds_every_task_in_its_dag(folder: Any, settings: dict[str, Any]) -> None:
    folder.task("a")
    folder.task("b/b", "a")
    folder.task("b/c/c", "b", schedule='"@hourly"')
    for dag in folder.compile(**settings).dags:
        for task in dag.tasks:
            alone = compile_task(folder.path, {"connection": "warehouse", **settings}, None, dag.dag_id, task.task_id)
            assert alone is not None
            assert alone.dag_id == dag.dag_id
            assert replace(task, upstream=()) == alone.tasks[0]


def test_the_published_schemas_are_those_of_the_model() -> None:
    from crosswind.tasks import model

    for kind in ("task", "crosswind"):
        for place in (Path(model.__file__).parent / "schemas", Path(__file__).parents[2] / "docs" / "schemas"):
            published = json.loads((place / f"{kind}.schema.json").read_text())
            assert published == model.json_schema(kind), f"write {place} anew by crosswind tasks schema {kind}"


def test_the_schemas_accept_the_examples_and_refuse_files_that_a_load_refuses() -> None:
    from crosswind.tasks import model
    from crosswind.tasks.field_lines import read_fields

    checks = {kind: jsonschema.Draft202012Validator(model.json_schema(kind)) for kind in ("task", "crosswind")}
    files = sorted((Path(__file__).parents[2] / "examples" / "tasks" / "task_files").rglob("*.yaml"))
    assert len(files) == 31
    for file in files:
        kind = "crosswind" if file.name == YAML else "task"
        assert [*checks[kind].iter_errors(read_fields(file.read_bytes()).fields)] == [], file
    good = {"id": "t", "query": "t.sql", "tables": []}
    for wrong in ({"querry": "x"}, {"id": "a b"}, {"id": 5}, {"tables": "orders"}, {"retries": -1}, {"retries": "two"}):
        assert not checks["task"].is_valid(good | wrong), wrong


def test_a_file_name_that_is_not_utf_8_is_reported(folder: Any) -> None:
    folder.task("good")
    Path(os.fsdecode(os.fsencode(folder.path) + b"/\xff.yaml")).write_text("id: x\n")
    assert folder.problems() == ["?.yaml: the name is not UTF-8; rename it"]
    assert folder.edges() == {"shop": {"good": []}}
