"""Draws the tables and tasks of a folder as SVG, or as one HTML page with collapsible folders and a search. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from crosswind.tasks.graph import Graph
from crosswind.tasks.layout import Panel, Slot, panels

__all__ = ["Drawing", "as_html", "as_svg", "draw_panel"]

_HEIGHT, _GAP, _LANE, _BETWEEN, _LETTER, _PADDING, _TITLE = 24, 10, 8, 64, 7.2, 20, 30
"""In pixels: height of a box, gap below it, height of a lane, gap between columns, width of a letter, padding of a box,
height of a title."""

_MAX_OPEN_TASKS = 150
"""The page shows folders open up to this number of tasks."""


@dataclass(frozen=True, slots=True)
class Box:
    """Left edge, vertical middle and width of a slot; a lane is as wide as its column."""

    left: float
    middle: float
    width: float


@dataclass(frozen=True, slots=True)
class Drawing:
    """The shapes of a panel as SVG, its size, and the boxes of its slots."""

    shapes: list[str]
    width: float
    height: float
    boxes: Mapping[str, Box]


def as_svg(graph: Graph) -> str:
    """Return a picture with the folders below each other, in each the tasks from left to right in the order of work."""
    top, width, parts = 0.0, 200.0, list[str]()
    for panel in panels(graph):
        drawing = draw_panel(panel)
        title = f'<text x="10" y="20" font-weight="bold">{escape(_title(panel))}</text>'
        parts.append(f'<g transform="translate(0 {top:.0f})">{title}<g transform="translate(0 {_TITLE})">')
        parts += [*drawing.shapes, "</g></g>"]
        top += drawing.height + _TITLE
        width = max(width, drawing.width)
    back = '<rect width="100%" height="100%" fill="white"/>'
    size = f'width="{width:.0f}" height="{max(top, _TITLE):.0f}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return "\n".join([head, _ARROW, back, *parts, "</svg>"]) + "\n"


_ARROW = (
    '<defs><marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0L8 4L0 8z" fill="#777"/></marker></defs>'
)


def _title(panel: Panel) -> str:
    return f"{panel.folder or '.'} ({_counted(panel.tasks, 'task')})"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def draw_panel(panel: Panel) -> Drawing:
    """Draw the panel of one folder."""
    boxes = _boxes(panel)
    edges = [_edge(boxes, source, target, tables) for source, target, tables in panel.edges]
    lanes = [_lane(boxes[slot.key], slot) for column in panel.columns for slot in column if slot.is_lane]
    tasks = [_box(boxes[slot.key], slot) for column in panel.columns for slot in column if not slot.is_lane]
    width = max((box.left + box.width for box in boxes.values()), default=0.0) + 20
    height = max((box.middle for box in boxes.values()), default=0.0) + _HEIGHT
    return Drawing([*edges, *lanes, *tasks], width, height, boxes)


def _boxes(panel: Panel) -> dict[str, Box]:
    """Place each column right of the previous one, and each slot near its predecessors without an overlap."""
    before: dict[str, list[str]] = {}
    for source, target, _ in panel.edges:
        before.setdefault(target.key, []).append(source.key)
    boxes: dict[str, Box] = {}
    left = 10.0
    for column in panel.columns:
        width = max((_width(slot) for slot in column if not slot.is_lane), default=40.0)
        bottom = 0.0
        for slot in column:
            half = _slot_height(slot) / 2
            middle = max(bottom + half, _mean_middle(boxes, before.get(slot.key, ())))
            boxes[slot.key] = Box(left, middle, width if slot.is_lane else _width(slot))
            bottom = middle + half
        _shift_up(boxes, column, before)
        left += width + _BETWEEN
    return boxes


def _width(slot: Slot) -> float:
    return len(slot.label) * _LETTER + _PADDING


def _slot_height(slot: Slot) -> float:
    return _LANE if slot.is_lane else _HEIGHT + _GAP


def _mean_middle(boxes: Mapping[str, Box], keys: Collection[str]) -> float:
    return sum(boxes[key].middle for key in keys) / len(keys) if keys else 0.0


def _shift_up(boxes: dict[str, Box], column: list[Slot], before: Mapping[str, list[str]]) -> None:
    """Move a whole column up by the mean distance of its slots below their predecessors, at most to the top."""
    distances = [
        _mean_middle(boxes, before[slot.key]) - boxes[slot.key].middle for slot in column if slot.key in before
    ]
    if not distances:
        return
    top = boxes[column[0].key].middle - _slot_height(column[0]) / 2
    shift = max(-top, min(0.0, sum(distances) / len(distances)))
    for slot in column:
        box = boxes[slot.key]
        boxes[slot.key] = Box(box.left, box.middle + shift, box.width)


def _edge(boxes: Mapping[str, Box], source: Slot, target: Slot, tables: str) -> str:
    """Return a line from a box's right side to the end of its column, then a curve to the next column.

    The curve begins behind the column, where there are no boxes.
    """
    box, target_box = boxes[source.key], boxes[target.key]
    start, turn, end = box.left + box.width, target_box.left - _BETWEEN, target_box.left
    bend, y, target_y = (end - turn) / 2, box.middle, target_box.middle
    path = f"M{start:.0f} {y:.0f}L{turn:.0f} {y:.0f}"
    path += f"C{turn + bend:.0f} {y:.0f} {end - bend:.0f} {target_y:.0f} {end:.0f} {target_y:.0f}"
    arrow = "" if target.is_lane else ' marker-end="url(#a)"'
    title = f"<title>{escape(tables)}</title>" if tables else ""
    return f'<path class="e" {_ends(source, target)} d="{path}" fill="none" stroke="#777"{arrow}>{title}</path>'


def _lane(box: Box, slot: Slot) -> str:
    line = f"M{box.left:.0f} {box.middle:.0f}L{box.left + box.width:.0f} {box.middle:.0f}"
    return f'<path class="e" {_ends(slot, slot)} d="{line}" fill="none" stroke="#777"/>'


def _ends(source: Slot, target: Slot) -> str:
    """Return the attributes of an edge for the page's script: its source, and the tasks that it leads to."""
    to = target.leads_to if target.is_lane else (target.key,)
    return f'data-from="{escape(source.key.partition("|")[0])}" data-to="{escape(json.dumps(to))}"'


