"""The tables and tasks of a folder as text, Mermaid or a picture (SVG). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from crosswind.tasks.graph import Graph

__all__ = ["as_mermaid", "as_svg", "as_text"]

_ROW, _COLUMN, _WIDTH, _HEIGHT, _LETTER = 34, 60, 26, 24, 7.4


def as_text(graph: Graph) -> str:
    """One block for each task in the order of work: what it reads, and who makes it; what it makes."""
    depths = _depths(graph)
    lines = []
    for task in sorted(graph.nodes, key=lambda task: (depths[task], task)):
        node = graph.nodes[task]
        lines.append(f"{task}  ({node.path}){'  BROKEN' if node.problem else ''}")
        inputs = dict(graph.inputs(node))
        lines += [f"  reads  {table}  from {inputs.get(table, 'outside')}" for table in node.reads]
        lines += [f"  makes  {table}" for table in node.writes]
    return "\n".join(lines)


def as_mermaid(graph: Graph) -> str:
    """A flowchart: tasks are boxes, tables name the arrows, tables from outside are drums."""
    names = {task: f"t{number}" for number, task in enumerate(sorted(graph.nodes))}
    outside = sorted({table for node in graph.nodes.values() for table in graph.external(node)})
    drums = {table: f"x{number}" for number, table in enumerate(outside)}
    lines = ["flowchart LR"]
    lines += [f'  {name}["{_quoted(task)}"]' for task, name in names.items()]
    lines += [f'  {name}[("{_quoted(table)}")]' for table, name in drums.items()]
    for task, name in names.items():
        node = graph.nodes[task]
        lines += [f'  {names[by]} -->|"{_quoted(table)}"| {name}' for table, by in graph.inputs(node)]
        lines += [f"  {drums[table]} --> {name}" for table in graph.external(node)]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return text.replace('"', "#quot;")


def as_svg(graph: Graph) -> str:
    """A picture: tables from outside at the left, then each task right of all that it waits for."""
    columns = _columns(graph)
    places, width = _places(columns)
    height = max((len(column) for column in columns), default=0) * _ROW + _ROW
    shapes = [*_arrows(graph, places), *_boxes(graph, places)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" font-family="sans-serif"'
    arrow = '<marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    marker = f'<defs>{arrow}<path d="M0 0L8 4L0 8z" fill="#777"/></marker></defs>'
    back = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([f'{head} font-size="12">', marker, back, *shapes, "</svg>"]) + "\n"


Place = tuple[float, float, float]
"""Left, middle height and width of a box."""


def _columns(graph: Graph) -> list[list[str]]:
    """Return what stands in each column: tables with a slash before, so that no task has such a name."""
    outside = sorted({f"/{table}" for node in graph.nodes.values() for table in graph.external(node)})
    depths = _depths(graph)
    columns: list[list[str]] = [outside, *([] for _ in range(max(depths.values(), default=-1) + 1))]
    for task, depth in sorted(depths.items()):
        columns[depth + 1].append(task)
    rows = {name: row for row, name in enumerate(outside)}
    for column in columns[1:]:  # near to what they read, so that few arrows cross
        column.sort(key=lambda task: (_middle(graph, task, rows), task))
        rows |= {task: row for row, task in enumerate(column)}
    return columns


def _middle(graph: Graph, task: str, rows: Mapping[str, int]) -> float:
    node = graph.nodes[task]
    near = [rows[by] for _, by in graph.inputs(node) if by in rows]
    near += [rows[f"/{table}"] for table in graph.external(node)]
    return sum(near) / len(near) if near else 0.0


def _places(columns: list[list[str]]) -> tuple[dict[str, Place], float]:
    places, left = dict[str, Place](), 10.0
    for column in columns:
        width = max((len(name) * _LETTER for name in column), default=0.0) + _WIDTH
        places |= {name: (left, (row + 1) * _ROW, width) for row, name in enumerate(column)}
        left += width + _COLUMN if column else 0
    return places, left


def _arrows(graph: Graph, places: Mapping[str, Place]) -> Iterator[str]:
    for task, node in sorted(graph.nodes.items()):
        right, end, _ = places[task]
        sources = [(by, table) for table, by in graph.inputs(node)]
        for source, table in [*sources, *((f"/{table}", table) for table in graph.external(node))]:
            left, begin, width = places[source]
            x, bend = left + width, (right - left - width) / 2
            path = f"M{x:.0f} {begin:.0f}C{x + bend:.0f} {begin:.0f} {right - bend:.0f} {end:.0f} {right:.0f} {end:.0f}"
            style = 'fill="none" stroke="#777" marker-end="url(#a)"'
            yield f'<path d="{path}" {style}><title>{escape(table)}</title></path>'


def _boxes(graph: Graph, places: Mapping[str, Place]) -> Iterator[str]:
    for name, (left, middle, width) in sorted(places.items()):
        outside = name.startswith("/")
        broken = not outside and graph.nodes[name].problem
        fill = "#eee" if outside else "#fdd" if broken else "#def"
        corner = f'rx="{_HEIGHT // 2 if outside else 3}"'
        box = f'x="{left:.0f}" y="{middle - _HEIGHT / 2:.0f}" width="{width:.0f}" height="{_HEIGHT}" {corner}'
        yield f'<rect {box} fill="{fill}" stroke="#777"/>'
        yield f'<text x="{left + _WIDTH / 2:.0f}" y="{middle + 4:.0f}">{escape(name.lstrip("/"))}</text>'


def _depths(graph: Graph) -> dict[str, int]:
    """Return for each task how many tasks come before it on the longest way; there are no loops any more."""
    depths: dict[str, int] = {}
    waits = {task: {by for _, by in graph.inputs(node)} for task, node in graph.nodes.items()}
    while waits:
        ready = [task for task, before in waits.items() if before <= depths.keys()]
        for task in ready:
            depths[task] = 1 + max((depths[by] for by in waits.pop(task)), default=-1)
    return depths
