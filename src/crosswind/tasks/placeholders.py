"""``${task.query}`` and its like in the platform's settings, filled in for each task.

The form clashes neither with Jinja's braces nor with a shell's variables (no variable's name has a dot).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from crosswind.types import Json

__all__ = ["TASK_NAMES", "fill", "unknown", "uses"]

TASK_NAMES = ("id", "query", "query_path", "table", "connection", "image", "folder")
"""What may follow ``task.``; ``${table}`` alone stands in the settings of a sensor, ``${folder}`` in a DAG's id."""

_PLACE = re.compile(r"\$\{((?:task\.\w+)|table|folder|first)\}")


def fill(value: Json, names: Mapping[str, str]) -> Json:
    """Return ``value`` with each placeholder of ``names`` replaced, in all texts that it holds."""
    if isinstance(value, str):
        return _PLACE.sub(lambda found: names.get(found[1], found[0]), value) if "${" in value else value
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
        return next((found[0] for found in _PLACE.finditer(value) if found[1] not in known), None)
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for item in items if (found := unknown(item, known))), None)
