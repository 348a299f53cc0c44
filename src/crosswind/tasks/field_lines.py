"""The fields of a task file or a ``crosswind.yaml``, with the line of each.

These files use a small, strict part of YAML. Refused, each with a clear error: anchors and aliases, tags, keys given
twice, several documents in a file, more than 16 levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from crosswind.documents import Dialect, parse_document
from crosswind.errors import DocumentError
from crosswind.types import Json

__all__ = ["MAX_BYTES", "FileFields", "read_fields", "storable", "unstorable_texts"]

MAX_BYTES = 64 * 1024
"""Of a task file or a ``crosswind.yaml``; the largest sensible one is a hundredth of it."""

_DIALECT = Dialect(max_depth=16, plain=True)
_ANY_FILE = "task file"
"""Stands for a path, which these errors do not have: the cache keeps them by content, and the caller names the file."""


@dataclass(frozen=True, slots=True)
class FileFields:
    """A mapping, and the line of each of its parts by path, such as ``run.arguments.0``."""

    fields: dict[str, Json]
    lines: dict[str, int]


def read_fields(data: bytes) -> FileFields:
    """Return the one mapping that ``data`` holds; raises ``DocumentError`` with line and problem."""
    if len(data) > MAX_BYTES:
        raise _error(0, f"the file is larger than {MAX_BYTES // 1024} KiB; move data and queries out of it")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _error(line, "the file is not UTF-8; save it in that encoding") from None
    document = parse_document(text, _ANY_FILE, "one task in each file", _DIALECT)
    if document.root is None:
        raise _error(0, "the file is empty; write id, query and tables")
    for problem in document.repeated_keys:
        raise _error(document.line_of(problem.path), str(problem))
    if not isinstance(document.content, dict):
        raise _error(1, "must hold fields, such as id: daily_revenue")
    return FileFields(document.content, {".".join(map(str, path)): line for path, line in document.lines.items()})


def storable(text: str) -> bool:
    """Return whether a file system, a database and a log can hold a text: no NUL, no half of a surrogate pair."""
    return _unstorable_character(text) == ""


def unstorable_texts(content: FileFields) -> Iterator[tuple[int, str]]:
    """Yield line and message of each text that is not ``storable``. YAML can write them as escapes in quotes."""
    yield from _unstorable(content.fields, "", content.lines)


def _unstorable(value: Json, place: str, lines: dict[str, int]) -> Iterator[tuple[int, str]]:
    if isinstance(value, str):
        if character := _unstorable_character(value):
            message = f"has the character {character!a}, which neither files nor databases can hold; remove it"
            yield lines.get(place, 1), f"{place if storable(place) else ascii(place)} {message}"
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        below = f"{place}.{key}" if place else str(key)
        if not storable(str(key)):
            yield from _unstorable(str(key), below, lines)
        yield from _unstorable(item, below, lines)


def _unstorable_character(text: str) -> str:
    if "\0" in text:
        return "\0"
    if text.isascii():
        return ""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return text[error.start]
    return ""


def _error(line: int, problem: str) -> DocumentError:
    return DocumentError(_ANY_FILE, line, problem)
