"""Single files of a folder of task files: which folder a file belongs to, and which problems are its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from crosswind.errors import ConfigError
from crosswind.regular_files import read_bytes
from crosswind.tasks.compiling import Compiled
from crosswind.tasks.documents import MAX_BYTES, DocumentError, read_document
from crosswind.tasks.problems import Problem
from crosswind.tasks.reading import SETTINGS_FILE

__all__ = ["problems_of", "root_of"]


def root_of(file: Path) -> Path | None:
    """Return the folder of task files that ``file`` belongs to: the topmost one above it with a ``crosswind.yaml``.

    The search ends where a repository begins. A task file without any ``crosswind.yaml`` is checked with its own
    folder; None if the file is neither.
    """
    found: Path | None = None
    for folder in Path(os.path.abspath(file)).parents:
        if (folder / SETTINGS_FILE).is_file():
            found = folder
        if (folder / ".git").exists():
            break
    return found or (file.parent if _is_task_file(file) else None)


def _is_task_file(file: Path) -> bool:
    if file.suffix == ".sql":
        return False
    try:
        return {"id", "query"} <= read_document(read_bytes(file, limit=MAX_BYTES)).fields.keys()
    except (ConfigError, DocumentError):
        return False


def problems_of(compiled: Compiled, files: Iterable[str]) -> list[Problem]:
    """Return the problems of these files, given by their paths below the root.

    A query's are those of the task files that name it; those of a ``crosswind.yaml`` are of all that it is for.
    """
    selected = set(files)
    folders = [path.rpartition("/")[0] for path in selected if path.rpartition("/")[2] == SETTINGS_FILE]
    for node in compiled.graph.nodes.values():
        if node.source is not None and node.source.query_path in selected:
            selected.add(node.path)
    found = [one for one in compiled.problems if one.file in selected or any(_below(one.file, top) for top in folders)]
    return sorted([*found, *_told_elsewhere(compiled, selected, found)])


def _below(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def _told_elsewhere(compiled: Compiled, selected: set[str], found: Iterable[Problem]) -> Iterator[Problem]:
    """Yield why tasks of the files cannot run where another file tells it, such as the first one of a loop."""
    told = {problem.file for problem in found if problem.fatal}
    for node in compiled.graph.nodes.values():
        if node.path in selected and node.path not in told and node.problem:
            yield Problem(node.path, 0, node.problem)
