"""``crosswind tasks``: task files, checked, drawn and compiled ahead of time."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crosswind import ownership
from crosswind.counting import counted

if TYPE_CHECKING:
    from crosswind.tasks import Compiled
    from crosswind.tasks.graph import Graph
    from crosswind.tasks.problems import Problem

__all__ = ["tasks"]

GRAPH_COMMENTS = {"text": "# {}", "mermaid": "%% {}", "svg": "<!-- {} -->", "html": "<!-- {} -->"}
GRAPH_LINES = {form: text.format("Written by crosswind tasks graph.") + "\n" for form, text in GRAPH_COMMENTS.items()}
GRAPH_JSON = b'{\n  "crosswind": "tasks graph",'
GRAPH_STARTS = (*(line.encode() for line in GRAPH_LINES.values()), GRAPH_JSON)
GRAPH_MARK = ownership.Mark("crosswind tasks graph", lambda content: content.startswith(GRAPH_STARTS))

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
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Warnings fail, too.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--root", type=click.Path(file_okay=False, path_type=Path), help="Folder of task files that single files belong to."
)
def check(paths: tuple[Path, ...], strict: bool, output: str, root: Path | None) -> None:
    """Check task files: for CI, editors and pre-commit.

    PATHS are folders, or single files: task files, queries, crosswind.yaml. A single file is read together with its
    folder, the topmost one above it with a crosswind.yaml, and only its own problems count. Prints file:line: what is
    wrong. Exit code 1 if a file is wrong, 2 if a path is.
    """
    from crosswind.tasks.selection import problems_of

    found: list[tuple[str, Problem]] = []
    summary = []
    for folder, files in _by_root(paths, root).items():
        compiled = _compiled(folder)
        problems = compiled.problems if files is None else problems_of(compiled, files)
        found += [("" if folder == Path() else f"{folder}/", problem) for problem in problems]
        tasks_, dags = sum(len(plan.tasks) for plan in compiled.dags), len(compiled.dags)
        summary.append(
            f"{counted(tasks_, 'task')} in {counted(dags, 'DAG')}"
            if files is None
            else f"{counted(len(files), 'file')} of {folder}"
        )
    wrong = sum(problem.fatal for _, problem in found)
    if output == "json":
        keys = ("file", "line", "message", "fatal")
        told = [{"root": root, **{key: getattr(problem, key) for key in keys}} for root, problem in found]
        click.echo(json.dumps(told, indent=2))
    else:
        for prefix, problem in found:
            click.echo(problem.told(prefix), err=True)
        counts = f"{counted(wrong, 'error')}, {counted(len(found) - wrong, 'warning')}"
        click.echo(f"{', '.join(summary) or 'nothing to check'}, {counts}")
    sys.exit(1 if wrong or (strict and found) else 0)


def _by_root(paths: Sequence[Path], root: Path | None) -> dict[Path, list[str] | None]:
    """Return for each folder of task files the files in it to look at, by their paths below it; None is all."""
    from crosswind.errors import ConfigError
    from crosswind.tasks.selection import root_of

    roots: dict[Path, list[str] | None] = {}
    for path in paths:
        if not path.is_file():
            if path.suffix in {".yaml", ".yml", ".sql"}:
                raise ConfigError(f"{path}: there is no such file; fix the path")
            roots[path] = None
            continue
        folder = root or root_of(path)
        if folder is None:
            click.echo(f"{path}: skipped: it is no task file, and no folder above it has a crosswind.yaml", err=True)
            continue
        folder = folder if path.is_absolute() else Path(os.path.relpath(folder))
        below = os.path.relpath(os.path.realpath(path), os.path.realpath(folder)).replace(os.sep, "/")
        if below.startswith("../"):
            raise ConfigError(f"{path} is not in {folder}; choose another --root")
        files = roots.setdefault(folder, [])
        if files is not None:
            files.append(below)
    return roots


@tasks.command()
@FOLDER
@click.option(
    "--output",
    "--format",
    "form",
    type=click.Choice(["text", "json", "mermaid", "svg", "html"]),
    default="text",
    show_default=True,
    help="html: one page with folders to fold, a search, and what is before and after a task.",
)
@click.option("--draw", is_flag=True, help="Draw in the terminal.")
@click.option("--around", metavar="TASK", help="Only this task, all before it and all after it.")
@click.option("-o", "--file", type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
def graph(folder: Path, form: str, draw: bool, around: str | None, file: Path | None) -> None:
    """Show the tables and tasks of FOLDER, by folder, in the order of work.

    A file that this command has not written is never replaced.
    """
    from crosswind.errors import ConfigError
    from crosswind.tasks import layout, terminal

    compiled = _compiled(folder)
    _tell(folder, compiled)
    shown = compiled.graph
    if around is not None:
        if around not in shown.nodes:
            near = difflib.get_close_matches(around, shown.nodes, 1)
            hint = f"did you mean {near[0]}?" if near else "crosswind tasks graph shows all"
            raise ConfigError(f"--around {around}: there is no such task in {folder}; {hint}")
        shown = layout.around(shown, around)
    text = terminal.as_drawing(shown) if draw else _shown(shown, form)
    if file is None:
        click.echo(text)
    else:
        ownership.write(file, (("" if form == "json" else GRAPH_LINES[form]) + text).encode(), GRAPH_MARK)


def _shown(graph: Graph, form: str) -> str:
    from crosswind.tasks import drawing, picture

    forms = {
        "text": drawing.as_text,
        "json": drawing.as_json,
        "mermaid": drawing.as_mermaid,
        "svg": picture.as_svg,
        "html": picture.as_html,
    }
    return forms[form](graph)


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
    click.echo(f"{counted(len(files), 'file')}, {written} written, {removed} removed")
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
