"""Reads CREATE and DROP in forms that sqlglot does not parse: the table's name, its lifetime, and its query."""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlglot.errors import SqlglotError

from crosswind.tasks.sql.effects import Effect, EffectKind
from crosswind.tasks.sql.names import TableNames
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


def created(text: str, line: int, names: TableNames, query: Callable[[str, int], list[Effect]]) -> list[Effect]:
    """Return the effects of a CREATE; none if it is not understood. ``query`` returns those of a query and its line."""
    create = _CREATE.match(text)
    if not create:
        creates_other = _OTHER.match(text) and not re.search(r"\bTABLE|\bVIEW", text[:60], re.I)
        return [Effect(EffectKind.HIDDEN)] if creates_other else []
    effects: list[Effect] = []
    rest, start = create["rest"], create.start("rest")
    if inner := _QUERY.search(rest):
        effects = query(inner["query"], line + text.count("\n", 0, start + inner.start("query")))
    elif source := _SOURCE.match(rest):
        effects = [Effect(EffectKind.READ, _parts(source["name"], names), line)]
    temporary = bool(_TEMPORARY & set(create["words"].upper().split()))
    effects.append(Effect(EffectKind.TEMPORARY if temporary else EffectKind.MAKE, _parts(create["name"], names), line))
    return effects


def dropped(text: str, line: int, names: TableNames) -> list[Effect]:
    """Return the effects of a DROP."""
    drop = _DROP.match(text)
    dropped_names = re.split(r"\s*,\s*", drop["names"]) if drop else []
    return [Effect(EffectKind.DROP, _parts(name, names), line) for name in dropped_names]


def _parts(name: str, names: TableNames) -> tuple[str, ...]:
    try:
        return names.parts(names.table(name))
    except (SqlglotError, ValueError):
        return ()
