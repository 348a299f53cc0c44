"""Selects the problems of single task files, and finds the folder that a file belongs to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from crosswind.documents import read_bytes
from crosswind.errors import ConfigError
from crosswind.tasks.compiling import CompiledFolder
from crosswind.tasks.field_lines import MAX_BYTES, read_fields
from crosswind.tasks.folder_reader import SETTINGS_FILE
from crosswind.tasks.problems import TaskFileProblem

__all__ = ["problems_of", "root_of"]


def root_of(file: Path) -> Path | None:
    """Return the folder of task files that ``file`` belongs to: the topmost parent with a ``crosswind.yaml``.

    The search ends at the root of the repository. A task file without any ``crosswind.yaml`` belongs to its own folder.
    None if ``file`` is no task file and no parent has a ``crosswind.yaml``.
    """
    topmost: Path | None = None
    for folder in Path(os.path.abspath(file)).parents:
        if (folder / SETTINGS_FILE).is_file():
            topmost = folder
        if (folder / ".git").exists():
            break
    return topmost or (file.parent if _is_task_file(file) else None)


def _is_task_file(file: Path) -> bool:
    if file.suffix == ".sql":
        return False
    try:
        return {"id", "query"} <= read_fields(read_bytes(file, limit=MAX_BYTES)).fields.keys()
    except ConfigError:
        return False


def problems_of(compiled: CompiledFolder, files: Iterable[str]) -> list[TaskFileProblem]:
    """Return the problems of these files, given by their paths below the root.

    The problems of a query are those of the task files that name it; those of a ``crosswind.yaml`` are the problems of
    all files below its folder.
    """
    selected = set(files)
    folders = [path.rpartition("/")[0] for path in selected if path.rpartition("/")[2] == SETTINGS_FILE]
    for node in compiled.graph.nodes.values():
        if node.source is not None and node.source.query_path in selected:
            selected.add(node.path)
    problems = [
        problem
        for problem in compiled.problems
        if problem.file in selected or any(_below(problem.file, folder) for folder in folders)
    ]
    return sorted([*problems, *_reported_elsewhere(compiled, selected, problems)])


def _below(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def _reported_elsewhere(
    compiled: CompiledFolder, selected: set[str], problems: Iterable[TaskFileProblem]
) -> Iterator[TaskFileProblem]:
    """Yield the problems of selected tasks that are reported for another file, such as the first one of a loop."""
    reported = {problem.file for problem in problems if problem.fatal}
    for node in compiled.graph.nodes.values():
        if node.path in selected and node.path not in reported and node.problem:
            yield TaskFileProblem(node.path, 0, node.problem)
