"""Placeholders such as ``${task.query}`` in the platform's settings, replaced for each task.

The notation conflicts neither with Jinja's braces nor with a shell's variables, whose names have no dots.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from crosswind.types import Json

__all__ = ["TASK_NAMES", "fill", "unknown", "uses"]

TASK_NAMES = ("id", "query", "query_path", "table", "connection", "image", "folder")
"""The names after ``task.``. Settings of a sensor have ``${table}`` instead, a DAG's id ``${folder}``."""

_PLACEHOLDER = re.compile(r"\$\{((?:task\.\w+)|table|folder|first)\}")


def fill(value: Json, names: Mapping[str, str]) -> Json:
    """Return ``value`` with each placeholder of ``names`` replaced, in all texts that it holds."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: names.get(match[1], match[0]), value) if "${" in value else value
    if isinstance(value, dict):
        return {key: fill(item, names) for key, item in value.items()}
    return [fill(item, names) for item in value] if isinstance(value, list) else value


def uses(value: Json, name: str) -> bool:
    """Return whether ``value`` has the placeholder of that name anywhere."""
    if isinstance(value, str):
        return f"${{{name}}}" in value
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(uses(item, name) for item in items)


def unknown(value: Json, known: frozenset[str]) -> str | None:
    """Return a placeholder that is not in ``known``, such as a misspelt one, or None."""
    if isinstance(value, str):
        return next((match[0] for match in _PLACEHOLDER.finditer(value) if match[1] not in known), None)
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((placeholder for item in items if (placeholder := unknown(item, known))), None)
