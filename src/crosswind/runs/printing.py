"""How a pod's line appears in its task's log, printed by a worker or by the triggerer."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from crosswind.types import Json

__all__ = ["LogStyle", "is_group_mark", "level_of"]

_LEVEL = re.compile(r"\s*\[?(DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL)\]?\b", re.IGNORECASE)
_LEVELS = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "CRITICAL": logging.CRITICAL,
    "FATAL": logging.CRITICAL,
}
_ONLY_HERE = ("unusual_prefix_", "__main__")
"""Modules that no other process can import: DAG files have names of Airflow's making."""


def level_of(text: str) -> int:
    """Return the level that a line begins with, INFO when it names none."""
    match = _LEVEL.match(text)
    return _LEVELS[match[1].upper()] if match else logging.INFO


def is_group_mark(text: str) -> bool:
    """Whether a line folds those that follow in Airflow's UI, or ends such a fold: it must stand alone."""
    return text.startswith(("::group::", "::endgroup::"))


@dataclass(frozen=True, slots=True)
class LogStyle:
    """What the operator's arguments make of a line."""

    prefix: bool = True
    """Put the container's name in front (``container_name_log_prefix_enabled``)."""
    formatter: Callable[[str, str], str] | None = None
    """Makes the whole line of the container's name and the text (``log_formatter``)."""

    def line(self, container: str, text: str) -> str:
        """Return what is printed."""
        if self.formatter is not None:
            return self.formatter(container, text)
        return f"[{container}] {text}" if self.prefix else text

    @property
    def travels(self) -> bool:
        """Whether another process can have the same style: a formatter must be importable by its name."""
        if self.formatter is None:
            return True
        path = self._path()
        if path.startswith(_ONLY_HERE):
            return False
        try:
            return _import(path) is self.formatter
        except (ImportError, AttributeError, ValueError):
            return False

    def to_json(self) -> dict[str, Any]:
        """Return what ``from_json`` reads."""
        return {"prefix": self.prefix, "formatter": self._path() if self.formatter is not None else None}

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Return the style of another process. Raises what the import of its formatter raises."""
        path = value.get("formatter") if value else None
        return cls(bool(value.get("prefix", True)) if value else True, _import(path) if path else None)

    def _path(self) -> str:
        function: Any = self.formatter
        return f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
