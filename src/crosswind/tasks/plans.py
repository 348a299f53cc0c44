"""Plans the DAGs of task files as plain values, from which Airflow's objects or Python files are built. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from crosswind.tasks.asset_names import asset_problem
from crosswind.tasks.folder_reader import SETTINGS_FILE, TaskSource
from crosswind.tasks.graph import Graph, TaskNode, find_loops, matches
from crosswind.tasks.grouping import Group, group_tasks, ids_of, name_groups, value_of
from crosswind.tasks.model import POD_OPERATOR, FolderSettings
from crosswind.tasks.operator_calls import operator_call
from crosswind.tasks.placeholders import fill
from crosswind.tasks.plain_names import plain_name
from crosswind.tasks.problems import TaskFileProblem
from crosswind.types import Json

__all__ = ["BROKEN_PREFIX", "DagPlan", "TaskPlan", "plan_dags", "plan_one", "unmade_asset"]

BROKEN_PREFIX = "broken__"
"""Prefix of the id of a task whose file is broken. The task fails, so that no task after it works on old data."""

_DEFAULT_OWNER = "airflow"
"""Airflow's own, which a broken task has."""
_MAX_OWNERS = 2000
"""Characters of Airflow's column ``dag.owners``."""


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """One task: an operator's import path and arguments, as plain values. ``retry_delay`` in seconds."""

    task_id: str
    path: str
    operator: str
    arguments: Mapping[str, Json] = field(default_factory=dict)
    owner: str = _DEFAULT_OWNER
    retries: int = 0
    retry_delay: int = 300
    pool: str | None = None
    queue: str | None = None
    image: str | None = None
    """Image of the worker's base container; the image of a pod operator is among its arguments."""
    resources: Mapping[str, str] = field(default_factory=dict)
    upstream: tuple[str, ...] = ()
    outlets: tuple[str, ...] = ()
    broken: str = ""
    """Why the task fails at once; "" if it does not."""


@dataclass(frozen=True, slots=True)
class DagPlan:
    """One DAG. ``follows`` determines whether it runs after ``assets``, by ``schedule``, or both."""

    dag_id: str
    folder: str
    settings: FolderSettings
    schedule: str | None
    tasks: tuple[TaskPlan, ...]
    assets: tuple[str, ...] = ()
    follows: str = "assets"


def plan_dags(
    graph: Graph, root_name: str, root_settings: FolderSettings
) -> tuple[list[DagPlan], list[TaskFileProblem]]:
    """Return the DAGs, by id, and the problems between them. ``root_name``: the root folder's name, for their ids."""
    groups, problems = name_groups(group_tasks(graph), root_name, root_settings)
    dag_of = {node.id: dag_id for dag_id, group in groups.items() for node in group.nodes}
    followed = {
        dag_id: _followed_tables(graph, group, dag_of, dag_id)
        for dag_id, group in groups.items()
        if not group.own_schedule and group.settings_of_dag(root_settings).follows != "schedule"
    }
    before = {dag_id: _producing_dags(graph, tables, dag_of) - {dag_id} for dag_id, tables in followed.items()}
    for loop in find_loops(before):
        problems.append(_dag_loop(loop, groups, followed, graph, dag_of))
        followed |= {dag_id: [] for dag_id in loop}
    plans = []
    for dag_id, group in sorted(groups.items()):
        settings = group.settings_of_dag(root_settings)
        plan, warnings = _bound_owners(_dag(dag_id, group, settings, graph, dag_of, followed.get(dag_id, [])))
        plans.append(plan)
        problems += warnings
    return plans, problems


def _producing_dags(graph: Graph, tables: Iterable[str], dag_of: Mapping[str, str]) -> set[str]:
    """Return the DAGs that update the assets of the tables, also by appending to a table that another one makes."""
    makers = {task for table in tables for task in (*graph.makers(table), *graph.appenders.get(table, ()))}
    return {dag_of[task] for task in makers}


def plan_one(source: TaskSource, dag_id: str, root_name: str) -> DagPlan | None:
    """Return a DAG of one task, which is all that a worker needs, planned without the other files.

    None if the task is not in that DAG: another folder of task files may have a task with the same id.
    """
    settings = source.settings
    node = TaskNode(
        source.task.id, source.path, source.folder, settings, {}, source.writes, source, appends=source.appends
    )
    schedule = value_of(node, "schedule")
    group = Group(node.folder, schedule, schedule != settings.schedule, [node])
    known = settings.group == "folder" and "${first}" not in settings.dag_id
    if known and dag_id not in ids_of(group, settings, root_name):
        return None
    return DagPlan(dag_id, source.folder, settings, None, (_task(node, ()),))


def _followed_tables(graph: Graph, group: Group, dag_of: Mapping[str, str], dag_id: str) -> list[str]:
    """Return the tables of other DAGs after which this one runs."""
    tables = {table for node in group.nodes for table, producer in graph.inputs(node) if dag_of[producer] != dag_id}
    # A DAG that appends to a table also updates its asset, and so would trigger itself for ever.
    tables -= {table for node in group.nodes for table in node.appends}
    for node in group.nodes:
        patterns = node.settings.external.assets
        if patterns:
            schema = node.settings.default_schema
            tables |= {table for table in graph.external(node) if matches(table, patterns, schema)}
    return sorted(unmade_asset(table) if asset_problem(table) else table for table in tables)


