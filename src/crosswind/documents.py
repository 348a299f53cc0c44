"""Files and YAML documents that others wrote: the one place where their content enters, within bounds.

No path stops or kills the process that reads it. Links are followed, because ConfigMaps and Secrets are mounted as
links, but they must lead to a regular file of bounded size: a FIFO would block the reader forever, and ``/dev/zero``
would use up the memory.

A parser that builds values at once can be killed by a few bytes: nested brackets overflow the stack of the C extension,
aliases of aliases grow to gigabytes, and the time to convert an integer grows with the square of its digits. PyYAML has
no limits of its own. Therefore the parser's events, of which a text has at most one per character, are counted first,
each alias as the value that it stands for.
"""

from __future__ import annotations

import codecs
import math
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

import yaml

from crosswind.errors import ConfigError, DocumentError
from crosswind.types import Json

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_DIGITS",
    "MAX_NODES",
    "Dialect",
    "Document",
    "FieldPath",
    "FieldProblem",
    "check_regular",
    "dotted",
    "open_regular",
    "parse",
    "parse_document",
    "read_bytes",
    "read_regular",
    "read_text",
]

MAX_BYTES = 1024 * 1024
"""Size of a file: as much as a ConfigMap holds, and as the API server accepts of one object."""

_FILE_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

_ENCODINGS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))

MAX_DEPTH = 100
"""Levels of lists and mappings; a pod has about 12."""

MAX_NODES = 100_000
"""Values, with each alias counted as the value that it stands for."""

MAX_DIGITS = 20
"""Digits of an integer: 2**64 has 20."""

_TOO_MANY = f"more than {MAX_NODES} values, aliases counted as their values; write fewer"

_MAX_CHARACTERS = 4 * MAX_BYTES
"""Characters of all values, with each alias counted as the value that it stands for."""

FieldPath = tuple[str | int, ...]
"""Where a value is: ``("spec", "containers", 0, "image")``."""

_Places = Sequence[tuple[FieldPath, int]]

_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TextLoader: type[yaml.BaseLoader] = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_INTEGER_TAG = "tag:yaml.org,2002:int"
_MERGE_KEY = "<<"

_PLAIN_CONSTANTS: dict[str, Json] = {"": None, "~": None, "null": None, "true": True, "false": False}
_PLAIN_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_PLAIN_NUMBER = re.compile(r"[-+]?[0-9]+\.[0-9]+([eE][-+]?[0-9]+)?")


def read_text(path: str | os.PathLike[str], *, what: str = "file", pipes: bool = False) -> str:
    """Return the text of a file: UTF-8, or UTF-16 with the byte order mark that editors on Windows write.

    ``what``: the kind of file, for messages. ``pipes``: whether the path is an argument of a command, where pipes
    (``/dev/stdin``, ``<(...)``) and "-" for standard input are allowed. Raises ``ConfigError`` with path and reason.
    """
    data = read_bytes(path, what=what, pipes=pipes)
    encoding = next((name for mark, name in _ENCODINGS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{what} {os.fspath(path)} is not UTF-8 text: {error.reason} at byte {error.start};"
            " save it in that encoding"
        ) from None


def read_bytes(
    path: str | os.PathLike[str], *, what: str = "file", pipes: bool = False, limit: int = MAX_BYTES
) -> bytes:
    """Return the content of a file of at most ``limit`` bytes. Arguments and errors: ``read_text``."""
    try:
        if pipes and os.fspath(path) == "-":
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with open(path, "rb") if pipes else open_regular(path) as file:
                data = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(
            f"{what} {os.fspath(path)} cannot be read: {error.strerror or error}; correct the path, or mount the file"
        ) from error
    except ValueError as error:  # a NUL byte in the path
        raise ConfigError(f"{what} {os.fspath(path)!r} cannot be read: {error}; correct the path") from error
    if len(data) > limit:
        raise ConfigError(
            f"{what} {os.fspath(path)} is larger than {limit // 1024} KiB; remove content that it does not need"
        )
    return data


def check_regular(path: str | os.PathLike[str] | int) -> None:
    """Raise ``OSError`` unless a path or descriptor is of a regular file. For libraries that open files themselves."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise OSError(0, f"it is {_FILE_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a regular file", path)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read its bytes; raises ``OSError`` for anything else."""
    descriptor = _open_descriptor(path)
    try:
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str], size: int) -> bytes:
    """Return the first ``size`` bytes of a regular file, as ``open_regular`` does, in half of its time."""
    descriptor = _open_descriptor(path)
    try:
        data = part = os.read(descriptor, size)
        while part and len(data) < size:  # a file system may return less than a whole file
            part = os.read(descriptor, size - len(data))
            data += part
        return data
    finally:
        os.close(descriptor)


