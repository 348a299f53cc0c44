"""YAML documents that people write, read so that each problem can be told with its line."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from crosswind.pods.shape import Path, Problem, dotted

__all__ = ["doubled", "line_of", "told"]


def doubled(node: yaml.Node, path: Path) -> Iterator[Problem]:
    """Yield keys given twice: YAML readers keep the last one silently."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from doubled(item, (*path, index))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen and name != "<<":
                yield Problem((*path, name), "is given twice", "keep one of them")
            seen.add(name)
            yield from doubled(value, (*path, name))


def told(problem: Problem, root: yaml.Node, where: str) -> str:
    """Return a problem as one line: file, line, field, what, mend."""
    return f"{where}:{line_of(problem.path, root)}: {dotted(problem.path)} {problem.what}; {problem.mend}"


def line_of(path: Path, root: yaml.Node) -> int:
    """Return the line, counted from 1, of the deepest part of ``path`` that the document has."""
    node, line = root, root.start_mark.line
    for part in path:
        step = _step(node, part)
        if step is None:
            break
        line, node = step
    return int(line) + 1


def _step(node: yaml.Node, part: str | int) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line, node.value[part]
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):
            if str(key.value) == part:
                return key.start_mark.line, value
    return None