def unmade_asset(table: str) -> str:
    """Return an asset that no task makes, to follow in place of one that Airflow refuses.

    The task that makes the table is broken. A DAG that follows nothing would run on old data.
    """
    return f"{BROKEN_PREFIX}{plain_name(table, 230)}"


def _dag_loop(
    loop: list[str],
    groups: Mapping[str, Group],
    followed: Mapping[str, list[str]],
    graph: Graph,
    dag_of: Mapping[str, str],
) -> TaskFileProblem:
    first = min(loop)
    turn = loop.index(first)
    names = [*loop[turn:], *loop[:turn], first]
    in_loop = [table for dag_id in loop for table in followed[dag_id]]
    tables = sorted(table for table in in_loop if not _producing_dags(graph, [table], dag_of).isdisjoint(loop))
    message = (
        f"the DAGs wait for each other: {' → '.join(names)}, by the tables {', '.join(tables)}; "
        "write group: connected, or follows: schedule in one of them. Until then they run by their schedules"
    )
    folder = groups[first].folder
    return TaskFileProblem(f"{folder}/{SETTINGS_FILE}" if folder else SETTINGS_FILE, 0, message)


def _dag(
    dag_id: str, group: Group, settings: FolderSettings, graph: Graph, dag_of: Mapping[str, str], assets: list[str]
) -> DagPlan:
    tasks, sensors = [], dict[str, TaskPlan]()
    for node in group.nodes:
        before = {_plan_id(graph.nodes[other]) for _, other in graph.inputs(node) if dag_of[other] == dag_id}
        for sensor in _sensors(graph, node):
            sensors.setdefault(sensor.task_id, sensor)
            before.add(sensor.task_id)
        tasks.append(_task(node, sorted(before)))
    ordered = tuple(sorted([*tasks, *sensors.values()], key=lambda task: task.task_id))
    return DagPlan(dag_id, group.folder, settings, group.schedule, ordered, tuple(assets), settings.follows)


def _bound_owners(plan: DagPlan) -> tuple[DagPlan, list[TaskFileProblem]]:
    """Return the DAG with as many of its tasks' owners as Airflow can store, and a warning if it has more.

    Airflow joins the owners of a DAG in one column. PostgreSQL and MySQL refuse a longer text, and with it all DAGs
    that are stored at the same time.
    """
    owner = plan.settings.owner
    owners = {owner, _DEFAULT_OWNER}
    tasks, replaced = [], []
    for task in plan.tasks:
        if task.owner in owners or len(", ".join({*owners, task.owner})) <= _MAX_OWNERS:
            owners.add(task.owner)
            tasks.append(task)
        else:
            tasks.append(replace(task, owner=owner))
            replaced.append(task)
    if not replaced:
        return plan, []
    message = (
        f"the owners of DAG {plan.dag_id} have more than {_MAX_OWNERS} characters, which Airflow cannot store; "
        f"{len(replaced)} tasks, of which this is the first, have the owner {owner} instead. Name teams as owners"
    )
    return replace(plan, tasks=tuple(tasks)), [TaskFileProblem(replaced[0].path, 0, message, fatal=False)]


def _plan_id(node: TaskNode) -> str:
    return f"{BROKEN_PREFIX}{node.id}" if node.problem else node.id


def _sensors(graph: Graph, node: TaskNode) -> Iterator[TaskPlan]:
    rules = node.settings.external
    for table in graph.external(node) if rules.sensor else ():
        if rules.sensor and not matches(table, rules.assets, node.settings.default_schema):
            arguments = fill(rules.sensor.arguments, {"table": table})
            settings = node.settings
            yield TaskPlan(
                f"wait_for_{plain_name(table, 230)}",
                node.path,
                rules.sensor.operator,
                arguments,
                owner=settings.owner,
                retries=settings.retries,
                retry_delay=settings.retry_delay,
            )


def _task(node: TaskNode, upstream: Iterable[str]) -> TaskPlan:
    settings, source = node.settings, node.source
    if source is None or node.problem:
        return TaskPlan(_plan_id(node), node.path, "", outlets=_outlets(node), broken=node.problem)
    resources = value_of(node, "resources")
    operator, arguments, image = operator_call(source)
    own = {"pool": value_of(node, "pool"), "queue": value_of(node, "queue")}
    own["container_resources"] = resources if operator == POD_OPERATOR else None
    # What the task's file or its folder sets counts, and not the same argument in run.arguments.
    arguments = {name: value for name, value in arguments.items() if not own.get(name)}
    return TaskPlan(
        node.id,
        node.path,
        operator,
        arguments,
        owner=value_of(node, "owner"),
        retries=value_of(node, "retries"),
        retry_delay=settings.retry_delay,
        pool=own["pool"],
        queue=own["queue"],
        image=image,
        resources=resources.quantities() if resources else {},
        upstream=tuple(upstream),
        outlets=(*node.writes, *node.appends),
    )


def _outlets(node: TaskNode) -> tuple[str, ...]:
    """Return the tables of a broken task; Airflow may refuse one of them."""
    return tuple(table for table in node.writes if not asset_problem(table))
