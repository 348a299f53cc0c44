"""The DAGs that task files become, as plain values: built into Airflow's objects, or written out as Python. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from crosswind.tasks.graph import Graph, Node, find_loops, matches
from crosswind.tasks.model import POD_OPERATOR, FolderSettings
from crosswind.tasks.placeholders import fill
from crosswind.tasks.problems import Problem
from crosswind.tasks.reading import SETTINGS_FILE, Source
from crosswind.types import Json

__all__ = ["BROKEN_PREFIX", "DagPlan", "TaskPlan", "plan_dags", "plan_one"]

BROKEN_PREFIX = "broken__"
"""Of the id of a task that stands for a broken file: it fails, so that nothing after it works on old data."""


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """One task: an operator's import path and arguments, all plain values. ``retry_delay`` in seconds."""

    task_id: str
    path: str
    operator: str
    arguments: Mapping[str, Json] = field(default_factory=dict)
    owner: str = "airflow"
    retries: int = 0
    retry_delay: int = 300
    pool: str | None = None
    queue: str | None = None
    image: str | None = None
    """Image of the worker's own container; a pod's image stands in its arguments."""
    resources: Mapping[str, str] = field(default_factory=dict)
    upstream: tuple[str, ...] = ()
    outlets: tuple[str, ...] = ()
    broken: str = ""
    """Why it can only fail."""


@dataclass(frozen=True, slots=True)
class DagPlan:
    """One DAG. With ``assets`` it runs after them, or also by ``schedule``, as ``follows`` says."""

    dag_id: str
    folder: str
    settings: FolderSettings
    schedule: str | None
    tasks: tuple[TaskPlan, ...]
    assets: tuple[str, ...] = ()
    follows: str = "assets"


@dataclass(slots=True)
class _Group:
    folder: str
    schedule: str | None
    own_schedule: bool
    nodes: list[Node] = field(default_factory=list)


def plan_dags(graph: Graph, root_name: str, root_settings: FolderSettings) -> tuple[list[DagPlan], list[Problem]]:
    """Return the DAGs, by id, and what is wrong between them. ``root_name`` is the root folder's, for naming."""
    groups, problems = _named(_groups(graph), root_name, root_settings)
    home = {node.id: dag_id for dag_id, group in groups.items() for node in group.nodes}
    follows = {
        dag_id: _followed(graph, group, home, dag_id)
        for dag_id, group in groups.items()
        if not group.own_schedule and _settings(group, root_settings).follows != "schedule"
    }
    for loop in find_loops(
        {
            dag_id: {home[task] for t in tables for task in graph.makers(t)} - {dag_id}
            for dag_id, tables in follows.items()
        }
    ):
        problems.append(_dag_loop(loop, groups, follows, graph, home))
        for dag_id in loop:
            follows[dag_id] = []
    plans = [
        _dag(dag_id, group, _settings(group, root_settings), graph, home, follows.get(dag_id, []))
        for dag_id, group in sorted(groups.items())
    ]
    return plans, problems


def plan_one(source: Source, dag_id: str, root_name: str) -> DagPlan | None:
    """Return a DAG of one task: all that a worker needs, made without the other files.

    None if the task belongs to another DAG, of the same id in another folder of task files.
    """
    settings = source.settings
    node = Node(source.task.id, source.path, source.folder, settings, {}, source.writes, source, appends=source.appends)
    schedule = _value(node, "schedule")
    group = _Group(node.folder, schedule, schedule != settings.schedule, [node])
    if settings.group == "folder" and "${first}" not in settings.dag_id and dag_id != _id(group, settings, root_name):
        return None
    return DagPlan(dag_id, source.folder, settings, None, (_task(node, ()),))


def _value(node: Node, name: str) -> Json:
    """Return what the task's file says, else its folder's settings."""
    task = node.source.task if node.source else None
    return getattr(task if task and name in task.model_fields_set else node.settings, name)


def _groups(graph: Graph) -> list[_Group]:
    """Put tasks together: those of a folder, or those that are connected; in each, those of one schedule."""
    members = _connected(graph)
    groups: dict[tuple[str, str, str | None], _Group] = {}
    for node in graph.nodes.values():
        schedule = _value(node, "schedule")
        knot = members[node.id] if node.settings.group == "connected" else ""
        key = (knot, "" if knot else node.folder, schedule)
        own = schedule != node.settings.schedule
        groups.setdefault(key, _Group(node.folder, schedule, own)).nodes.append(node)
    return list(groups.values())


def _connected(graph: Graph) -> dict[str, str]:
    """Return for each task the first task of its connected group; edges between schedules do not connect."""
    parent = {task: task for task in graph.nodes}

    def top(task: str) -> str:
        while parent[task] != task:
            parent[task] = task = parent[parent[task]]
        return task

    for node in graph.nodes.values():
        for _, by in graph.inputs(node):
            if _value(graph.nodes[by], "schedule") == _value(node, "schedule"):
                one, other = sorted((top(node.id), top(by)))
                parent[other] = one
    return {task: top(task) for task in graph.nodes}


def _named(groups: list[_Group], root_name: str, root: FolderSettings) -> tuple[dict[str, _Group], list[Problem]]:
    named: dict[str, _Group] = {}
    problems = []
    for group in groups:
        dag_id = _id(group, _settings(group, root), root_name)
        if dag_id in named:
            message = f"two DAGs would have the id {dag_id}; let dag_id hold ${{folder}} or ${{first}}"
            problems.append(Problem(_settings_path(group.folder), 0, message))
            named[dag_id].nodes.extend(group.nodes)
        else:
            named[dag_id] = group
    return named, problems


