"""The layout of a picture of tasks: one panel for each folder, columns in the order of work, and lanes for long edges.

An edge that passes a column has a lane between the boxes there, one for all edges of the same source, so that no edge
runs behind a box as if the box were part of a chain. Tables from other folders stand at the left of the panel, so that
no edge leaves its panel. Pure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from crosswind.tasks.graph import Graph, TaskNode, depths

__all__ = ["Panel", "Slot", "around", "panels"]

_SWEEPS = 4
"""Passes of ``_order``; further ones hardly reduce the crossings."""

_Sources = Mapping[str, Mapping[str, list[str]]]
"""Key of a slot, then of each slot that its edges lead to, with the tables between the two."""


@dataclass(slots=True)
class Slot:
    """A position in a column: a task, a table from outside the panel, or a lane, through which an edge passes."""

    key: str
    label: str = ""
    column: int = 0
    task: TaskNode | None = None
    maker: str = ""
    """For a table from another folder: the task that produces it."""
    is_lane: bool = False
    leads_to: tuple[str, ...] = ()
    """For a lane: the tasks to the right of it that its source's edges lead to."""


@dataclass(slots=True)
class Panel:
    """The tasks of one folder. ``edges`` join slots of neighbouring columns, with the tables that each represents."""

    folder: str
    columns: list[list[Slot]] = field(default_factory=list)
    edges: list[tuple[Slot, Slot, str]] = field(default_factory=list)

    @property
    def tasks(self) -> int:
        """The number of its tasks."""
        return sum(slot.task is not None for column in self.columns for slot in column)


def panels(graph: Graph) -> list[Panel]:
    """Return a panel for each folder that has tasks, by name."""
    folders: dict[str, list[TaskNode]] = {}
    for node in graph.nodes.values():
        folders.setdefault(node.folder, []).append(node)
    return [_panel(graph, folder, nodes) for folder, nodes in sorted(folders.items())]


def around(graph: Graph, task: str) -> Graph:
    """Return the part of a graph that has a task, all tasks before it, and all tasks after it."""
    before = {node.id: {other for _, other in graph.inputs(node)} for node in graph.nodes.values()}
    after: dict[str, set[str]] = {name: set() for name in before}
    for name, others in before.items():
        for other in others:
            after[other].add(name)
    return _part(graph, _reachable(task, before) | _reachable(task, after))


def _part(graph: Graph, names: set[str]) -> Graph:
    return Graph(
        {name: node for name, node in graph.nodes.items() if name in names},
        {table: producer for table, producer in graph.producers.items() if producer in names},
        {table: [task for task in tasks if task in names] for table, tasks in graph.appenders.items()},
    )


def _reachable(start: str, neighbours: Mapping[str, Iterable[str]]) -> set[str]:
    reached, todo = {start}, [start]
    while todo:
        new = set(neighbours[todo.pop()]) - reached
        reached |= new
        todo += new
    return reached


def _panel(graph: Graph, folder: str, nodes: list[TaskNode]) -> Panel:
    slots, sources = _slots(graph, nodes)
    _number_columns(slots, sources)
    panel = Panel(folder)
    panel.columns = [[] for _ in range(1 + max((slot.column for slot in slots.values()), default=-1))]
    for slot in sorted(slots.values(), key=lambda slot: slot.key):
        panel.columns[slot.column].append(slot)
    for key, targets in sorted(sources.items()):
        _join(panel, slots[key], [(slots[name], ", ".join(tables)) for name, tables in sorted(targets.items())])
    _order(panel)
    return panel


def _slots(graph: Graph, nodes: list[TaskNode]) -> tuple[dict[str, Slot], _Sources]:
    """Return the slots of tasks and of tables from outside the panel by key, and the edges between them."""
    slots = {node.id: Slot(node.id, node.id, task=node) for node in nodes}
    own_tasks = {*slots}
    sources: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for node in nodes:
        for table, producer in graph.inputs(node):
            key = producer if producer in own_tasks else f"/{producer}/{table}"
            slots.setdefault(key, Slot(key, table, maker=producer))
            sources[key][node.id].append(table)
        for table in graph.external(node):
            key = f"/{table}"
            slots.setdefault(key, Slot(key, table))
            sources[key][node.id].append(table)
    return slots, sources


def _number_columns(slots: Mapping[str, Slot], sources: _Sources) -> None:
    """Place each task right of the tasks that it waits for, and each table from outside left of its first reader."""
    before: dict[str, list[str]] = {key: [] for key, slot in slots.items() if slot.task is not None}
    for source, targets in sources.items():
        for target in targets if source in before else ():
            before[target].append(source)
    depth_of = depths(before)
    first_column = int(len(before) < len(slots))  # of tasks: tables from outside stand left of them
    for key, slot in slots.items():
        if key in depth_of:
            slot.column = depth_of[key] + first_column
        else:
            slot.column = min((depth_of[target] for target in sources.get(key, ())), default=0)


def _join(panel: Panel, source: Slot, targets: list[tuple[Slot, str]]) -> None:
    """Add the edges of a source, and its lane through the columns that they pass."""
    start_by_column = {source.column: source}
    for column in range(source.column + 1, max(target.column for target, _ in targets)):
        further = tuple(target.key for target, _ in targets if target.column > column)
        lane = Slot(f"{source.key}|{column}", column=column, is_lane=True, leads_to=further)
        panel.columns[column].append(lane)
        panel.edges.append((start_by_column[column - 1], lane, ""))
        start_by_column[column] = lane
    for target, tables in targets:
        panel.edges.append((start_by_column[target.column - 1], target, tables))


def _order(panel: Panel) -> None:
    """Order each column so that few edges cross: by the mean position of the slots' neighbours, in alternating sweeps.

    This is the barycentre heuristic of Sugiyama, Tagawa and Toda (1981).
    """
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for source, target, _ in panel.edges:
        before.setdefault(target.key, []).append(source.key)
        after.setdefault(source.key, []).append(target.key)
    for sweep in range(_SWEEPS):
        neighbours = before if sweep % 2 == 0 else after
        columns = panel.columns[1:] if sweep % 2 == 0 else panel.columns[-2::-1]
        places = {slot.key: place for column in panel.columns for place, slot in enumerate(column)}
        for column in columns:
            column.sort(key=lambda slot: (_mean_place(slot.key, neighbours, places), slot.key))
            places |= {slot.key: place for place, slot in enumerate(column)}


def _mean_place(key: str, neighbours: Mapping[str, list[str]], places: Mapping[str, int]) -> float:
    neighbour_places = [places[other] for other in neighbours.get(key, ())]
    return sum(neighbour_places) / len(neighbour_places) if neighbour_places else float(places[key])
