"""Sidecars that users describe: the text of ``[crosswind] sidecars_file``, in the shape of ``KnownSidecar``.

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

A ``port``, ``path``, ``wait`` and so on is a value, or a mapping with ``default`` and where pods say another one:
``annotations``, ``flags`` (of the command line), ``env``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from crosswind.bounded_yaml import parse_with_nodes
from crosswind.errors import ConfigError
from crosswind.pods.documents import doubled, told
from crosswind.pods.known_sidecars import Ask, KnownSidecar, Setting
from crosswind.pods.shape import Path, Problem
from crosswind.types import Json

__all__ = ["parse_sidecars"]

_SETTINGS = ("port", "path", "enabled", "wait", "signal_zero")
_ADAPTER = TypeAdapter(tuple[KnownSidecar, ...])


def parse_sidecars(text: str, where: str) -> tuple[KnownSidecar, ...]:
    """Return the sidecars that ``text`` describes; they go before those that are known, which they may replace.

    ``where``: the file, for messages. Raises ``ConfigError``: ``FILE:LINE: FIELD what is wrong; how to mend it``, one
    line for each problem.
    """
    root, document = parse_with_nodes(text, where, "the sidecars")
    if root is None:
        raise ConfigError(f"{where}: the file is empty; write a list of sidecars")
    found = [*doubled(root, ())]
    sidecars: tuple[KnownSidecar, ...] = ()
    if not found:
        sidecars, found = _validated(document)
    if found:
        raise ConfigError("\n".join(told(problem, root, where) for problem in found))
    return sidecars


def _validated(document: Json) -> tuple[tuple[KnownSidecar, ...], list[Problem]]:
    if not isinstance(document, dict) or set(document) != {"sidecars"}:
        return (), [Problem((), "is not a list of sidecars", "write a mapping with the one key sidecars")]
    try:
        sidecars = _ADAPTER.validate_python(_spelt_out(document["sidecars"]))
    except ValidationError as error:
        return (), [_problem(dict(one)) for one in error.errors(include_url=False)]
    return sidecars, [*_bad_ports(sidecars)]


def _bad_ports(sidecars: Iterable[KnownSidecar]) -> Iterator[Problem]:
    for number, sidecar in enumerate(sidecars):
        for place, ask in enumerate(sidecar.asks):
            port = ask.port.default
            if not port.isdigit() or not 0 < int(port) < 65536:
                path = ("sidecars", number, "asks", place, "port")
                yield Problem(path, f"is {port!r}", "give the port's number, from 1 to 65535")


def _problem(error: dict[str, Any]) -> Problem:
    """Say what pydantic found, where the user wrote it."""
    path: Path = ("sidecars", *error["loc"])
    if error["type"] == "missing":
        return Problem(path, "is not set", "give it")
    if error["type"] == "unexpected_keyword_argument":
        return Problem(path, "is not a field", f"there are {', '.join(_fields(path))}")
    return Problem(path, f"is {error['input']!r}", str(error["msg"])[0].lower() + str(error["msg"])[1:])


def _fields(path: Path) -> list[str]:
    inside = [part for part in path[:-1] if isinstance(part, str)]
    shape = Setting if inside[-1] in _SETTINGS else Ask if inside[-1] in ("asks", "ready") else KnownSidecar
    return [one.name for one in fields(shape)]


def _spelt_out(value: Json, field: str = "") -> Json:
    """Write plain values of settings as mappings with a default."""
    if isinstance(value, dict):
        return {key: _spelt_out(item, str(key)) for key, item in value.items()} | _text(value, "default")
    if isinstance(value, list):
        return [_spelt_out(item) for item in value]
    if field in _SETTINGS and isinstance(value, str | int | float | bool):
        return _text({"default": value}, "default")
    return value


def _text(value: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a value as text, if it is a plain one."""
    found = value.get(key)
    if not isinstance(found, str | int | float | bool):
        return {}
    return {key: str(found).lower() if isinstance(found, bool) else str(found)}
