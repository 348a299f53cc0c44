"""``crosswind tasks``: task files, checked, drawn and compiled ahead of time."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from crosswind.tasks import Compiled

__all__ = ["tasks"]

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
    """Draw the tables and tasks of FOLDER."""
    from crosswind.tasks.drawing import as_mermaid, as_svg, as_text

    compiled = _compiled(folder)
    _tell(folder, compiled)
    text = {"text": as_text, "mermaid": as_mermaid, "svg": as_svg}[form](compiled.graph)
    if output is None:
        click.echo(text)
    else:
        _replace(output, text)


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
    from crosswind.errors import ConfigError
    from crosswind.tasks.python_files import MARK

    folder.mkdir(parents=True, exist_ok=True)
    there = {path.name: path.read_text(errors="replace") for path in folder.glob("*.py")}
    if foreign := sorted(name for name in files.keys() & there.keys() if not there[name].startswith(MARK)):
        raise ConfigError(f"{folder / foreign[0]} was not written by this command; move it, or choose another folder")
    stale = [name for name, text in there.items() if text.startswith(MARK) and name not in files]
    changed = [name for name, text in files.items() if there.get(name) != text]
    for name in changed:
        _replace(folder / name, files[name])
    for name in stale:
        (folder / name).unlink()
    return len(changed), len(stale)


def _replace(path: Path, text: str) -> None:
    """Write a file in one step: readers see the old text or the new one, and the file's mode is that of a new file."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as opened:
            opened.write(text)
            os.fchmod(handle, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@tasks.command()
@click.argument("kind", type=click.Choice(["task", "crosswind"]))
def schema(kind: str) -> None:
    """Print the JSON Schema of task files, or of crosswind.yaml, for editors."""
    from crosswind.tasks.model import json_schema

    click.echo(json.dumps(json_schema(kind), indent=2))  # type: ignore[arg-type]  # click has checked it