def _id(group: _Group, settings: FolderSettings, root_name: str) -> str:
    """Return the id of a group's DAG, with a word for a schedule of its own."""
    pattern = settings.dag_id
    if settings.group == "connected" and pattern == "${folder}":
        pattern = "${folder}.${first}"
    folder = group.folder.replace("/", ".") or root_name
    dag_id = fill(pattern, {"folder": folder, "first": min(node.id for node in group.nodes)})
    if group.own_schedule:
        dag_id += f".{_word((group.schedule or 'never').replace('*', 'x'))}"
    return re.sub(r"[^A-Za-z0-9_.\-]", "_", dag_id)[:250]


def _settings_path(folder: str) -> str:
    return f"{folder}/{SETTINGS_FILE}" if folder else SETTINGS_FILE


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")


def _settings(group: _Group, root: FolderSettings) -> FolderSettings:
    """Return the settings of the DAG itself: its folder's, or those of the root when folders mix."""
    own = group.nodes[0].settings
    return own if all(node.folder == group.folder for node in group.nodes) else root


def _followed(graph: Graph, group: _Group, home: Mapping[str, str], dag_id: str) -> list[str]:
    """Return the tables of other DAGs after which this one runs."""
    tables = {table for node in group.nodes for table, by in graph.inputs(node) if home[by] != dag_id}
    tables -= {table for node in group.nodes for table in node.appends}  # it would run after itself, again and again
    for node in group.nodes:
        patterns = node.settings.external.assets
        if patterns:
            schema = node.settings.default_schema
            tables |= {table for table in graph.external(node) if matches(table, patterns, schema)}
    return sorted(tables)


def _dag_loop(
    loop: list[str],
    groups: Mapping[str, _Group],
    follows: Mapping[str, list[str]],
    graph: Graph,
    home: Mapping[str, str],
) -> Problem:
    first = min(loop)
    turn = loop.index(first)
    names = [*loop[turn:], *loop[:turn], first]
    followed = [table for dag_id in loop for table in follows[dag_id]]
    tables = sorted(table for table in followed if any(home[task] in loop for task in graph.makers(table)))
    message = (
        f"the DAGs wait for each other: {' → '.join(names)}, by the tables {', '.join(tables)}; "
        "write group: connected, or follows: schedule in one of them. Until then they run by their schedules"
    )
    return Problem(_settings_path(groups[first].folder), 0, message)


def _dag(
    dag_id: str, group: _Group, settings: FolderSettings, graph: Graph, home: Mapping[str, str], follows: list[str]
) -> DagPlan:
    tasks, sensors = [], dict[str, TaskPlan]()
    for node in group.nodes:
        before = {_plan_id(graph.nodes[by]) for _, by in graph.inputs(node) if home[by] == dag_id}
        for sensor in _sensors(graph, node):
            sensors.setdefault(sensor.task_id, sensor)
            before.add(sensor.task_id)
        tasks.append(_task(node, sorted(before)))
    ordered = tuple(sorted([*tasks, *sensors.values()], key=lambda task: task.task_id))
    return DagPlan(dag_id, group.folder, settings, group.schedule, ordered, tuple(follows), settings.follows)


def _plan_id(node: Node) -> str:
    return f"{BROKEN_PREFIX}{node.id}" if node.problem else node.id


def _sensors(graph: Graph, node: Node) -> Iterator[TaskPlan]:
    rules = node.settings.external
    for table in graph.external(node) if rules.sensor else ():
        if rules.sensor and not matches(table, rules.assets, node.settings.default_schema):
            arguments = fill(rules.sensor.arguments, {"table": table})
            settings = node.settings
            yield TaskPlan(
                f"wait_for_{re.sub(r'[^A-Za-z0-9_.-]', '_', table)}"[:250],
                node.path,
                rules.sensor.operator,
                arguments,
                owner=settings.owner,
                retries=settings.retries,
                retry_delay=settings.retry_delay,
            )


def _task(node: Node, upstream: Iterable[str]) -> TaskPlan:
    settings, source = node.settings, node.source
    if source is None or node.problem:
        return TaskPlan(_plan_id(node), node.path, "", outlets=node.writes, broken=node.problem)
    resources = _value(node, "resources")
    operator, arguments, image = _call(node, source)
    return TaskPlan(
        node.id,
        node.path,
        operator,
        arguments,
        owner=_value(node, "owner"),
        retries=_value(node, "retries"),
        retry_delay=settings.retry_delay,
        pool=_value(node, "pool"),
        queue=_value(node, "queue"),
        image=image,
        resources=resources.quantities() if resources else {},
        upstream=tuple(upstream),
        outlets=(*node.writes, *node.appends),
    )


def _call(node: Node, source: Source) -> tuple[str, dict[str, Json], str | None]:
    """Return operator, arguments, and the image of the worker where that is the task's."""
    run = node.settings.run
    image = source.task.image or run.image
    names = {
        "task.id": node.id,
        # An operator takes a text that ends in .sql or .sh for a file's name; one that ends a line never does.
        "task.query": source.sql.rstrip() + "\n",
        "task.query_path": source.query_path,
        "task.table": node.writes[0],
        "task.connection": node.settings.connection or "",
        "task.image": image or "",
        "task.folder": node.folder,
    }
    if run.operator:
        return run.operator, fill(run.arguments or {}, names), source.task.image
    pod = {"image": fill(image, names), "cmds": run.command, "arguments": run.arguments, "env_vars": run.env}
    return POD_OPERATOR, {key: fill(value, names) for key, value in pod.items() if value}, None
