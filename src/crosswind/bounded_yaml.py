"""YAML that others write, bounded before anything is built from it.

A parser that builds at once can be killed by a few bytes: nested brackets overflow the stack of the C extension,
aliases of aliases grow to gigabytes, and the time for one long number grows with the square of its digits. So the
events are counted first, of which there are no more than the text has characters; aliases by what they stand for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from crosswind.errors import ConfigError
from crosswind.regular_files import MAX_BYTES
from crosswind.types import Json

__all__ = ["MAX_DEPTH", "MAX_DIGITS", "MAX_NODES", "parse", "parse_with_nodes", "unreadable"]

MAX_DEPTH = 100
"""Levels of lists and mappings; a pod has about 12."""

MAX_NODES = 100_000
"""Values, with each alias counted as what it stands for."""

MAX_DIGITS = 20
"""Of an integer: 2**64 has 20."""

_MAX_CHARACTERS = 4 * MAX_BYTES
"""Characters of all values, with each alias counted as what it stands for."""

_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = "tag:yaml.org,2002:int"


def parse(text: str, where: str, what: str = "the first document") -> Json:
    """Return what one YAML document says, None for an empty one. For ``where``, ``what`` and errors see below."""
    return parse_with_nodes(text, where, what)[1]


def parse_with_nodes(text: str, where: str, what: str = "the first document") -> tuple[yaml.Node | None, Json]:
    """Return the nodes of one YAML document, which know their lines, and what they say; None for an empty document.

    ``where``: the file, for messages. ``what``: which of several documents to keep, for the message. Raises
    ``ConfigError``: ``FILE:LINE: what is wrong; how to fix it``. The message repeats nothing of the text.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{where}: larger than {MAX_BYTES // 1024} KiB; take out what it does not need")
    try:
        _Bounds(where).check(yaml.parse(text, Loader=_Loader))
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            return root, None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise ConfigError(unreadable(error, where, what)) from None
    except (ValueError, OverflowError, TypeError, AttributeError):  # the library checks these values by using them
        raise ConfigError(
            f"{where}: not readable as YAML: a date (2026-02-30), a number or a value with a tag is malformed;"
            " put quotes around what is text"
        ) from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply; write it out plainly") from None


def unreadable(error: yaml.YAMLError, where: str, what: str) -> str:
    """Return what keeps a file from being read; ``what``: the one document that is wanted."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    place = f"{where}:{mark.line + 1}" if mark else where
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
    if "expected a single document" in str(error):
        return f"{place}: the file holds more than one YAML document; keep {what}, take the others out"
    return f"{place}: not readable as YAML: {problem}; mend the text there (spaces, no tabs, quotes in pairs)"


@dataclass(slots=True)
class _Part:
    """A list or mapping that is being read, or an anchor's value: how much it holds, and how many levels."""

    anchor: str | None = None
    nodes: int = 1
    characters: int = 0
    levels: int = 0


class _Bounds:
    """Counts what a document would become, event by event, without recursion."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._open = [_Part()]
        self._anchors: dict[str, _Part] = {}

    def check(self, events: Iterator[yaml.Event]) -> None:
        for event in events:
            if isinstance(event, yaml.CollectionStartEvent):
                self._open.append(_Part(event.anchor))
                self._bound(event, levels=len(self._open) - 1)
                if event.anchor:  # used inside itself, it is not known yet
                    self._anchors.pop(event.anchor, None)
            elif isinstance(event, yaml.CollectionEndEvent):
                part = self._open.pop()
                part.levels += 1
                self._add(event, part)
            elif isinstance(event, yaml.ScalarEvent):
                self._refuse_long_integer(event)
                self._add(event, _Part(event.anchor, characters=len(event.value)))
            elif isinstance(event, yaml.AliasEvent):
                self._add_alias(event)

    def _add_alias(self, event: yaml.AliasEvent) -> None:
        meant = self._anchors.get(str(event.anchor))
        if meant is not None:
            self._add(event, _Part(None, meant.nodes, meant.characters, meant.levels))
        elif any(part.anchor == event.anchor for part in self._open):
            self._fail(event, f"*{event.anchor} stands for a value that it is a part of; write it out")
        # an anchor that is not there is the composer's to tell

    def _add(self, event: yaml.Event, part: _Part) -> None:
        if part.anchor:
            self._anchors[part.anchor] = part
        around = self._open[-1]
        around.nodes += part.nodes
        around.characters += part.characters
        around.levels = max(around.levels, part.levels)
        self._bound(event, levels=len(self._open) - 1 + part.levels)
        if around.nodes > MAX_NODES:
            self._fail(event, f"more than {MAX_NODES} values, aliases counted as what they stand for; write less")
        if around.characters > _MAX_CHARACTERS:
            self._fail(event, f"more than {_MAX_CHARACTERS} characters, aliases counted as what they stand for")

    def _bound(self, event: yaml.Event, levels: int) -> None:
        if levels > MAX_DEPTH:
            self._fail(event, f"nested deeper than {MAX_DEPTH} levels; write it plainly")

    def _refuse_long_integer(self, event: yaml.ScalarEvent) -> None:
        if len(event.value) <= MAX_DIGITS or not _is_integer(event):
            return
        if sum(character.isalnum() for character in event.value) > MAX_DIGITS:
            self._fail(event, f"an integer of more than {MAX_DIGITS} digits; put quotes around it if it is text")

    def _fail(self, event: yaml.Event, problem: str) -> None:
        line = f":{event.start_mark.line + 1}" if event.start_mark else ""
        raise ConfigError(f"{self._where}{line}: {problem}")


def _is_integer(event: yaml.ScalarEvent) -> bool:
    if event.tag:
        return bool(event.tag == _INTEGER)
    if event.style or not event.implicit[0]:
        return False
    resolvers = yaml.SafeLoader.yaml_implicit_resolvers.get(event.value[:1], ())
    return any(tag == _INTEGER and pattern.match(event.value) for tag, pattern in resolvers)
