"""Compiles a folder of task files to planned DAGs in three steps: read, link, plan."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crosswind.tasks.cache import Cache
from crosswind.tasks.folder_reader import read_folder, read_task
from crosswind.tasks.graph import Graph, link
from crosswind.tasks.plans import DagPlan, plan_dags, plan_one
from crosswind.tasks.problems import TaskFileProblem
from crosswind.types import Json

__all__ = ["CompiledFolder", "compile_folder", "compile_task"]


@dataclass(frozen=True, slots=True)
class CompiledFolder:
    """The result of compiling a folder of task files."""

    dags: list[DagPlan]
    graph: Graph
    problems: list[TaskFileProblem]
    """Sorted by file and line, including warnings."""

    @property
    def failed(self) -> bool:
        """Whether any problem is more than a warning."""
        return any(problem.fatal for problem in self.problems)


def compile_folder(folder: Path, settings: Mapping[str, Json], cache: Path | None) -> CompiledFolder:
    """Compile all of ``folder``. The result depends on the files and settings alone.

    ``settings`` are fields of ``crosswind.yaml``, the defaults for all such files. ``cache``: the folder of cached
    results of earlier calls, or None. Raises ``ConfigError`` if the folder or ``settings`` are wrong.
    """
    root = _absolute(folder)
    with Cache(cache, root) as parsed:
        task_folder = read_folder(folder, settings, parsed)
    graph = link(task_folder)
    root_settings = task_folder.settings.get("")
    dags, dag_problems = plan_dags(graph, root.name, root_settings) if root_settings else ([], [])
    return CompiledFolder(dags, graph, sorted([*graph.problems, *dag_problems]))


def compile_task(
    folder: Path, settings: Mapping[str, Json], cache: Path | None, dag_id: str, task_id: str
) -> DagPlan | None:
    """Return a DAG with this task alone, planned without reading the queries of the other tasks.

    None if its file does not determine the task: a sensor, a task of a broken file, a task of another DAG.
    """
    root = _absolute(folder)
    source = read_task(folder, settings, Cache(cache, root), task_id)
    return plan_one(source, dag_id, root.name) if source else None


def _absolute(folder: Path) -> Path:
    """Return the absolute path without resolving links: git-sync's link has another target after each commit."""
    return Path(os.path.abspath(folder))
