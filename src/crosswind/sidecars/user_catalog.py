"""Parses the sidecars that users describe, the text of ``[crosswind] sidecars_file``, into ``KnownSidecar`` rows.

::

    sidecars:
      - name: pgcat
        containers: [pgcat]
        images: ["*/pgcat:*"]
        role: helper                # shipper, helper, mesh or last
        asks:
          - {port: 6432, path: /quit, method: POST}
        wait: 10
        signal: INT
        shells: ["*-alpine"]

Each of ``port``, ``path``, ``wait`` and so on is a value, or a mapping with ``default`` and the places where a pod may
set another value: ``annotations``, ``flags`` (of the command line), ``env``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from crosswind.documents import FieldPath, FieldProblem, parse_document
from crosswind.errors import ConfigError
from crosswind.sidecars.catalog import Endpoint, KnownSidecar, Setting
from crosswind.types import Json

__all__ = ["parse_sidecars"]

_SETTINGS = ("port", "path", "enabled", "wait", "signal_zero")
_ADAPTER = TypeAdapter(tuple[KnownSidecar, ...])


def parse_sidecars(text: str, where: str) -> tuple[KnownSidecar, ...]:
    """Return the sidecars that ``text`` describes; they precede the built-in ones, and may replace them.

    ``where``: the file, for messages. Raises ``ConfigError``: ``FILE:LINE: FIELD the problem; the fix``, one line per
    problem.
    """
    document = parse_document(text, where, "the sidecars")
    if document.root is None:
        raise ConfigError(f"{where}: the file is empty; write a list of sidecars")
    problems = [*document.repeated_keys]
    sidecars: tuple[KnownSidecar, ...] = ()
    if not problems:
        sidecars, problems = _validated(document.content)
    if problems:
        raise ConfigError(document.describe(problems))
    return sidecars


def _validated(document: Json) -> tuple[tuple[KnownSidecar, ...], list[FieldProblem]]:
    if not isinstance(document, dict) or set(document) != {"sidecars"}:
        return (), [FieldProblem((), "is not a list of sidecars", "write a mapping with the one key sidecars")]
    try:
        sidecars = _ADAPTER.validate_python(_spelt_out(document["sidecars"]))
    except ValidationError as error:
        return (), [_problem(dict(item)) for item in error.errors(include_url=False)]
    return sidecars, [*_bad_ports(sidecars)]


def _bad_ports(sidecars: Iterable[KnownSidecar]) -> Iterator[FieldProblem]:
    for number, sidecar in enumerate(sidecars):
        for place, ask in enumerate(sidecar.asks):
            port = ask.port.default
            if not port.isdigit() or not 0 < int(port) < 65536:
                path = ("sidecars", number, "asks", place, "port")
                yield FieldProblem(path, f"is {port!r}", "give the port's number, from 1 to 65535")


def _problem(error: dict[str, Any]) -> FieldProblem:
    """Translate an error of pydantic to the user's field."""
    path: FieldPath = ("sidecars", *error["loc"])
    if error["type"] == "missing":
        return FieldProblem(path, "is not set", "give it")
    if error["type"] == "unexpected_keyword_argument":
        return FieldProblem(path, "is not a field", f"there are {', '.join(_fields(path))}")
    return FieldProblem(path, f"is {error['input']!r}", str(error["msg"])[0].lower() + str(error["msg"])[1:])


def _fields(path: FieldPath) -> list[str]:
    inside = [part for part in path[:-1] if isinstance(part, str)]
    shape = Setting if inside[-1] in _SETTINGS else Endpoint if inside[-1] in ("asks", "ready") else KnownSidecar
    return [item.name for item in fields(shape)]


def _spelt_out(value: Json, field: str = "") -> Json:
    """Replace the plain values of settings by mappings with a default."""
    if isinstance(value, dict):
        return {key: _spelt_out(item, str(key)) for key, item in value.items()} | _text(value, "default")
    if isinstance(value, list):
        return [_spelt_out(item) for item in value]
    if field in _SETTINGS and isinstance(value, str | int | float | bool):
        return _text({"default": value}, "default")
    return value


def _text(value: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a plain value as text, {} for a list, a mapping or none."""
    plain = value.get(key)
    if not isinstance(plain, str | int | float | bool):
        return {}
    return {key: str(plain).lower() if isinstance(plain, bool) else str(plain)}