def _box(box: Box, slot: Slot) -> str:
    outside = slot.task is None
    fill = "#eee" if outside else "#fdd" if slot.task and slot.task.problem else "#def"
    top = box.middle - _HEIGHT / 2
    corner = f'rx="{_HEIGHT // 2 if outside else 3}"'
    shape = f'x="{box.left:.0f}" y="{top:.0f}" width="{box.width:.0f}" height="{_HEIGHT}" {corner}'
    text = f'<text x="{box.left + _PADDING / 2:.0f}" y="{box.middle + 4:.0f}">{escape(slot.label)}</text>'
    name = escape(slot.key, quote=True)
    body = f'<rect {shape} fill="{fill}" stroke="#777"/>'
    return f'<g class="b" data-name="{name}"><title>{escape(_tooltip(slot))}</title>{body}{text}</g>'


def _tooltip(slot: Slot) -> str:
    if slot.task is None:
        return f"made by {slot.maker}" if slot.maker else "from outside"
    node = slot.task
    lines = [node.path, *([f"BROKEN: {node.problem}"] if node.problem else [])]
    lines += [f"reads {table}" for table in node.reads] + [f"makes {table}" for table in node.writes]
    return "\n".join([*lines, *(f"appends {table}" for table in node.appends)])


def as_html(graph: Graph) -> str:
    """Return one self-contained page: folders, a search, and the tasks before and after a selected one."""
    all_panels = panels(graph)
    broken = sum(bool(node.problem) for node in graph.nodes.values())
    parts = {
        "COUNT": f"{_counted(len(graph.nodes), 'task')}, {_counted(len(all_panels), 'folder')}"
        + (f", {broken} broken" if broken else ""),
        "PANELS": "\n".join(_panels(all_panels)),
        "BEFORE": _json({node.id: sorted({other for _, other in graph.inputs(node)}) for node in graph.nodes.values()}),
    }
    page = files("crosswind.tasks").joinpath("page.html").read_text(encoding="utf-8")
    return re.sub("|".join(parts), lambda part: parts[part[0]], page)


def _panels(all_panels: list[Panel]) -> Iterator[str]:
    shown = 0
    for panel in all_panels:
        shown += panel.tasks
        drawing = draw_panel(panel)
        size = f'width="{drawing.width:.0f}" height="{drawing.height:.0f}"'
        is_open = " open" if shown <= _MAX_OPEN_TASKS or len(all_panels) == 1 else ""
        yield f"<details{is_open}><summary>{escape(_title(panel))}</summary><div>"
        yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">{_ARROW}'
        yield from drawing.shapes
        yield "</svg></div></details>"


def _json(value: object) -> str:
    return json.dumps(value).replace("<", "\\u003c")
