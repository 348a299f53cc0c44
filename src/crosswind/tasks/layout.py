"""Where tasks stand in a picture: one panel for each folder, columns in the order of work, and lanes for long edges.

An edge that passes a column takes a lane of its own between the boxes there, one for all edges of the same source, so
that no edge runs behind a box as if the box were part of a chain. What comes from another folder stands at the left of
the panel, by the table's name, so that no edge leaves its panel. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from crosswind.tasks.graph import Graph, Node

__all__ = ["Panel", "Slot", "around", "panels"]

_SWEEPS = 4


@dataclass(slots=True)
class Slot:
    """A place in a column: a task, a table that comes from elsewhere, or a lane, by which an edge passes."""

    key: str
    label: str = ""
    column: int = 0
    task: Node | None = None
    maker: str = ""
    """Of a table from another folder: the task that makes it."""
    is_lane: bool = False
    leads_to: tuple[str, ...] = ()
    """Of a lane: the tasks that its source's edges go to from here on."""


@dataclass(slots=True)
class Panel:
    """The tasks of one folder. ``edges`` join slots of neighbouring columns, with the tables that each stands for."""

    folder: str
    columns: list[list[Slot]] = field(default_factory=list)
    edges: list[tuple[Slot, Slot, str]] = field(default_factory=list)

    @property
    def tasks(self) -> int:
        """How many tasks it shows."""
        return sum(slot.task is not None for column in self.columns for slot in column)


def panels(graph: Graph) -> list[Panel]:
    """Return a panel for each folder that has tasks, by name."""
    folders: dict[str, list[Node]] = {}
    for node in graph.nodes.values():
        folders.setdefault(node.folder, []).append(node)
    return [_panel(graph, folder, nodes) for folder, nodes in sorted(folders.items())]


def around(graph: Graph, task: str) -> Graph:
    """Return the part of a graph that is a task, all that comes before it, and all that comes after it."""
    before = {node.id: {by for _, by in graph.inputs(node)} for node in graph.nodes.values()}
    after: dict[str, set[str]] = {name: set() for name in before}
    for name, others in before.items():
        for other in others:
            after[other].add(name)
    kept = _reached(task, before) | _reached(task, after)
    return Graph(
        {name: node for name, node in graph.nodes.items() if name in kept},
        {table: by for table, by in graph.producers.items() if by in kept},
        {table: [by for by in tasks if by in kept] for table, tasks in graph.appenders.items()},
    )


def _reached(begin: str, following: Mapping[str, Iterable[str]]) -> set[str]:
    found, todo = {begin}, [begin]
    while todo:
        new = set(following[todo.pop()]) - found
        found |= new
        todo += new
    return found


def _panel(graph: Graph, folder: str, nodes: list[Node]) -> Panel:
    slots = {node.id: Slot(node.id, node.id, task=node) for node in nodes}
    sources: dict[str, dict[str, list[str]]] = {}
    """Key of a source, then of each of its targets, with the tables between."""
    for node in nodes:
        for table, by in graph.inputs(node):
            key = by
            if by not in slots or slots[by].task is None:
                key = f"/{by}/{table}"
                slots.setdefault(key, Slot(key, table, maker=by))
            sources.setdefault(key, {}).setdefault(node.id, []).append(table)
        for table in graph.external(node):
            key = f"/{table}"
            slots.setdefault(key, Slot(key, table))
            sources.setdefault(key, {}).setdefault(node.id, []).append(table)
    _number_columns(slots, sources)
    panel = Panel(folder)
    panel.columns = [[] for _ in range(1 + max((slot.column for slot in slots.values()), default=-1))]
    for slot in sorted(slots.values(), key=lambda slot: slot.key):
        panel.columns[slot.column].append(slot)
    for key, targets in sorted(sources.items()):
        _join(panel, slots[key], [(slots[name], ", ".join(tables)) for name, tables in sorted(targets.items())])
    _order(panel)
    return panel


def _number_columns(slots: Mapping[str, Slot], sources: Mapping[str, Mapping[str, object]]) -> None:
    """Put each task right of all that it waits for, and each table from elsewhere left of its first reader."""
    waits: dict[str, set[str]] = {key: set() for key, slot in slots.items() if slot.task is not None}
    for source, targets in sources.items():
        for target in targets:
            if source in waits:
                waits[target].add(source)
    depths: dict[str, int] = {}
    while waits:
        ready = [key for key, before in waits.items() if before <= depths.keys()]
        for key in ready or [min(waits)]:  # there are no loops any more; if there were, the picture would still end
            depths[key] = 1 + max((depths.get(by, 0) for by in waits.pop(key)), default=0)
    outside = any(slot.task is None for slot in slots.values())
    for key, slot in slots.items():
        reader = min((depths[target] for target in sources.get(key, ())), default=1)
        slot.column = (depths[key] if slot.task is not None else reader - 1) - (not outside)


def _join(panel: Panel, source: Slot, targets: list[tuple[Slot, str]]) -> None:
    """Add the edges of a source, and its lane through the columns that they pass."""
    behind = {source.column: source}
    for column in range(source.column + 1, max(target.column for target, _ in targets)):
        further = tuple(target.key for target, _ in targets if target.column > column)
        lane = Slot(f"{source.key}|{column}", column=column, is_lane=True, leads_to=further)
        panel.columns[column].append(lane)
        panel.edges.append((behind[column - 1], lane, ""))
        behind[column] = lane
    for target, tables in targets:
        panel.edges.append((behind[target.column - 1], target, tables))


def _order(panel: Panel) -> None:
    """Order each column so that few edges cross: by the middle of what its slots are joined with, to and fro."""
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for source, target, _ in panel.edges:
        before.setdefault(target.key, []).append(source.key)
        after.setdefault(source.key, []).append(target.key)
    for sweep in range(_SWEEPS):
        near = before if sweep % 2 == 0 else after
        columns = panel.columns[1:] if sweep % 2 == 0 else panel.columns[-2::-1]
        places = {slot.key: place for column in panel.columns for place, slot in enumerate(column)}
        for column in columns:
            column.sort(key=lambda slot: (_middle(slot.key, near, places), slot.key))
            places |= {slot.key: place for place, slot in enumerate(column)}


def _middle(key: str, near: Mapping[str, list[str]], places: Mapping[str, int]) -> float:
    found = [places[other] for other in near.get(key, ())]
    return sum(found) / len(found) if found else float(places[key])
