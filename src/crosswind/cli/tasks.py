"""``crosswind tasks``: task files, checked, drawn and compiled ahead of time."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crosswind import ownership

if TYPE_CHECKING:
    from crosswind.tasks import Compiled

__all__ = ["tasks"]

GRAPH_COMMENTS = {"text": "# {}", "mermaid": "%% {}", "svg": "<!-- {} -->"}
GRAPH_LINES = {form: text.format("Written by crosswind tasks graph.") + "\n" for form, text in GRAPH_COMMENTS.items()}
GRAPH_MARK = ownership.Mark(
    "crosswind tasks graph", lambda content: content.startswith(tuple(line.encode() for line in GRAPH_LINES.values()))
)

FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))


@click.group()
def tasks() -> None:
    """Task files: three lines of YAML that schedule a query."""


def _compiled(folder: Path) -> Compiled:
    from crosswind.tasks import compile_folder
    from crosswind.tasks.cache import cache_folder

    return compile_folder(folder, {}, cache_folder(os.environ))


def _tell(folder: Path, compiled: Compiled) -> None:
    for problem in compiled.problems:
        click.echo(problem.told(f"{folder}/"), err=True)


@tasks.command()
@FOLDER
@click.option("--strict", is_flag=True, help="Warnings fail, too.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def check(folder: Path, strict: bool, output: str) -> None:
    """Check the task files of FOLDER: for CI.

    Prints file:line: what is wrong. Exit code 1 if a file is wrong, 2 if FOLDER is.
    """
    compiled = _compiled(folder)
    if output == "json":
        keys = ("file", "line", "message", "fatal")
        click.echo(
            json.dumps([{key: getattr(problem, key) for key in keys} for problem in compiled.problems], indent=2)
        )
    else:
        _tell(folder, compiled)
        wrong = sum(problem.fatal for problem in compiled.problems)
        warnings = len(compiled.problems) - wrong
        count = sum(len(plan.tasks) for plan in compiled.dags)
        click.echo(f"{count} tasks in {len(compiled.dags)} DAGs, {wrong} errors, {warnings} warnings")
    sys.exit(1 if compiled.failed or (strict and compiled.problems) else 0)


@tasks.command()
@FOLDER
@click.option("--format", "form", type=click.Choice(["text", "mermaid", "svg"]), default="text", show_default=True)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
def graph(folder: Path, form: str, output: Path | None) -> None:
    """Draw the tables and tasks of FOLDER.

    A file that this command has not written is never replaced.
    """
    from crosswind.tasks.drawing import as_mermaid, as_svg, as_text

    compiled = _compiled(folder)
    _tell(folder, compiled)
    text = {"text": as_text, "mermaid": as_mermaid, "svg": as_svg}[form](compiled.graph)
    if output is None:
        click.echo(text)
    else:
        ownership.write(output, (GRAPH_LINES[form] + text).encode(), GRAPH_MARK)


@tasks.command("compile")
@FOLDER
@click.option(
    "-o", "--output", "dags", type=click.Path(file_okay=False, path_type=Path), required=True, help="The DAG folder."
)
def compile_(folder: Path, dags: Path) -> None:
    """Write the DAGs of FOLDER as plain Python files.

    For a pod of its own and a DAG folder on a shared volume: each file appears in one step, files that have not changed
    are left alone, and files of DAGs that are gone are removed. A task file that is wrong becomes a file that raises,
    and so an import error; the exit code is then 1. Files that this command has not written are never touched.
    """
    from crosswind.tasks.problems import by_file
    from crosswind.tasks.python_files import dag_file, error_file

    compiled = _compiled(folder)
    _tell(folder, compiled)
    errors = by_file(compiled.problems, f"{folder}/")
    files = dict([*map(dag_file, compiled.dags), *(error_file(path, text) for path, text in errors.items())])
    written, removed = _write_all(dags, files)
    click.echo(f"{len(files)} files, {written} written, {removed} removed")
    sys.exit(1 if compiled.failed else 0)


def _write_all(folder: Path, files: Mapping[str, str]) -> tuple[int, int]:
    """Bring the folder up to date; return how many files were written and removed."""
    from crosswind.tasks.python_files import MARK

    mark = ownership.line_mark("crosswind tasks compile", MARK)
    ownership.check_tree(folder, files, mark)
    there = {path.name: _text(path) for path in folder.glob("*.py") if path.is_file() and not path.is_symlink()}
    stale = [name for name, text in there.items() if text.startswith(MARK) and name not in files]
    changed = [name for name, text in files.items() if there.get(name) != text]
    folder.mkdir(parents=True, exist_ok=True)
    for name in changed:
        # 0644 whatever the umask: another user's DAG processor reads it
        ownership.write(folder / name, files[name].encode(), mark, mode=0o644)
    return len(changed), sum(ownership.remove(folder / name, mark) for name in stale)


def _text(path: Path) -> str:
    """Return what a file says; nothing when it cannot be read, for then it is not ours either."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


@tasks.command()
@click.argument("kind", type=click.Choice(["task", "crosswind"]))
def schema(kind: str) -> None:
    """Print the JSON Schema of task files, or of crosswind.yaml, for editors."""
    from crosswind.tasks.model import json_schema

    click.echo(json.dumps(json_schema(kind), indent=2))  # type: ignore[arg-type]  # click has checked it
