"""From a folder of task files to planned DAGs: read, link, plan."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crosswind.tasks.cache import Cache
from crosswind.tasks.graph import Graph, link
from crosswind.tasks.plans import DagPlan, plan_dags, plan_one
from crosswind.tasks.problems import Problem
from crosswind.tasks.reading import read_task, read_tree
from crosswind.types import Json

__all__ = ["Compiled", "compile_folder", "compile_task"]


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a folder of task files comes to."""

    dags: list[DagPlan]
    graph: Graph
    problems: list[Problem]
    """Sorted by file and line; warnings among them."""

    @property
    def failed(self) -> bool:
        """Whether any problem is more than a warning."""
        return any(problem.fatal for problem in self.problems)


def compile_folder(folder: Path, settings: Mapping[str, Json], cache: Path | None) -> Compiled:
    """Compile all of ``folder``; the same files give the same result, everywhere and every time.

    ``settings`` are fields of ``crosswind.yaml``, which count where no such file says otherwise. ``cache``: folder of
    what earlier calls have read, or None. Raises ``ConfigError`` when the folder or ``settings`` are wrong.
    """
    with Cache(cache, _place(folder)) as remembered:
        tree = read_tree(folder, settings, remembered)
    graph = link(tree)
    dags, more = plan_dags(graph, _place(folder).name, tree.settings[""]) if "" in tree.settings else ([], [])
    return Compiled(dags, graph, sorted([*graph.problems, *more]))


def compile_task(
    folder: Path, settings: Mapping[str, Json], cache: Path | None, dag_id: str, task_id: str
) -> DagPlan | None:
    """Return a DAG with one task alone, made without the queries of the others.

    None if that cannot be told from its file: a sensor, a task of a broken file, a task of another DAG.
    """
    source = read_task(folder, settings, Cache(cache, _place(folder)), task_id)
    return plan_one(source, dag_id, _place(folder).name) if source else None


def _place(folder: Path) -> Path:
    """Return where the folder is, links not resolved: one of git-sync leads to another place after each commit."""
    return Path(os.path.abspath(folder))
