"""The tables and tasks of a folder as a picture (SVG) or as one page with folders to fold and a search (HTML). Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from crosswind.tasks.graph import Graph
from crosswind.tasks.layout import Panel, Slot, panels

__all__ = ["Drawn", "as_html", "as_svg", "draw_panel"]

_HEIGHT, _GAP, _LANE, _BETWEEN, _LETTER, _PADDING, _TITLE = 24, 10, 8, 64, 7.2, 20, 30
_OPEN_TASKS = 150
"""Folders of a page are unfolded until this many tasks are shown."""


@dataclass(frozen=True, slots=True)
class Box:
    """Left, middle height and width of a slot; a lane is as wide as its column."""

    left: float
    middle: float
    width: float


@dataclass(frozen=True, slots=True)
class Drawn:
    """A panel, drawn: its shapes as SVG, its size, and where its slots stand."""

    shapes: list[str]
    width: float
    height: float
    boxes: Mapping[str, Box]


def as_svg(graph: Graph) -> str:
    """A picture: the folders below each other, in each the tasks from left to right in the order of work."""
    top, width, parts = 0.0, 200.0, list[str]()
    for panel in panels(graph):
        drawn = draw_panel(panel)
        title = f'<text x="10" y="20" font-weight="bold">{escape(_title(panel))}</text>'
        parts.append(f'<g transform="translate(0 {top:.0f})">{title}<g transform="translate(0 {_TITLE})">')
        parts += [*drawn.shapes, "</g></g>"]
        top += drawn.height + _TITLE
        width = max(width, drawn.width)
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


def draw_panel(panel: Panel) -> Drawn:
    """Draw one folder."""
    boxes = _boxes(panel)
    edges = [_edge(boxes, source, target, tables) for source, target, tables in panel.edges]
    lanes = [_lane(boxes[slot.key], slot) for column in panel.columns for slot in column if slot.is_lane]
    tasks = [_box(boxes[slot.key], slot) for column in panel.columns for slot in column if not slot.is_lane]
    width = max((box.left + box.width for box in boxes.values()), default=0.0) + 20
    height = max((box.middle for box in boxes.values()), default=0.0) + _HEIGHT
    return Drawn([*edges, *lanes, *tasks], width, height, boxes)


def _boxes(panel: Panel) -> dict[str, Box]:
    """Place each column right of the one before, and each slot near to what it follows, never on another."""
    before: dict[str, list[str]] = {}
    for source, target, _ in panel.edges:
        before.setdefault(target.key, []).append(source.key)
    boxes: dict[str, Box] = {}
    left = 10.0
    for column in panel.columns:
        wide = max((len(slot.label) * _LETTER + _PADDING for slot in column if not slot.is_lane), default=40.0)
        bottom = 0.0
        for slot in column:
            half = (_LANE if slot.is_lane else _HEIGHT + _GAP) / 2
            near = [boxes[key].middle for key in before.get(slot.key, ())]
            middle = max(bottom + half, sum(near) / len(near) if near else 0.0)
            boxes[slot.key] = Box(left, middle, wide if slot.is_lane else len(slot.label) * _LETTER + _PADDING)
            bottom = middle + half
        _shift(boxes, column, before)
        for slot in column:  # edges leave at the column's right side, so that they turn where there are no boxes
            box = boxes[slot.key]
            boxes[slot.key] = Box(box.left, box.middle, wide if slot.is_lane else box.width)
        left += wide + _BETWEEN
    return boxes


def _shift(boxes: dict[str, Box], column: list[Slot], before: Mapping[str, list[str]]) -> None:
    """Move a whole column up, as far as its slots stand lower than what they follow."""
    wanted = [
        sum(boxes[key].middle for key in before[slot.key]) / len(before[slot.key]) - boxes[slot.key].middle
        for slot in column
        if slot.key in before
    ]
    if not wanted:
        return
    first = boxes[column[0].key].middle - (_LANE if column[0].is_lane else _HEIGHT + _GAP) / 2
    by = max(-first, min(0.0, sum(wanted) / len(wanted)))
    for slot in column:
        box = boxes[slot.key]
        boxes[slot.key] = Box(box.left, box.middle + by, box.width)


def _edge(boxes: Mapping[str, Box], source: Slot, target: Slot, tables: str) -> str:
    """A line from a box's right side to the end of its column, then a bend to the next column."""
    one, other = boxes[source.key], boxes[target.key]
    begin, turn, end = one.left + one.width, other.left - _BETWEEN, other.left
    bend = (end - turn) / 2
    path = f"M{begin:.0f} {one.middle:.0f}L{turn:.0f} {one.middle:.0f}"
    path += f"C{turn + bend:.0f} {one.middle:.0f} {end - bend:.0f} {other.middle:.0f} {end:.0f} {other.middle:.0f}"
    arrow = "" if target.is_lane else ' marker-end="url(#a)"'
    title = f"<title>{escape(tables)}</title>" if tables else ""
    return f'<path class="e" {_ends(source, target)} d="{path}" fill="none" stroke="#777"{arrow}>{title}</path>'


def _lane(box: Box, slot: Slot) -> str:
    line = f"M{box.left:.0f} {box.middle:.0f}L{box.left + box.width:.0f} {box.middle:.0f}"
    return f'<path class="e" {_ends(slot, slot)} d="{line}" fill="none" stroke="#777"/>'


def _ends(source: Slot, target: Slot) -> str:
    """Return which task's edge it is, and to which tasks it leads, for the page's script."""
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
    return f'<g class="b" data-name="{name}"><title>{escape(_told(slot))}</title>{body}{text}</g>'


def _told(slot: Slot) -> str:
    """Return what a box says when the mouse is over it."""
    if slot.task is None:
        return f"made by {slot.maker}" if slot.maker else "from outside"
    node = slot.task
    lines = [node.path, *([f"BROKEN: {node.problem}"] if node.problem else [])]
    lines += [f"reads {table}" for table in node.reads] + [f"makes {table}" for table in node.writes]
    return "\n".join([*lines, *(f"appends {table}" for table in node.appends)])


def as_html(graph: Graph) -> str:
    """One page without anything from elsewhere: folders to fold, a search, and what is before and after a task."""
    found = panels(graph)
    broken = sum(bool(node.problem) for node in graph.nodes.values())
    parts = {
        "COUNT": f"{_counted(len(graph.nodes), 'task')}, {_counted(len(found), 'folder')}"
        + (f", {broken} broken" if broken else ""),
        "PANELS": "\n".join(_panels(found)),
        "BEFORE": _json({node.id: sorted({by for _, by in graph.inputs(node)}) for node in graph.nodes.values()}),
    }
    page = files("crosswind.tasks").joinpath("page.html").read_text(encoding="utf-8")
    return re.sub("|".join(parts), lambda part: parts[part[0]], page)


def _panels(found: list[Panel]) -> Iterator[str]:
    shown = 0
    for panel in found:
        shown += panel.tasks
        drawn = draw_panel(panel)
        size = f'width="{drawn.width:.0f}" height="{drawn.height:.0f}"'
        unfolded = " open" if shown <= _OPEN_TASKS or len(found) == 1 else ""
        yield f"<details{unfolded}><summary>{escape(_title(panel))}</summary><div>"
        yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">{_ARROW}'
        yield from drawn.shapes
        yield "</svg></div></details>"


def _json(value: object) -> str:
    return json.dumps(value).replace("<", "\\u003c")