def _open_descriptor(path: str | os.PathLike[str]) -> int:
    check_regular(path)  # before opening: to open a device may block, or have effects
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        check_regular(descriptor)  # again: the path may have been replaced since
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@dataclass(frozen=True, slots=True)
class Dialect:
    """Which part of YAML a document may use."""

    max_depth: int = MAX_DEPTH
    plain: bool = False
    """No anchors, aliases and tags, and plain scalars as in YAML 1.2: text unless they are ``null``, ``true``,
    ``false`` or a number. ``no`` is then a country, and a date stays the text that was written."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """An error in one field of a document."""

    path: FieldPath
    description: str
    """Completes a sentence that begins with the field: ``is not a field of Kubernetes``."""
    fix: str

    def __str__(self) -> str:
        return f"{dotted(self.path)} {self.description}; {self.fix}"


@dataclass(frozen=True)
class Document:
    """One YAML document: its content, and where each value stands."""

    where: str
    """The file, for messages."""
    root: yaml.Node | None
    """None for an empty document."""
    content: Json
    repeated_keys: tuple[FieldProblem, ...]
    """Keys that a mapping has twice, of which YAML readers keep the last one silently."""
    places: _Places | None = None
    """The path and line of each field and item, if they are known already."""

    @cached_property
    def lines(self) -> dict[FieldPath, int]:
        """The line of each field and item by its path, counted from 1."""
        if self.root is None:
            return {}
        return {(): _line(self.root), **dict(self.places or _places(self.root, ()))}

    def line_of(self, path: FieldPath) -> int:
        """Return the line of the deepest part of ``path`` that the document has."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def describe(self, problems: Iterable[FieldProblem]) -> str:
        """Return problems as a compiler prints them: ``FILE:LINE: FIELD is wrong; how to fix it``, a line for each."""
        return "\n".join(f"{self.where}:{self.line_of(problem.path)}: {problem}" for problem in problems)


def dotted(path: FieldPath) -> str:
    """Return a path as Kubernetes writes it: ``spec.containers[0].image``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.lstrip(".") or "the document"


def parse(text: str, where: str, keep: str = "the first document") -> Json:
    """Return the content of one YAML document, None for an empty one. Arguments and errors: ``parse_document``."""
    return parse_document(text, where, keep).content


def parse_document(text: str, where: str, keep: str = "the first document", dialect: Dialect | None = None) -> Document:
    """Return one YAML document.

    ``where``: the file, for messages. ``keep``: which document the user should keep where a file has several, for the
    message. ``dialect``: all of YAML by default. Raises ``DocumentError``: ``FILE:LINE: problem; fix``.
    The message repeats nothing of the text, which may hold credentials.
    """
    dialect = dialect or Dialect()
    if len(text) > MAX_BYTES:
        raise DocumentError(where, 0, f"larger than {MAX_BYTES // 1024} KiB; remove content that it does not need")
    try:
        _Bounds(where, dialect).check(yaml.parse(text, Loader=_Loader))
        return _plain_document(text, where) if dialect.plain else _document(text, where)
    except yaml.YAMLError as error:
        raise _syntax_error(error, where, keep) from None
    except (ValueError, OverflowError, TypeError, AttributeError):  # PyYAML converts these values without a check
        raise DocumentError(
            where,
            0,
            "not readable as YAML: a date (2026-02-30), a number or a value with a tag is malformed;"
            " put quotes around text",
        ) from None
    except RecursionError:
        raise DocumentError(where, 0, "nested too deeply; use fewer levels") from None


def _document(text: str, where: str) -> Document:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return Document(where, None, None, ())
        # Before merge keys (<<) are replaced by the fields that they merge.
        repeated = tuple(_repeated_keys(_places(root, ())))
        return Document(where, root, loader.construct_document(root), repeated)
    finally:
        loader.dispose()


def _plain_document(text: str, where: str) -> Document:
    root = yaml.compose(text, Loader=_TextLoader)
    if root is None:
        return Document(where, None, None, ())
    content, places = _plain_value(root, where), tuple(_places(root, ()))
    repeated = () if len({path for path, _ in places}) == len(places) else tuple(_repeated_keys(places))
    return Document(where, root, content, repeated, places)


def _plain_value(node: yaml.Node, where: str) -> Json:
    if isinstance(node, yaml.ScalarNode):
        return str(node.value) if node.style else _plain_scalar(node.value)
    if isinstance(node, yaml.SequenceNode):
        return [_plain_value(item, where) for item in node.value]
    fields: dict[str, Json] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise DocumentError(where, _line(key), "a field's name must be a word")
        fields[key.value] = _plain_value(value, where)
    return fields


def _plain_scalar(text: str) -> Json:
    if text in _PLAIN_CONSTANTS:
        return _PLAIN_CONSTANTS[text]
    if _PLAIN_INTEGER.fullmatch(text) and len(text) < MAX_DIGITS:  # fits into 64 bits, and so into JSON
        return int(text)
    number = float(text) if _PLAIN_NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else text  # JSON, in which results are cached, has no infinity


def _repeated_keys(places: Iterable[tuple[FieldPath, int]]) -> Iterator[FieldProblem]:
    seen: set[FieldPath] = set()
    for path, _ in places:
        if path in seen and path[-1] != _MERGE_KEY:
            yield FieldProblem(path, "is given twice", "keep one of them")
        seen.add(path)


def _places(node: yaml.Node, path: FieldPath) -> Iterator[tuple[FieldPath, int]]:
    """Yield path and line of each field and item below a node, in the order of the document."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            below = (*path, index)
            yield below, _line(item)
            if not isinstance(item, yaml.ScalarNode):
                yield from _places(item, below)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, str(key.value))
            yield below, _line(key)
            if not isinstance(value, yaml.ScalarNode):
                yield from _places(value, below)


