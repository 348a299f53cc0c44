"""YAML that others write: settings files, kubeconfigs, annotations. Bounded before anything is built from it.

A few bytes can kill a parser that builds at once: nested brackets overflow the stack of the C extension, aliases of
aliases grow to gigabytes, and the time for one long number grows with the square of its digits. So the events are
counted first, and an alias counts as what it stands for.
"""

from __future__ import annotations

import codecs
import os
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass

import yaml

from kubelocal.errors import SettingError
from kubelocal.types import Json

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_VALUES", "parse", "read_text"]

MAX_BYTES = 1024 * 1024
"""Bytes of a file: what the API server accepts of one object."""

MAX_DEPTH = 100
"""Levels of lists and mappings; a pod has about 12."""

MAX_VALUES = 100_000
"""Values, with each alias counted as what it stands for."""

_MAX_DIGITS = 20  # 2**64 has 20
_MAX_CHARACTERS = 4 * MAX_BYTES
_Loader: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_text(path: str | os.PathLike[str], *, what: str = "file", pipes: bool = False) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark.

    ``what``: the kind of file, for messages. ``pipes``: the path is a command's argument, so that pipes and devices
    (``/dev/stdin``, ``<(...)``) and "-" for standard input are allowed. Raises ``SettingError`` with path and reason.
    """
    name = os.fspath(path)
    try:
        if pipes and name == "-":
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            # a FIFO would block its reader for ever, /dev/zero would take all memory
            if not pipes and not stat.S_ISREG(os.stat(path).st_mode):
                raise SettingError(f"{what} {name} cannot be read: it is not a regular file; correct the path")
            with open(path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SettingError(f"{what} {name} cannot be read: {error.strerror or error}; correct the path") from error
    except ValueError as error:  # a NUL byte in the path
        raise SettingError(f"{what} {name!r} cannot be read: {error}; correct the path") from error
    if len(data) > MAX_BYTES:
        raise SettingError(f"{what} {name} is larger than {MAX_BYTES // 1024} KiB; remove what it does not need")
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise SettingError(
            f"{what} {name} is not UTF-8 text: {error.reason} at byte {error.start}; save it in that encoding"
        ) from None


def parse(text: str, where: str) -> Json:
    """Return the value of one YAML document, None for an empty one.

    ``where``: the file, for messages. Raises ``SettingError``: ``FILE:LINE: problem; fix``. The message repeats nothing
    of the text, which may hold secrets.
    """
    if len(text) > MAX_BYTES:
        raise SettingError(f"{where}: larger than {MAX_BYTES // 1024} KiB; remove what it does not need")
    try:
        _check_bounds(yaml.parse(text, Loader=_Loader), where)
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        place = f"{where}:{mark.line + 1}" if mark else where
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
        if "expected a single document" in str(error):
            raise SettingError(f"{place}: more than one YAML document; keep the first one only") from None
        raise SettingError(f"{place}: not readable as YAML: {problem}; correct the text there") from None
    except (ValueError, OverflowError, TypeError, AttributeError):  # the library checks these values by using them
        raise SettingError(
            f"{where}: not readable as YAML: a date, a number or a value with a tag is malformed; put text into quotes"
        ) from None
    except RecursionError:
        raise SettingError(f"{where}: nested deeper than {MAX_DEPTH} levels; use fewer levels") from None


@dataclass(slots=True)
class _Extent:
    """How much a value holds once its aliases are expanded."""

    anchor: str | None = None
    values: int = 1
    characters: int = 0
    levels: int = 0


def _check_bounds(events: Iterable[yaml.Event], where: str) -> None:
    """Raise ``SettingError`` for a document that would grow beyond the limits. Without recursion."""
    open_values = [_Extent()]
    anchors: dict[str, _Extent] = {}
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            open_values.append(_Extent(event.anchor))
            anchors.pop(event.anchor or "", None)  # used inside itself, it is not known yet
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = open_values.pop()
            ended.levels += 1
            _add(open_values[-1], ended, anchors)
        elif isinstance(event, yaml.ScalarEvent):
            if _is_long_integer(event):
                problem = f"an integer of more than {_MAX_DIGITS} digits; put it into quotes if it is text"
                raise SettingError(f"{_place(where, event)}: {problem}")
            _add(open_values[-1], _Extent(event.anchor, characters=len(event.value)), anchors)
        elif isinstance(event, yaml.AliasEvent):
            if any(extent.anchor == event.anchor for extent in open_values):
                raise SettingError(f"{_place(where, event)}: an alias within its own value; write the value out")
            if expanded := anchors.get(event.anchor or ""):  # an unknown one is the composer's to report
                _add(open_values[-1], _Extent(None, expanded.values, expanded.characters, expanded.levels), anchors)
        if problem := _excess(open_values):
            raise SettingError(f"{_place(where, event)}: {problem}, aliases counted as what they stand for")


def _add(outer: _Extent, inner: _Extent, anchors: dict[str, _Extent]) -> None:
    if inner.anchor:
        anchors[inner.anchor] = inner
    outer.values += inner.values
    outer.characters += inner.characters
    outer.levels = max(outer.levels, inner.levels)


def _excess(open_values: list[_Extent]) -> str:
    innermost = open_values[-1]
    if len(open_values) - 1 + innermost.levels > MAX_DEPTH:
        return f"nested deeper than {MAX_DEPTH} levels"
    if innermost.values > MAX_VALUES:
        return f"more than {MAX_VALUES} values"
    if innermost.characters > _MAX_CHARACTERS:
        return f"more than {_MAX_CHARACTERS} characters"
    return ""


def _is_long_integer(event: yaml.ScalarEvent) -> bool:
    """Whether a scalar is read as an integer, in any notation, that is too long to convert."""
    if len(event.value) <= _MAX_DIGITS or sum(letter.isalnum() for letter in event.value) <= _MAX_DIGITS:
        return False
    if event.tag:
        return bool(event.tag == "tag:yaml.org,2002:int")
    resolvers = yaml.SafeLoader.yaml_implicit_resolvers.get(event.value[:1], ())
    plain = not event.style and event.implicit[0]
    return plain and any(tag == "tag:yaml.org,2002:int" and form.match(event.value) for tag, form in resolvers)


def _place(where: str, event: yaml.Event) -> str:
    return f"{where}:{event.start_mark.line + 1}" if event.start_mark else where
