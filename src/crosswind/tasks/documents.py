"""YAML as people write it in task files: a small, strict part of the language, read with line numbers.

Left out, each with a clear error: anchors and aliases (a few lines of them can grow to gigabytes), tags, keys given
twice, several documents in a file, nesting deeper than 16. Plain scalars are text unless they are ``null``, ``true``,
``false`` or a number, as in YAML 1.2: ``no`` is a country, and a date stays what was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from crosswind.types import Json

__all__ = ["MAX_BYTES", "Document", "DocumentError", "read_document"]

MAX_BYTES = 64 * 1024
"""Of a task file or a ``crosswind.yaml``; the largest sensible one is a hundredth of it."""

_MAX_DEPTH = 16
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CONSTANTS: dict[str, Json] = {"": None, "~": None, "null": None, "true": True, "false": False}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?[0-9]+\.[0-9]+([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Document:
    """A mapping, and the line of each of its parts by path, such as ``run.arguments.0``."""

    fields: dict[str, Json]
    lines: dict[str, int]


class DocumentError(ValueError):
    """The text cannot be taken; ``line`` is counted from 1, 0 is the whole file."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line, self.message = line, message


def read_document(data: bytes) -> Document:
    """Return the one mapping that ``data`` holds; raises ``DocumentError``."""
    if len(data) > MAX_BYTES:
        raise DocumentError(0, f"the file is larger than {MAX_BYTES // 1024} KiB; move data and queries out of it")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DocumentError(line, "the file is not UTF-8; save it in that encoding") from None
    try:
        reader = _Reader(yaml.parse(text, Loader=_LOADER))
        fields = reader.document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
        message = f"not readable as YAML: {problem}; look at spaces, tabs and quotes there"
        raise DocumentError(mark.line + 1 if mark else 0, message) from None
    if not isinstance(fields, dict):
        raise DocumentError(1, "must hold fields, such as id: daily_revenue")
    return Document(fields, reader.lines)


class _Reader:
    """Builds values from YAML's events: no node tree, no recursion beyond the depth that is allowed."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events
        self.lines: dict[str, int] = {}

    def document(self) -> Json:
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise DocumentError(0, "the file is empty; write id, query and tables")
        value = self._value(next(self._events), "", 0)
        next(self._events)
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise DocumentError(_line(after), "a second YAML document begins; write one file for each task")
        return value

    def _value(self, event: yaml.Event, path: str, depth: int) -> Json:
        self._refuse(event, depth)
        self.lines.setdefault(path, _line(event))
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path, depth)
        return self._mapping(path, depth)

    def _sequence(self, path: str, depth: int) -> list[Json]:
        items: list[Json] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, f"{path}.{len(items)}" if path else str(len(items)), depth + 1))
        return items

    def _mapping(self, path: str, depth: int) -> dict[str, Json]:
        fields: dict[str, Json] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise DocumentError(_line(event), "a field's name must be a word")
            name, below = event.value, f"{path}.{event.value}" if path else event.value
            if name in fields:
                raise DocumentError(_line(event), f"{name} is given twice; keep one")
            self._refuse(event, depth)
            self.lines[below] = _line(event)
            fields[name] = self._value(next(self._events), below, depth + 1)
        return fields

    def _refuse(self, event: yaml.Event, depth: int) -> None:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise DocumentError(_line(event), "anchors and aliases (& and *) are not supported; write the value out")
        if tag := getattr(event, "tag", None):
            raise DocumentError(_line(event), f"tags such as {tag} are not supported; write a plain value")
        if depth > _MAX_DEPTH:
            raise DocumentError(_line(event), f"nested deeper than {_MAX_DEPTH}; write it plainly")


def _line(event: yaml.Event) -> int:
    return int(event.start_mark.line) + 1 if event.start_mark else 0


def _scalar(event: yaml.ScalarEvent) -> Json:
    text = str(event.value)
    if event.style:  # quoted or a block
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text) and len(text) < 20:
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text
