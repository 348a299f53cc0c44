"""One wrong file is one problem, whatever is in it: the other tasks of the folder load."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswind.cli import main
from crosswind.tasks import compile_folder
from crosswind.tasks.plain_names import plain_name
from crosswind.tasks.python_files import error_file

SETTINGS = {"connection": "warehouse"}
NUL = "has the character '\\x00', which neither files nor databases can hold; remove it"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (r'query: "a\0.sql"', f"bad.yaml:2: query {NUL}"),
        (r'query: "a\0/b.sql"', f"bad.yaml:2: query {NUL}"),
        (r'query: "a\nb.sql"', "bad.yaml:2: query 'a\\nb.sql' does not exist; its path is relative to this file"),
        (f"query: {'a/' * 450}b.sql", f"bad.yaml:2: query {'a/' * 450}b.sql does not exist"),
        (f"query: {'a' * 999}", f"bad.yaml:2: query {'a' * 999} cannot be read: File name too long"),
        ("query: nul.sql", "bad.yaml:2: query nul.sql has NUL characters; save it as UTF-8 without them"),
        ("query: link.sql", "bad.yaml:2: query link.sql is a link to a file whose name is not UTF-8; rename that file"),
        ("query: loop.sql", "bad.yaml:2: query loop.sql cannot be read: Too many levels of symbolic links"),
        ('query: good.sql\nowner: "a\\0"', f"bad.yaml:3: owner {NUL}"),
        ('query: good.sql\nproduces: ["a", "b\\0"]', f"bad.yaml:3: produces.1 {NUL}"),
        ('query: good.sql\n"a\\0": 1', f"bad.yaml:3: 'a\\x00' {NUL}"),
        ("query: good.sql\nproduces: ' '", "bad.yaml:3: produces has a blank name; write the name of a table"),
        ("query: good.sql\nproduces: airflow://x", "bad.yaml:3: produces has airflow://x, and Airflow reserves"),
    ],
)
def test_a_file_with_an_unusual_text_is_one_problem_with_its_line(folder: Any, lines: str, problem: str) -> None:
    folder.task("good")
    folder.write("bad.yaml", f"id: bad\n{lines}\ntables: []\n")
    folder.write("nul.sql", "SELECT 1".encode("utf-16-le"))
    os.symlink(b".hidden/target\xff.sql", os.fsencode(folder.path / "link.sql"))
    (folder.path / "loop.sql").symlink_to("loop.sql")
    folder.write(os.fsdecode(b".hidden/target\xff.sql"), "SELECT 1")
    (message,) = folder.problems()
    assert message.startswith(problem)
    assert folder.edges() == {"shop": {"broken__bad": [], "good": []}}, "it keeps its place"


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("a b", ["broken__a_b.c8687a08"]),
        ("a\\0", ["broken__a_.ffe9aaea"]),
        ("ü", ["broken___.607474ca"]),
        ("x" * 201, [f"broken__{'x' * 191}.84a0678c"]),
        ("", []),
    ],
)
def test_a_task_whose_id_airflow_refuses_keeps_its_place_under_a_plain_one(
    folder: Any, name: str, broken: list[str]
) -> None:
    folder.task("good")
    folder.write("bad.yaml", f'id: "{name}"\nquery: good.sql\ntables: []\n')
    (problem,) = folder.problems()
    assert problem.startswith("bad.yaml:1: id ")
    assert list(folder.edges()["shop"]) == [*broken, "good"]


def test_a_task_that_reads_the_table_of_a_file_with_a_wrong_id_waits_for_it(folder: Any) -> None:
    folder.write("bad.yaml", "id: a b\nquery: no.sql\ntables: []\nproduces: orders\n")
    folder.task("daily", "orders")
    assert folder.edges()["shop"]["daily"] == ["broken__a_b.c8687a08"]


def test_a_settings_file_with_a_nul_is_a_problem_of_its_folder(folder: Any) -> None:
    folder.task("good")
    folder.task("b/b")
    folder.write("b/crosswind.yaml", 'owner: x\ntags: ["a\\0"]\n')
    assert folder.problems() == [f"b/crosswind.yaml:2: tags.0 {NUL}"]
    assert folder.edges() == {"shop": {"good": []}}


def test_an_error_of_a_parser_is_a_problem_of_the_file(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(sql: str, *_: Any) -> None:
        raise RecursionError("maximum recursion depth exceeded") if "deep" in sql else KeyError(sql)

    folder.task("a")
    folder.cache = folder.path.parent / "cache"
    assert folder.problems() == []
    folder.task("deep", more="x")
    folder.write("deep.yaml", "id: deep\nquery: deep.sql\ntables: []\n")
    monkeypatch.setattr("crosswind.tasks.query_analysis.read_query", read)
    (problem,) = folder.problems()
    assert problem.startswith("deep.yaml: cannot be read: RecursionError: maximum recursion depth exceeded; simplify")
    assert folder.edges() == {"shop": {"a": [], "broken__deep": []}}


def test_a_folder_whose_name_is_not_utf_8_loads_with_a_cache(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    (folder / "a.yaml").write_text("id: a\nquery: a.sql\ntables: []\n")
    (folder / "a.sql").write_text("SELECT 1")
    (plan,) = compile_folder(folder, SETTINGS, tmp_path / "cache").dags
    assert [task.task_id for task in plan.tasks] == ["a"]


TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["\0", "../x", "/", ".", "a\0b/c", "\u202e", "é" * 400, "${task.query}", "{{ x", "airflow:", "0 0 0 0 0"]
    ),
)
VALUES = st.recursive(
    TEXTS | st.none() | st.booleans() | st.integers() | st.floats(), lambda inner: st.lists(inner, max_size=3)
)
FIELDS = ["id", "query", "tables", "produces", "appends", "image", "schedule", "owner", "retries", "resources", "pool"]


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS) | TEXTS, VALUES), st.binary(max_size=60) | st.text(max_size=60))
def test_whatever_a_file_and_its_query_hold_the_other_task_loads(fields: dict[str, Any], sql: bytes | str) -> None:
    content = {"id": "bad", "query": "bad.sql", "tables": [], **fields}
    with TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "good.yaml").write_text("id: good_one\nquery: good.sql\ntables: []\n")
        (root / "good.sql").write_text("SELECT 1")
        (root / "bad.sql").write_bytes(sql if isinstance(sql, bytes) else sql.encode(errors="surrogatepass"))
        (root / "bad.yaml").write_text(json.dumps(content))
        compiled = compile_folder(root, SETTINGS, None)
    assert any(task.task_id == "good_one" for dag in compiled.dags for task in dag.tasks), compiled.problems


def test_two_broken_files_have_two_error_files(folder: Any, tmp_path: Path) -> None:
    folder.write("a/b.yaml", "id: one\n")
    folder.write("a_b.yaml", "id: two\n")
    folder.write(f"{'d' * 200}/{'e' * 200}.yaml", "id: three\n")
    result = CliRunner().invoke(main, ["tasks", "compile", str(folder.path), "-o", str(tmp_path / "out")])
    assert result.exit_code == 1, result.output
    texts = [path.read_text() for path in (tmp_path / "out").glob("error__*.py")]
    assert len(texts) == 3
    assert sum("a/b.yaml:1: query is missing" in text for text in texts) == 1
    assert sum("a_b.yaml:1: query is missing" in text for text in texts) == 1


def test_the_file_of_a_plain_path_has_its_name() -> None:
    assert error_file("a_b.yaml", "x")[0] == "error__a_b.yaml.py"


@given(st.text(max_size=40), st.text(max_size=40))
def test_two_texts_have_two_plain_names_of_bounded_length(first: str, second: str) -> None:
    names = [plain_name(first, 20), plain_name(second, 20)]
    assert (names[0] == names[1]) == (first == second)
    assert all(len(name) <= 20 for name in names)


def test_two_tables_have_two_sensors_though_their_names_differ_in_one_sign(folder: Any) -> None:
    sensor = "{operator: my.Sensor, arguments: {sql: 'SELECT 1 FROM ${table}'}}"
    folder.write("crosswind.yaml", f"external: {{sensor: {sensor}}}\ninputs: ignore\n")
    folder.task("a", sql="SELECT 1")
    folder.write("a.yaml", "id: a\nquery: a.sql\ntables: ['x$y', x@y, x_y]\n")
    (dag,) = folder.compile().dags
    sensors = {task.task_id: task.arguments["sql"] for task in dag.tasks if task.task_id != "a"}
    assert len(sensors) == 3
    assert sensors["wait_for_x_y"] == "SELECT 1 FROM x_y"
