"""Groups tasks into DAGs, and names these. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from crosswind.tasks.folder_reader import SETTINGS_FILE
from crosswind.tasks.graph import Graph, TaskNode
from crosswind.tasks.model import FolderSettings
from crosswind.tasks.placeholders import fill, uses
from crosswind.tasks.plain_names import plain_name
from crosswind.tasks.problems import TaskFileProblem
from crosswind.types import Json

__all__ = ["Group", "group_tasks", "ids_of", "name_groups", "value_of"]

_MAX_ID = 250
"""Characters of a DAG's id that Airflow stores."""


@dataclass(slots=True, eq=False)
class Group:
    """The tasks of one DAG."""

    folder: str
    schedule: str | None
    own_schedule: bool
    """Whether the schedule is another one than that of the folder."""
    nodes: list[TaskNode] = field(default_factory=list)
    component: str = ""
    """The first task of the connected component; "" where tasks are grouped by folder."""

    @property
    def first(self) -> str:
        """The id of the first task."""
        return min(node.id for node in self.nodes)

    def settings_of_dag(self, root: FolderSettings) -> FolderSettings:
        """Return the settings of its folder, or those of the root if its tasks are in several folders."""
        return self.nodes[0].settings if all(node.folder == self.folder for node in self.nodes) else root


def value_of(node: TaskNode, name: str) -> Json:
    """Return a field of the task's file, else of its folder's settings."""
    task = node.source.task if node.source else None
    return getattr(task if task and name in task.model_fields_set else node.settings, name)


def group_tasks(graph: Graph) -> list[Group]:
    """Group tasks into DAGs: by folder or by connected component, and within these by schedule."""
    components = _connected(graph)
    groups: dict[tuple[str, str, str | None], Group] = {}
    for node in graph.nodes.values():
        schedule = value_of(node, "schedule")
        component = components[node.id] if node.settings.group == "connected" else ""
        key = (component, "" if component else node.folder, schedule)
        own_schedule = schedule != node.settings.schedule
        groups.setdefault(key, Group(node.folder, schedule, own_schedule, [], component)).nodes.append(node)
    return list(groups.values())


def _connected(graph: Graph) -> dict[str, str]:
    """Return the first task of each task's connected component; edges between schedules do not connect (union-find)."""
    parent = {task: task for task in graph.nodes}

    def root(task: str) -> str:
        while parent[task] != task:
            parent[task] = task = parent[parent[task]]
        return task

    for node in graph.nodes.values():
        for _, producer in graph.inputs(node):
            if value_of(graph.nodes[producer], "schedule") == value_of(node, "schedule"):
                first, second = sorted((root(node.id), root(producer)))
                parent[second] = first
    return {task: root(task) for task in graph.nodes}


def name_groups(
    groups: Iterable[Group], root_name: str, root: FolderSettings
) -> tuple[dict[str, Group], list[TaskFileProblem]]:
    """Return the groups by the ids of their DAGs, and a problem for each ``dag_id`` that gives several the same id.

    Two groups never become one DAG, which would run the tasks of one by the schedule of the other. To the same ids a
    digest of what distinguishes the groups is added, except where one group alone has the id without a loss of
    characters: it keeps its history in Airflow.
    """
    alike: dict[str, list[Group]] = {}
    for group in groups:
        alike.setdefault(ids_of(group, group.settings_of_dag(root), root_name)[0], []).append(group)
    named: dict[str, Group] = {}
    problems: list[TaskFileProblem] = []
    others: list[Group] = []
    for dag_id, same in alike.items():
        exact = [group for group in same if len(same) == 1 or _is_exact(group)]
        if len(exact) == 1:
            named[dag_id] = exact[0]
        others += [group for group in same if len(exact) > 1 or group not in exact]
        problems += _ambiguous_ids(dag_id, same, root) if len(same) > 1 else ()
    for group in others:
        dag_id = ids_of(group, group.settings_of_dag(root), root_name)[1]
        while dag_id in named:  # the name of some folder ends in the same digest
            dag_id = plain_name(f"{dag_id}*", _MAX_ID)
        named[dag_id] = group
    return named, problems


def ids_of(group: Group, settings: FolderSettings, root_name: str) -> tuple[str, str]:
    """Return the id of a group's DAG, and the one that it has instead if that of another group is the same.

    Both depend on the group alone. They have a suffix if its schedule is not that of the folder.
    """
    folder = group.folder.replace("/", ".") or root_name
    text = fill(_pattern(settings), {"folder": folder, "first": group.first})
    schedule = (group.schedule or "never") if group.own_schedule else ""
    if schedule:
        text += f".{_word(schedule.replace('*', 'x'))}"
    plain = re.sub(r"[^A-Za-z0-9_.\-]", "_", text)
    identity = "\0".join((group.component or f"{group.folder}/", schedule))
    digest = hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()[:8]
    return plain[:_MAX_ID], f"{plain[: _MAX_ID - len(digest) - 1]}.{digest}"


def _pattern(settings: FolderSettings) -> str:
    return "${folder}.${first}" if settings.group == "connected" and settings.dag_id == "${folder}" else settings.dag_id


def _is_exact(group: Group) -> bool:
    """Return whether the folder's path becomes an id without the loss of a character, and the schedule has no part."""
    return not group.own_schedule and re.fullmatch(r"[A-Za-z0-9_\-/]{,250}", group.folder) is not None


def _ambiguous_ids(dag_id: str, groups: list[Group], root: FolderSettings) -> Iterator[TaskFileProblem]:
    """Yield a problem if the groups have one id because a ``dag_id`` of the settings names neither folder nor task."""
    for group in groups:
        settings = group.settings_of_dag(root)
        place = group.component or group.folder
        other = next((other for other in groups if (other.component or other.folder) != place), None)
        needed = "first" if group.component else "folder"
        if other and not any(uses(_pattern(settings), name) for name in (needed, "first")):
            message = (
                f"two DAGs would have the id {dag_id}, that of this task and that of {other.nodes[0].path}; let dag_id "
                f"in {SETTINGS_FILE} hold ${{{needed}}}. Until then the id of each ends in a digest"
            )
            yield TaskFileProblem(group.nodes[0].path, 0, message)
            return


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
