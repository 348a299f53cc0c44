"""``crosswind tasks``, as it is run by people and by CI."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from crosswind.cli import main


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CROSSWIND_CACHE", "")
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "crosswind.yaml").write_text("connection: warehouse\n")
    (folder / "orders.yaml").write_text("id: orders\nquery: q.sql\ntables: []\n")
    (folder / "daily.yaml").write_text("id: daily\nquery: d.sql\ntables: []\n")
    (folder / "q.sql").write_text("CREATE TABLE orders AS SELECT 1")
    (folder / "d.sql").write_text("CREATE TABLE daily AS SELECT * FROM orders")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["tasks", *map(str, arguments)], catch_exceptions=False)


def test_check_says_yes_with_warnings_unless_strict(files: Path) -> None:
    result = run("check", files)
    assert result.exit_code == 0
    assert f"{files}/daily.yaml:3: warning: tables lacks orders, which d.sql:1 reads; add it" in result.stderr
    assert result.stdout == "2 tasks in 1 DAG, 0 errors, 1 warning\n"
    assert run("check", "--strict", files).exit_code == 1


def test_check_says_no_with_file_and_line(files: Path) -> None:
    (files / "bad.yaml").write_text("id: bad\nquery: q.sql\n\ntable: []\n")
    result = run("check", files)
    assert result.exit_code == 1
    assert f"{files}/bad.yaml:4: table is not a field; did you mean tables?" in result.stderr
    problems = json.loads(run("check", files, "--output", "json").stdout)
    assert {key: problems[1][key] for key in ("file", "line")} == {"file": "bad.yaml", "line": 4}


def test_single_files_are_checked_with_their_folder_and_for_themselves(files: Path) -> None:
    (files / "sub").mkdir()
    (files / "sub" / "bad.yaml").write_text("id: bad\nquery: none.sql\ntables: []\n")
    result = run("check", files / "daily.yaml", files / "orders.yaml")
    assert result.exit_code == 0
    assert result.stderr == f"{files}/daily.yaml:3: warning: tables lacks orders, which d.sql:1 reads; add it\n"
    assert result.stdout == f"2 files of {files}, 0 errors, 1 warning\n"
    assert run("check", "--strict", files / "d.sql").exit_code == 1, "a query's problems are its task file's"
    assert run("check", "--strict", files / "q.sql").exit_code == 0
    result = run("check", files / "sub" / "bad.yaml")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert f"{files}/sub/bad.yaml:2: query none.sql does not exist" in result.stderr
    assert run("check", files / "crosswind.yaml").exit_code == 1, "what it says is for all files below"


def test_a_loop_is_reported_for_each_file_in_it(files: Path) -> None:
    (files / "q.sql").write_text("CREATE TABLE orders AS SELECT * FROM daily")
    for name in ("orders", "daily"):
        result = run("check", files / f"{name}.yaml")
        assert result.exit_code == 1
        assert "the tasks wait for each other" in result.stderr


def test_a_file_that_does_not_belong_to_task_files_is_skipped_and_a_missing_one_is_wrong_use(
    files: Path, tmp_path: Path
) -> None:
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    result = run("check", tmp_path / "compose.yaml")
    assert (result.exit_code, result.stdout) == (0, "nothing to check, 0 errors, 0 warnings\n")
    assert "skipped" in result.stderr
    assert run("check", files / "no.yaml").exit_code == 2
    result = run("check", "--root", files / "sub", files / "orders.yaml")
    assert result.exit_code == 2


def test_the_pre_commit_hook_is_this_command() -> None:
    (hook,) = yaml.safe_load((Path(__file__).parents[2] / ".pre-commit-hooks.yaml").read_text())
    assert hook["entry"].split()[:2] == ["crosswind", "tasks"]
    command: click.Command = main
    for word in hook["entry"].split()[1:]:
        assert isinstance(command, click.Group)
        subcommand = command.get_command(click.Context(command), word)
        assert subcommand is not None
        command = subcommand
    (argument,) = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    assert argument.nargs == -1, "pre-commit gives the names of files"
    assert hook["types_or"] == ["yaml", "sql"]


def test_a_missing_folder_is_wrong_use(files: Path) -> None:
    result = run("check", files / "no")
    assert result.exit_code == 2
    assert "no such folder" in result.stderr


BEGINS = {"text": "orders ", "mermaid": "flowchart", "svg": "<svg", "html": "<!doctype html>", "json": "{"}


@pytest.mark.parametrize("form", BEGINS)
def test_graph_draws(files: Path, tmp_path: Path, form: str) -> None:
    assert run("graph", files, "--output", form).stdout.startswith(BEGINS[form])
    for _ in range(2):  # its own file is replaced
        assert run("graph", files, "--output", form, "-o", tmp_path / "out").exit_code == 0
    written = (tmp_path / "out").read_text()
    if form != "json":
        assert "Written by crosswind tasks graph" in written.splitlines()[0]
        written = written.partition("\n")[2]
    assert written.startswith(BEGINS[form])
    (tmp_path / "out").write_text("mine")
    assert run("graph", files, "--output", form, "-o", tmp_path / "out").exit_code == 2
    assert (tmp_path / "out").read_text() == "mine"


def test_graph_draws_in_the_terminal_and_a_part_of_it(files: Path) -> None:
    assert run("graph", files, "--draw").stdout == ". (2 tasks)\n[orders]─┐\n         └─▶[daily]\n"
    (files / "other.yaml").write_text("id: other\nquery: o.sql\ntables: []\n")
    (files / "o.sql").write_text("CREATE TABLE other AS SELECT 1")
    shown = json.loads(run("graph", files, "--output", "json", "--around", "daily").stdout)
    assert [task["id"] for task in shown["tasks"]] == ["daily", "orders"]
    result = run("graph", files, "--around", "dayly")
    assert result.exit_code == 2
    assert "did you mean daily?" in result.stderr


def test_compile_writes_what_changed_and_removes_what_is_gone(files: Path, tmp_path: Path) -> None:
    dags = tmp_path / "dags"
    assert run("compile", files, "-o", dags).stdout == "1 file, 1 written, 0 removed\n"
    before = (dags / "files.py").stat()
    assert stat.S_IMODE(before.st_mode) == 0o644
    assert run("compile", files, "-o", dags).stdout == "1 file, 0 written, 0 removed\n"
    assert (dags / "files.py").stat().st_mtime_ns == before.st_mtime_ns
    (dags / "own.py").write_text("# somebody's own")
    (files / "bad.yaml").write_text("id: [\n")
    result = run("compile", files, "-o", dags)
    assert (result.exit_code, result.stdout) == (1, "2 files, 1 written, 0 removed\n")
    (files / "bad.yaml").unlink()
    assert run("compile", files, "-o", dags).stdout == "1 file, 0 written, 1 removed\n"
    assert sorted(os.listdir(dags)) == ["files.py", "own.py"]


def test_who_reads_while_compile_writes_sees_the_old_file_whole(files: Path, tmp_path: Path) -> None:
    run("compile", files, "-o", tmp_path / "dags")
    with (tmp_path / "dags" / "files.py").open() as reader:
        old = (tmp_path / "dags" / "files.py").read_text()
        (files / "d.sql").write_text("CREATE TABLE daily AS SELECT 2 AS a FROM orders")
        assert run("compile", files, "-o", tmp_path / "dags").stdout == "1 file, 1 written, 0 removed\n"
        assert reader.read() == old != (tmp_path / "dags" / "files.py").read_text()


def test_compile_never_replaces_a_file_of_somebody_else(files: Path, tmp_path: Path) -> None:
    (tmp_path / "files.py").write_text("# mine")
    result = run("compile", files, "-o", tmp_path)
    assert result.exit_code == 2
    assert "files.py is there and was not written by crosswind tasks compile: move it away" in result.stderr
    assert (tmp_path / "files.py").read_text() == "# mine"


def test_schema_prints_what_editors_read() -> None:
    schema = json.loads(run("schema", "task").stdout)
    assert schema["required"] == ["id", "query", "tables"]
    assert schema["additionalProperties"] is False
