"""CREATE and DROP in forms that sqlglot does not know: the table's name, whether it is temporary, and its query."""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlglot import exp
from sqlglot.errors import SqlglotError

from crosswind.tasks.sql.effects import Did, Effect
from crosswind.tasks.sql.names import Names
from crosswind.tasks.sql.phrases import NAME

__all__ = ["created", "dropped"]

_CREATE = re.compile(
    rf"\s*(?:CREATE|REPLACE)\s+(?P<words>(?:[A-Za-z_]+\s+)*?)(?P<kind>TABLE|VIEW|MODEL|DICTIONARY|QUERY)\s+"
    rf"(?:IF\s+NOT\s+EXISTS\s+)?(?P<name>{NAME})(?P<rest>.*)\Z",
    re.IGNORECASE | re.DOTALL,
)
_OTHER = re.compile(r"\s*(?:CREATE|REPLACE)\s+(?:OR\s+(?:REPLACE|ALTER)\s+)?[A-Za-z_]+", re.IGNORECASE)
_QUERY = re.compile(
    r"\bAS\s*(?P<query>(?:\(\s*)*(?:SELECT|SEL|WITH|FROM|VALUES|TABLE|PIVOT|UNPIVOT)\b.*)", re.I | re.DOTALL
)
_SOURCE = re.compile(rf"\A\s*\(?\s*(?:(?:DEEP|SHALLOW)\s+)?(?:LIKE|CLONE|COPY)\s+(?P<name>{NAME})", re.IGNORECASE)
_TEMPORARY = {"TEMP", "TEMPORARY", "VOLATILE"}
_DROP = re.compile(
    rf"\s*DROP\s+(?:(?:TEMPORARY|EXTERNAL|MATERIALIZED|DYNAMIC|SNAPSHOT|ICEBERG|STREAMING|LIVE)\s+)*(?:TABLE|VIEW|MODEL)\s+"
    rf"(?:IF\s+EXISTS\s+)?(?P<names>{NAME}(?:\s*,\s*{NAME})*)",
    re.IGNORECASE,
)


def created(text: str, line: int, names: Names, query: Callable[[str, int], list[Effect]]) -> list[Effect]:
    """Return what a CREATE does; nothing if it makes no table, or not even that can be told. ``query`` reads one."""
    found = _CREATE.match(text)
    if not found:
        return [Effect(Did.HIDDEN)] if _OTHER.match(text) and not re.search(r"\bTABLE|\bVIEW", text[:60], re.I) else []
    effects: list[Effect] = []
    rest, place = found["rest"], found.start("rest")
    if inner := _QUERY.search(rest):
        at = line + text.count("\n", 0, place + inner.start("query"))
        effects = query(inner["query"], at)
    elif source := _SOURCE.match(rest):
        effects = [Effect(Did.READ, _parts(source["name"], names), line)]
    temporary = bool(_TEMPORARY & set(found["words"].upper().split()))
    effects.append(Effect(Did.TEMPORARY if temporary else Did.MAKE, _parts(found["name"], names), line))
    return effects


def dropped(text: str, line: int, names: Names) -> list[Effect]:
    """Return the tables that a DROP takes away."""
    found = _DROP.match(text)
    return (
        [Effect(Did.DROP, _parts(name, names), line) for name in re.split(r"\s*,\s*", found["names"])] if found else []
    )


def _parts(name: str, names: Names) -> tuple[str, ...]:
    try:
        return names.parts(exp.to_table(name, dialect=names.dialect))
    except (SqlglotError, ValueError):
        return ()
