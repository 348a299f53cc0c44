"""The state of a session while the statements of a file run: names of its own, tables made so far, the schema."""

from __future__ import annotations

from collections.abc import Iterable

from crosswind.tasks.sql.effects import Did, Effect
from crosswind.tasks.sql.names import Names, Parts, made_up

__all__ = ["Session"]

_HIDING = {"mysql", "snowflake", "teradata", "oracle", "hive", "doris", "starrocks", "singlestore"}
"""Where a temporary table belongs to a schema, and hides the table of the same full name."""
_SESSION_SCHEMAS = {
    "postgres": "pg_temp",
    "redshift": "pg_temp",
    "bigquery": "_session",
    "duckdb": "temp",
    "sqlite": "temp",
    "spark": "global_temp",
    "databricks": "global_temp",
    "hive": "global_temp",
    "": "session",
}
"""The schema by which a temporary table may be named."""
_MOVES_TO_CURRENT = {"mysql", "hive", "snowflake"}
"""Where the new name of a renamed table, given without schema, is in the session's schema."""


class Session:
    """Folds effects, statement by statement, into what the file reads and makes."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._default = names.default
        self._temporary: dict[Parts, str] = {}
        """Names of the session, with the full name that each had where it was made."""
        self._made: set[str] = set()
        """Tables that are there because the file has created them."""
        self.reads: dict[str, int] = {}
        self.writes: dict[str, None] = {}
        self.unread: list[tuple[int, str]] = []
        self.no_query: tuple[int, str] | None = None
        self.complete = True

    def run(self, effects: Iterable[Effect]) -> None:
        """Apply the effects of one statement."""
        for effect in effects:
            if effect.did in _NAMING and not (effect.table and (effect.other or effect.did not in _PAIRS)):
                self.complete = False  # a name that cannot be read as one
                continue
            _STEPS[effect.did](self, effect)

    def _full(self, parts: Parts) -> str:
        return self._names.full(parts, self._default)

    def _is_temporary(self, parts: Parts) -> bool:
        if parts[-1].startswith("#") or parts in self._temporary:
            return True
        if self._in_session_schema(parts):
            return True
        return self._names.name in _HIDING and self._full(parts) in self._temporary.values()

    def _in_session_schema(self, parts: Parts) -> bool:
        return len(parts) == 2 and parts[0].lower() == _SESSION_SCHEMAS.get(self._names.name)

    def _outside(self, parts: Parts) -> str:
        """Return the full name of a table outside of the session, or "" if there is no such name."""
        if not parts or self._is_temporary(parts):
            return ""
        full = self._full(parts)
        if made_up(full):
            self.complete = self.complete and full in self._made
            return ""
        return full

    def _read(self, effect: Effect) -> None:
        if not effect.table or (self._names.is_row(effect.table) and not self._is_temporary(effect.table)):
            return
        if self._names.is_system(effect.table):
            self.complete = False  # one may name such a table in a task file, or not
            return
        if (name := self._outside(effect.table)) and name not in self._made:
            self.reads.setdefault(name, effect.line)

    def _make(self, effect: Effect) -> None:
        if not effect.table or effect.table[-1].startswith("#"):
            return
        if self._in_session_schema(effect.table):
            self._make_temporary(effect)
            return
        self._temporary.pop(effect.table, None)
        self._made.add(self._full(effect.table))
        self._change(effect)

    def _change(self, effect: Effect) -> None:
        if name := self._outside(effect.table):
            self.writes.setdefault(name)

    def _make_temporary(self, effect: Effect) -> None:
        table = effect.table
        if self._in_session_schema(table):
            table = table[1:]
        self._temporary[table] = self._full(table)

    def _drop(self, effect: Effect) -> None:
        if effect.table in self._temporary:
            del self._temporary[effect.table]
        elif effect.table and not self._is_temporary(effect.table):
            name = self._full(effect.table)
            self._made.discard(name)
            self.writes.pop(name, None)

    def _rename(self, effect: Effect) -> None:
        old, new = effect.table, self._moved(effect.table, effect.other)
        if self._is_temporary(old):
            self._temporary.pop(old, None)
            self._temporary[effect.other] = self._full(effect.other)
            return
        name, new_name = self._full(old), self._full(new)
        if name in self._made:
            self._made.discard(name)
            self._made.add(new_name)
        elif not made_up(name) and name not in self.writes:
            self.reads.setdefault(name, effect.line)
        self.writes.pop(name, None)
        if made_up(new_name):
            self.complete = False
        else:
            self.writes.setdefault(new_name)

    def _moved(self, old: Parts, new: Parts) -> Parts:
        """Return a table's new name: beside the old one, where it does not say otherwise."""
        if len(new) >= len(old) or (self._default and self._names.name in _MOVES_TO_CURRENT):
            return new
        return (*old[: len(old) - len(new)], *new)

    def _swap(self, effect: Effect) -> None:
        tables = [self._full(table) for table in (effect.table, effect.other)]
        if self._made.isdisjoint(tables):
            for table in (effect.table, effect.other):
                self._read(Effect(Did.READ, table, effect.line))
        else:
            self._made.update(tables)
        for table in (effect.table, effect.other):
            self._change(Effect(Did.CHANGE, table, effect.line))

    def _use_schema(self, effect: Effect) -> None:
        above = self._default[:-1] if len(effect.table) == 1 else ()
        self._default = (*above, *effect.table)

    def _use_catalog(self, effect: Effect) -> None:
        schema = self._default[-1:] if len(self._default) > 1 or len(self._names.default) == 1 else ()
        self._default = (*effect.table, *(schema or _schema_of(self._names.name)))

    def _reset(self, effect: Effect) -> None:
        self._default = self._names.default

    def _hidden(self, effect: Effect) -> None:
        self.complete = False

    def _unknown(self, effect: Effect) -> None:
        self.complete = False
        if effect.fatal:
            self.no_query = self.no_query or (effect.line, effect.reason)
        else:
            self.unread.append((effect.line, effect.reason))


def _schema_of(dialect: str) -> Parts:
    """Return the schema in which a session begins after it has changed to another database."""
    return {"snowflake": ("PUBLIC",), "tsql": ("dbo",), "fabric": ("dbo",), "trino": ("default",)}.get(
        dialect, ("default",)
    )


_PAIRS = {Did.RENAME, Did.SWAP}
_NAMING = {*Did} - {Did.RESET, Did.HIDDEN, Did.UNKNOWN}
_STEPS = {
    Did.READ: Session._read,
    Did.MAKE: Session._make,
    Did.CHANGE: Session._change,
    Did.TEMPORARY: Session._make_temporary,
    Did.DROP: Session._drop,
    Did.RENAME: Session._rename,
    Did.SWAP: Session._swap,
    Did.USE_SCHEMA: Session._use_schema,
    Did.USE_CATALOG: Session._use_catalog,
    Did.RESET: Session._reset,
    Did.HIDDEN: Session._hidden,
    Did.UNKNOWN: Session._unknown,
}
