"""Draws the tables and tasks of a folder with box-drawing characters. Pure.

Columns use even and odd lines alternately, so that the edges of a box are never on the line of a box beside it, and the
edges of each source have a vertical track of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.tasks.graph import Graph
from crosswind.tasks.layout import Panel, Slot, panels

__all__ = ["as_drawing"]

_UP, _RIGHT, _DOWN, _LEFT = 1, 2, 4, 8
_SIGNS = " ╵╶└╷│┌├╴┘─┴┐┤┬┼"
"""The character for each combination of directions."""


def as_drawing(graph: Graph) -> str:
    """Return a drawing of each folder: tasks in square brackets, tables from outside in round ones."""
    return "\n\n".join("\n".join(_draw(panel)) for panel in panels(graph))


class _Canvas:
    """Texts, and lines, which are kept as the directions in which each place is joined."""

    def __init__(self) -> None:
        self.joints: dict[tuple[int, int], int] = {}
        self.signs: dict[tuple[int, int], str] = {}

    def across(self, line: int, begin: int, end: int) -> None:
        for x in range(begin, end + 1):
            self.join(line, x, (_LEFT if x > begin else 0) | (_RIGHT if x < end else 0))

    def down(self, x: int, begin: int, end: int) -> None:
        for line in range(begin, end + 1):
            self.join(line, x, (_UP if line > begin else 0) | (_DOWN if line < end else 0))

    def join(self, line: int, x: int, directions: int) -> None:
        self.joints[line, x] = self.joints.get((line, x), 0) | directions

    def write(self, line: int, x: int, text: str) -> None:
        self.signs |= {(line, x + place): sign for place, sign in enumerate(text)}

    def lines(self) -> Iterator[str]:
        signs_by_line: dict[int, dict[int, str]] = {}
        for (line, x), sign in ({place: _SIGNS[joined] for place, joined in self.joints.items()} | self.signs).items():
            signs_by_line.setdefault(line, {})[x] = sign
        for line in range(1 + max(signs_by_line, default=-1)):
            signs = signs_by_line.get(line, {})
            yield "".join(signs.get(x, " ") for x in range(1 + max(signs, default=-1))).rstrip()


def _draw(panel: Panel) -> Iterator[str]:
    yield f"{panel.folder or '.'} ({panel.tasks} task{'s' * (panel.tasks != 1)})"
    canvas = _Canvas()
    rights: dict[str, tuple[int, int]] = {}
    """Line and right edge of each slot, in the units of characters."""
    edges_into: dict[int, list[tuple[Slot, Slot]]] = {}
    for source, target, _ in panel.edges:
        edges_into.setdefault(target.column, []).append((source, target))
    left = 0
    for number, column in enumerate(panel.columns):
        width = _width(column)
        for row, slot in enumerate(column):
            line = 2 * row + number % 2
            rights[slot.key] = (line, left + width)
            if slot.is_lane:
                canvas.across(line, left, left + width)
            else:
                canvas.write(line, left, _text(slot))
        if number:
            _connect(canvas, _width(panel.columns[number - 1]), edges_into.get(number, []), rights, left)
        tracks = len({source.key for source, _ in edges_into.get(number + 1, [])})
        left += width + tracks + 3
    yield from canvas.lines()


def _width(column: list[Slot]) -> int:
    return max((len(_text(slot)) for slot in column), default=0)


def _connect(
    canvas: _Canvas, width: int, edges: list[tuple[Slot, Slot]], rights: dict[str, tuple[int, int]], left: int
) -> None:
    """Draw the edges from a column of that width into the next, which begins at ``left``.

    Each source has a track in the gap between the columns.
    """
    sources = {source.key: source for source, _ in edges}
    targets: dict[str, list[Slot]] = {}
    for source, target in edges:
        targets.setdefault(source.key, []).append(target)
    for track, key in enumerate(sorted(sources, key=lambda key: rights[key])):
        line, right = rights[key]
        x = right + 1 + track
        start = right if sources[key].is_lane else right - (width - len(_text(sources[key])))
        canvas.across(line, start, x)
        canvas.join(line, start, _LEFT)
        ends = [rights[slot.key][0] for slot in targets[key]]
        canvas.down(x, min(line, *ends), max(line, *ends))
        for slot, end in zip(targets[key], ends, strict=True):
            canvas.across(end, x, left - (0 if slot.is_lane else 1))
            if not slot.is_lane:
                canvas.signs[end, left - 1] = "▶"


def _text(slot: Slot) -> str:
    if slot.is_lane:
        return ""
    if slot.task is None:
        return f"({slot.label})"
    return f"[{slot.label}]{' BROKEN' if slot.task.problem else ''}"
