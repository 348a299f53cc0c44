"""The tables and tasks of a folder as text, Mermaid or JSON. Pure."""

from __future__ import annotations

import json

from crosswind.tasks.graph import Graph, depths

__all__ = ["as_json", "as_mermaid", "as_text"]


def as_text(graph: Graph) -> str:
    """Return a block for each task in the order of work: the tables that it reads, with their producers, and makes."""
    depth_of = depths({task: {other for _, other in graph.inputs(node)} for task, node in graph.nodes.items()})
    lines = []
    for task in sorted(graph.nodes, key=lambda task: (depth_of[task], task)):
        node = graph.nodes[task]
        lines.append(f"{task}  ({node.path}){'  BROKEN' if node.problem else ''}")
        producers: dict[str, list[str]] = {}
        for table, producer in graph.inputs(node):
            producers.setdefault(table, []).append(producer)
        lines += [f"  reads  {table}  from {', '.join(producers.get(table, ['outside']))}" for table in node.reads]
        lines += [f"  makes  {table}" for table in node.writes]
        lines += [f"  appends  {table}" for table in node.appends]
    return "\n".join(lines)


def as_mermaid(graph: Graph) -> str:
    """Return a flowchart: tasks are boxes, tables name the arrows, tables from outside are cylinders."""
    names = {task: f"t{number}" for number, task in enumerate(sorted(graph.nodes))}
    outside = sorted({table for node in graph.nodes.values() for table in graph.external(node)})
    cylinders = {table: f"x{number}" for number, table in enumerate(outside)}
    lines = ["flowchart LR"]
    lines += [f'  {name}["{_quoted(task)}"]' for task, name in names.items()]
    lines += [f'  {name}[("{_quoted(table)}")]' for table, name in cylinders.items()]
    for task, name in names.items():
        node = graph.nodes[task]
        lines += [f'  {names[other]} -->|"{_quoted(table)}"| {name}' for table, other in graph.inputs(node)]
        lines += [f"  {cylinders[table]} --> {name}" for table in graph.external(node)]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return text.replace('"', "#quot;")


def as_json(graph: Graph) -> str:
    """Return each task with its file, the tables that it reads, with their producers, makes and appends to."""
    tasks = [
        {
            "id": node.id,
            "file": node.path,
            "folder": node.folder,
            "reads": [{"table": table, "from": graph.makers(table)} for table in node.reads],
            "makes": list(node.writes),
            "appends": list(node.appends),
            "after": sorted({other for _, other in graph.inputs(node)}),
            "problem": node.problem or None,
        }
        for _, node in sorted(graph.nodes.items())
    ]
    return json.dumps({"crosswind": "tasks graph", "tasks": tasks}, indent=2)
