"""The tables and tasks of a folder, drawn with the signs that a terminal has. Pure.

Columns stand on even and odd lines by turns, so that the line of a box's edges never meets that of a box beside it, and
the edges of each source go up and down in a track of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

from crosswind.tasks.graph import Graph
from crosswind.tasks.layout import Panel, Slot, panels

__all__ = ["as_drawing"]

_UP, _RIGHT, _DOWN, _LEFT = 1, 2, 4, 8
_SIGNS = " ╵╶└╷│┌├╴┘─┴┐┤┬┼"


def as_drawing(graph: Graph) -> str:
    """Return a drawing of each folder: tasks in brackets, tables from elsewhere in round ones."""
    return "\n\n".join("\n".join(_drawn(panel)) for panel in panels(graph))


class _Canvas:
    """Texts, and lines as the directions in which each place is joined."""

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
        held: dict[int, dict[int, str]] = {}
        for (line, x), sign in ({place: _SIGNS[joined] for place, joined in self.joints.items()} | self.signs).items():
            held.setdefault(line, {})[x] = sign
        for line in range(1 + max(held, default=-1)):
            signs = held.get(line, {})
            yield "".join(signs.get(x, " ") for x in range(1 + max(signs, default=-1))).rstrip()


def _drawn(panel: Panel) -> Iterator[str]:
    yield f"{panel.folder or '.'} ({panel.tasks} task{'s' * (panel.tasks != 1)})"
    canvas = _Canvas()
    at: dict[str, tuple[int, int]] = {}
    into: dict[int, list[tuple[Slot, Slot]]] = {}
    for source, target, _ in panel.edges:
        into.setdefault(target.column, []).append((source, target))
    left = 0
    for number, column in enumerate(panel.columns):
        wide = max((len(_text(slot)) for slot in column), default=0)
        for row, slot in enumerate(column):
            at[slot.key] = (2 * row + number % 2, left + wide)
            text = _text(slot)
            if slot.is_lane:
                canvas.across(at[slot.key][0], left, left + wide)
            else:
                canvas.write(at[slot.key][0], left, text)
        if number:
            _connect(canvas, panel, into.get(number, []), at, left)
        tracks = len({source.key for source, _ in into.get(number + 1, [])})
        left += wide + tracks + 3
    yield from canvas.lines()


def _connect(
    canvas: _Canvas, panel: Panel, edges: list[tuple[Slot, Slot]], at: dict[str, tuple[int, int]], left: int
) -> None:
    """Draw the edges into a column, which begins at ``left``: each source has a track in the gap before it."""
    targets: dict[str, list[Slot]] = {}
    widths: dict[str, int] = {}
    for source, target in edges:
        targets.setdefault(source.key, []).append(target)
        widths[source.key] = 0 if source.is_lane else len(_text(source))
    wide = max((len(_text(slot)) for slot in panel.columns[edges[0][0].column]), default=0) if edges else 0
    for track, key in enumerate(sorted(targets, key=lambda key: at[key])):
        line, right = at[key]
        x = right + 1 + track
        slots = targets[key]
        begin = right if not widths[key] else right - (wide - widths[key])
        canvas.across(line, begin, x)
        canvas.join(line, begin, _LEFT)
        ends = [at[slot.key][0] for slot in slots]
        canvas.down(x, min(line, *ends), max(line, *ends))
        for slot, end in zip(slots, ends, strict=True):
            canvas.across(end, x, left - (0 if slot.is_lane else 1))
            if not slot.is_lane:
                canvas.signs[end, left - 1] = "▶"


def _text(slot: Slot) -> str:
    if slot.is_lane:
        return ""
    if slot.task is None:
        return f"({slot.label})"
    return f"[{slot.label}]{' BROKEN' if slot.task.problem else ''}"