def _line(part: yaml.Node | yaml.Event) -> int:
    return int(part.start_mark.line) + 1 if part.start_mark else 0


def _syntax_error(error: yaml.YAMLError, where: str, keep: str) -> DocumentError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark else 0
    if "expected a single document" in str(error):
        return DocumentError(where, line, f"the file holds more than one YAML document; keep {keep}, remove the others")
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
    return DocumentError(where, line, f"not readable as YAML: {problem}; check spaces, tabs and quotes there")


@dataclass(slots=True)
class _Extent:
    """How much a list or mapping that is being read holds so far, or the value of an anchor."""

    anchor: str | None = None
    nodes: int = 1
    characters: int = 0
    levels: int = 0


class _Bounds:
    """Counts how large a document would become, event by event, without recursion."""

    def __init__(self, where: str, dialect: Dialect) -> None:
        self._where = where
        self._dialect = dialect
        self._open = [_Extent()]
        self._anchors: dict[str, _Extent] = {}

    def check(self, events: Iterator[yaml.Event]) -> None:
        if self._dialect.plain:
            self._check_plain(events)
            return
        for event in events:
            if isinstance(event, yaml.CollectionStartEvent):
                self._open.append(_Extent(event.anchor))
                self._limit_depth(event, len(self._open) - 1)
                if event.anchor:  # an alias inside the value may not refer to an earlier anchor of the same name
                    self._anchors.pop(event.anchor, None)
            elif isinstance(event, yaml.CollectionEndEvent):
                extent = self._open.pop()
                extent.levels += 1
                self._add(event, extent)
            elif isinstance(event, yaml.ScalarEvent):
                self._refuse_long_integer(event)
                self._add(event, _Extent(event.anchor, characters=len(event.value)))
            elif isinstance(event, yaml.AliasEvent):
                self._add_alias(event)

    def _check_plain(self, events: Iterator[yaml.Event]) -> None:
        """Check depth and number of values: without aliases, their characters are at most those of the text."""
        depth = nodes = 0
        for event in events:
            if isinstance(event, yaml.NodeEvent):
                self._refuse_anchor_or_tag(event)
                nodes += 1
                if nodes > MAX_NODES:
                    raise self._error(event, _TOO_MANY)
                if isinstance(event, yaml.CollectionStartEvent):
                    depth += 1
                    self._limit_depth(event, depth)
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1

    def _add_alias(self, event: yaml.AliasEvent) -> None:
        value = self._anchors.get(str(event.anchor))
        if value is not None:
            self._add(event, _Extent(None, value.nodes, value.characters, value.levels))
        elif any(extent.anchor == event.anchor for extent in self._open):
            raise self._error(event, f"*{event.anchor} stands for a value that contains it; write the value out")
        # PyYAML's composer reports an anchor that does not exist

    def _add(self, event: yaml.Event, extent: _Extent) -> None:
        if extent.anchor:
            self._anchors[extent.anchor] = extent
        parent = self._open[-1]
        parent.nodes += extent.nodes
        parent.characters += extent.characters
        parent.levels = max(parent.levels, extent.levels)
        self._limit_depth(event, len(self._open) - 1 + extent.levels)
        if parent.nodes > MAX_NODES:
            raise self._error(event, _TOO_MANY)
        if parent.characters > _MAX_CHARACTERS:
            raise self._error(event, f"more than {_MAX_CHARACTERS} characters, aliases counted as their values")

    def _limit_depth(self, event: yaml.Event, levels: int) -> None:
        if levels > self._dialect.max_depth:
            raise self._error(event, f"nested deeper than {self._dialect.max_depth} levels; use fewer")

    def _refuse_anchor_or_tag(self, event: yaml.NodeEvent) -> None:
        if event.anchor:
            raise self._error(event, "anchors and aliases (& and *) are not supported; write the value out")
        if tag := getattr(event, "tag", None):
            raise self._error(event, f"tags such as {tag} are not supported; write a plain value")

    def _refuse_long_integer(self, event: yaml.ScalarEvent) -> None:
        if len(event.value) <= MAX_DIGITS or self._dialect.plain or not _is_integer(event):
            return
        if sum(character.isalnum() for character in event.value) > MAX_DIGITS:
            raise self._error(event, f"an integer of more than {MAX_DIGITS} digits; put quotes around it if it is text")

    def _error(self, event: yaml.Event, problem: str) -> ConfigError:
        return DocumentError(self._where, _line(event), problem)


def _is_integer(event: yaml.ScalarEvent) -> bool:
    if event.tag:
        return bool(event.tag == _INTEGER_TAG)
    if event.style or not event.implicit[0]:
        return False
    resolvers = yaml.SafeLoader.yaml_implicit_resolvers.get(event.value[:1], ())
    return any(tag == _INTEGER_TAG and pattern.match(event.value) for tag, pattern in resolvers)
