"""Formats a pod's log line for its task's log, which a worker or the triggerer prints."""

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
_UNIMPORTABLE = ("unusual_prefix_", "__main__")
"""Modules that no other process can import: Airflow gives a DAG file a module name of its own."""


def level_of(text: str) -> int:
    """Return the level with which a line begins, INFO when it names none."""
    match = _LEVEL.match(text)
    return _LEVELS[match[1].upper()] if match else logging.INFO


def is_group_mark(text: str) -> bool:
    """Return whether a line starts or ends a group in Airflow's UI. Such a line must have no prefix."""
    return text.startswith(("::group::", "::endgroup::"))


@dataclass(frozen=True, slots=True)
class LogStyle:
    """The format of a line, from the operator's arguments."""

    prefix: bool = True
    """Prefix the container's name (``container_name_log_prefix_enabled``)."""
    formatter: Callable[[str, str], str] | None = None
    """Returns the whole line, given the container's name and the text (``log_formatter``)."""

    def line(self, container: str, text: str) -> str:
        """Return the formatted line."""
        if self.formatter is not None:
            return self.formatter(container, text)
        return f"[{container}] {text}" if self.prefix else text

    @property
    def travels(self) -> bool:
        """Whether another process can use the same style: it must be able to import the formatter by name."""
        if self.formatter is None:
            return True
        path = self._path()
        if path.startswith(_UNIMPORTABLE):
            return False
        try:
            return _import(path) is self.formatter
        except (ImportError, AttributeError, ValueError):
            return False

    def to_json(self) -> dict[str, Any]:
        """Return the style as JSON, for ``from_json``."""
        return {"prefix": self.prefix, "formatter": self._path() if self.formatter is not None else None}

    @classmethod
    def from_json(cls, value: Json) -> Self:
        """Return the style that another process sent. Raises the errors of importing its formatter."""
        path = value.get("formatter") if value else None
        return cls(bool(value.get("prefix", True)) if value else True, _import(path) if path else None)

    def _path(self) -> str:
        function: Any = self.formatter
        return f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"


def _import(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
