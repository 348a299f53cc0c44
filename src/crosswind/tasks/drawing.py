"""The tables and tasks of a folder as text, Mermaid or JSON. Pure."""

from __future__ import annotations

import json

from crosswind.tasks.graph import Graph

__all__ = ["as_json", "as_mermaid", "as_text"]


def as_text(graph: Graph) -> str:
    """One block for each task in the order of work: what it reads, and who makes it; what it makes."""
    depths = _depths(graph)
    lines = []
    for task in sorted(graph.nodes, key=lambda task: (depths[task], task)):
        node = graph.nodes[task]
        lines.append(f"{task}  ({node.path}){'  BROKEN' if node.problem else ''}")
        inputs: dict[str, list[str]] = {}
        for table, by in graph.inputs(node):
            inputs.setdefault(table, []).append(by)
        lines += [f"  reads  {table}  from {', '.join(inputs.get(table, ['outside']))}" for table in node.reads]
        lines += [f"  makes  {table}" for table in node.writes]
        lines += [f"  appends  {table}" for table in node.appends]
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


def as_json(graph: Graph) -> str:
    """Each task with its file, what it reads and from whom, what it makes and appends to; for programs."""
    tasks = [
        {
            "id": node.id,
            "file": node.path,
            "folder": node.folder,
            "reads": [{"table": table, "from": graph.makers(table)} for table in node.reads],
            "makes": list(node.writes),
            "appends": list(node.appends),
            "after": sorted({by for _, by in graph.inputs(node)}),
            "problem": node.problem or None,
        }
        for _, node in sorted(graph.nodes.items())
    ]
    return json.dumps({"crosswind": "tasks graph", "tasks": tasks}, indent=2)


def _depths(graph: Graph) -> dict[str, int]:
    """Return for each task how many tasks come before it on the longest way; there are no loops any more."""
    depths: dict[str, int] = {}
    waits = {task: {by for _, by in graph.inputs(node)} for task, node in graph.nodes.items()}
    while waits:
        ready = [task for task, before in waits.items() if before <= depths.keys()]
        for task in ready:
            depths[task] = 1 + max((depths[by] for by in waits.pop(task)), default=-1)
    return depths
