"""``crosswind tasks``: checks, draws and compiles task files."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crosswind.cli import output_files
from crosswind.cli.parameter_types import NamedPath
from crosswind.errors import counted

if TYPE_CHECKING:
    from crosswind.tasks import CompiledFolder
    from crosswind.tasks.graph import Graph
    from crosswind.tasks.problems import TaskFileProblem

__all__ = ["tasks"]

GRAPH_COMMENTS = {"text": "# {}", "mermaid": "%% {}", "svg": "<!-- {} -->", "html": "<!-- {} -->"}
GRAPH_LINES = {form: text.format("Written by crosswind tasks graph.") + "\n" for form, text in GRAPH_COMMENTS.items()}
GRAPH_JSON = b'{\n  "crosswind": "tasks graph",'
GRAPH_STARTS = (*(line.encode() for line in GRAPH_LINES.values()), GRAPH_JSON)
GRAPH_MARK = output_files.FileMark("crosswind tasks graph", lambda content: content.startswith(GRAPH_STARTS))

FOLDER = click.argument("folder", type=NamedPath(file_okay=False, path_type=Path))


@click.group()
def tasks() -> None:
    """Task files: three lines of YAML that schedule a query."""


def _compiled(folder: Path) -> CompiledFolder:
    from crosswind.tasks import compile_folder
    from crosswind.tasks.cache import cache_folder

    return compile_folder(folder, {}, cache_folder(os.environ))


def _print_problems(folder: Path, compiled: CompiledFolder) -> None:
    for problem in compiled.problems:
        click.echo(problem.describe(f"{folder}/"), err=True)


@tasks.command()
@click.argument("paths", nargs=-1, required=True, type=NamedPath(path_type=Path))
@click.option("--strict", is_flag=True, help="Fail on warnings, too.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option(
    "--root",
    type=NamedPath(file_okay=False, path_type=Path),
    help="Folder of task files to which single files belong.",
)
def check(paths: tuple[Path, ...], strict: bool, output: str, root: Path | None) -> None:
    """Check task files, in CI, editors and pre-commit.

    PATHS are folders or single files: task files, queries, crosswind.yaml. A single file is read together with its
    folder, the topmost one above it that has a crosswind.yaml, and only the problems of the file itself count. Prints
    each problem as file:line: message. Exit code 1 if a file is wrong, 2 if a path is.
    """
    problems: list[tuple[str, TaskFileProblem]] = []
    summary = []
    for folder, files in _by_root(paths, root).items():
        folder_problems, checked = _check_folder(folder, files)
        problems += [("" if folder == Path() else f"{folder}/", problem) for problem in folder_problems]
        summary.append(checked)
    error_count = sum(problem.fatal for _, problem in problems)
    if output == "json":
        keys = ("file", "line", "message", "fatal")
        listing = [{"root": prefix, **{key: getattr(problem, key) for key in keys}} for prefix, problem in problems]
        click.echo(json.dumps(listing, indent=2))
    else:
        for prefix, problem in problems:
            click.echo(problem.describe(prefix), err=True)
        counts = f"{counted(error_count, 'error')}, {counted(len(problems) - error_count, 'warning')}"
        click.echo(f"{', '.join(summary) or 'nothing to check'}, {counts}")
    sys.exit(1 if error_count or (strict and problems) else 0)


def _check_folder(folder: Path, files: Sequence[str] | None) -> tuple[list[TaskFileProblem], str]:
    """Return the problems of some files of a folder, None: of all files, and what was checked, for the summary."""
    from crosswind.tasks.selection import problems_of

    compiled = _compiled(folder)
    if files is not None:
        return problems_of(compiled, files), f"{counted(len(files), 'file')} of {folder}"
    task_count = sum(len(plan.tasks) for plan in compiled.dags)
    return compiled.problems, f"{counted(task_count, 'task')} in {counted(len(compiled.dags), 'DAG')}"


def _by_root(paths: Sequence[Path], root: Path | None) -> dict[Path, list[str] | None]:
    """Return the files to check by the folder of task files that they belong to, as paths below it; None: all files."""
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
            click.echo(f"{path}: skipped: it is not a task file, and no folder above it has a crosswind.yaml", err=True)
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
    help="html: a page with collapsible folders, a search, and the upstream and downstream tasks of each task.",
)
@click.option("--draw", is_flag=True, help="Draw in the terminal.")
@click.option("--around", metavar="TASK", help="Show only this task with all its upstream and downstream tasks.")
@click.option("-o", "--file", type=NamedPath(dir_okay=False, path_type=Path), help="File to write.")
def graph(folder: Path, form: str, draw: bool, around: str | None, file: Path | None) -> None:
    """Show the tables and tasks of FOLDER, by folder, in the order in which they run.

    Never replaces a file that this command did not write.
    """
    from crosswind.errors import ConfigError
    from crosswind.tasks import layout, terminal_drawing

    compiled = _compiled(folder)
    _print_problems(folder, compiled)
    graph = compiled.graph
    if around is not None:
        if around not in graph.nodes:
            similar = difflib.get_close_matches(around, graph.nodes, 1)
            hint = f"did you mean {similar[0]}?" if similar else "crosswind tasks graph shows all"
            raise ConfigError(f"--around {around}: there is no such task in {folder}; {hint}")
        graph = layout.around(graph, around)
    text = terminal_drawing.as_drawing(graph) if draw else _formatted(graph, form)
    if file is None:
        click.echo(text)
    else:
        output_files.write(file, (("" if form == "json" else GRAPH_LINES[form]) + text).encode(), GRAPH_MARK)


def _formatted(graph: Graph, form: str) -> str:
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
    "-o",
    "--output",
    "dags",
    type=NamedPath(file_okay=False, path_type=Path),
    required=True,
    help="DAG folder to write to.",
)
def compile_(folder: Path, dags: Path) -> None:
    """Write the DAGs of FOLDER as plain Python files.

    For a pod of its own that fills a DAG folder on a shared volume. Each file appears atomically, unchanged files are
    not written again, and files of DAGs that are gone are removed. A wrong task file becomes a file that raises, and
    thus an import error; the exit code is then 1. Never touches files that this command did not write.
    """
    from crosswind.tasks.problems import by_file
    from crosswind.tasks.python_files import dag_file, error_file

    compiled = _compiled(folder)
    _print_problems(folder, compiled)
    errors = by_file(compiled.problems, f"{folder}/")
    files = dict([*map(dag_file, compiled.dags), *(error_file(path, text) for path, text in errors.items())])
    written, removed = _write_all(dags, files)
    click.echo(f"{counted(len(files), 'file')}, {written} written, {removed} removed")
    sys.exit(1 if compiled.failed else 0)


def _write_all(folder: Path, files: Mapping[str, str]) -> tuple[int, int]:
    """Update the folder; return how many files were written and how many removed."""
    from crosswind.tasks.python_files import MARK

    mark = output_files.line_mark("crosswind tasks compile", MARK)
    output_files.check_tree(folder, files, mark)
    present = {path.name: _text(path) for path in folder.glob("*.py") if path.is_file() and not path.is_symlink()}
    stale = [name for name, text in present.items() if text.startswith(MARK) and name not in files]
    changed = [name for name, text in files.items() if present.get(name) != text]
    folder.mkdir(parents=True, exist_ok=True)
    for name in changed:
        # 0644 whatever the umask, because the DAG processor may run as another user.
        output_files.write(folder / name, files[name].encode(), mark, mode=0o644)
    return len(changed), sum(output_files.remove(folder / name, mark) for name in stale)


def _text(path: Path) -> str:
    """Return the text of a file, "" if it cannot be read: then this command did not write it either."""
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
