"""The state of a session while the statements of a file run: temporary tables, created tables, current schema."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from crosswind.tasks.sql.effects import Effect, EffectKind
from crosswind.tasks.sql.names import Parts, TableNames, made_up

__all__ = ["SqlSession"]

_HIDES_BY_FULL_NAME = {"mysql", "snowflake", "teradata", "oracle", "hive", "doris", "starrocks", "singlestore"}
"""Dialects in which a temporary table belongs to a schema, and hides the table of the same full name."""
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
"""The schema that may qualify the name of a temporary table."""
_MOVES_TO_CURRENT = {"mysql", "hive", "snowflake"}
"""Dialects in which a renamed table moves to the session's schema if its new name has none."""


class SqlSession:
    """Applies the effects of the statements in order, and collects the tables that the file reads and writes."""

    def __init__(self, names: TableNames) -> None:
        self._names = names
        self._default = names.default
        self._temporary: dict[Parts, str] = {}
        """Temporary tables, with the full name that each had when it was created."""
        self._created: set[str] = set()
        """Tables that exist because the file has created them."""
        self.reads: dict[str, int] = {}
        self.writes: dict[str, None] = {}
        self.unread: list[tuple[int, str]] = []
        self.no_query: tuple[int, str] | None = None
        self.complete = True

    def run(self, effects: Iterable[Effect]) -> None:
        """Apply the effects of one statement."""
        for effect in effects:
            if effect.action in _NAMING and not (effect.table and (effect.other or effect.action not in _PAIRS)):
                self.complete = False  # the name is an expression, which only the database can evaluate
                continue
            _STEPS[effect.action](self, effect)

    def move_to_template(self, line_of: Callable[[int], int], *, complete: bool) -> None:
        """Replace lines of the rendered text by lines of its template; ``complete``: nothing but values is missing."""
        self.complete = self.complete and complete
        self.reads = {name: line_of(line) for name, line in self.reads.items()}
        self.unread = [(line_of(line), reason) for line, reason in self.unread]
        if self.no_query:
            self.no_query = (line_of(self.no_query[0]), self.no_query[1])

    def _full(self, parts: Parts) -> str:
        return self._names.full(parts, self._default)

    def _is_temporary(self, parts: Parts) -> bool:
        if parts[-1].startswith("#") or parts in self._temporary:
            return True
        if self._in_session_schema(parts):
            return True
        return self._names.name in _HIDES_BY_FULL_NAME and self._full(parts) in self._temporary.values()

    def _in_session_schema(self, parts: Parts) -> bool:
        return len(parts) == 2 and parts[0].lower() == _SESSION_SCHEMAS.get(self._names.name)

    def _outside(self, parts: Parts) -> str:
        """Return the full name of a table that outlives the session; "" for temporary and generated tables."""
        if not parts or self._is_temporary(parts):
            return ""
        full = self._full(parts)
        if made_up(full):
            self.complete = self.complete and full in self._created
            return ""
        return full

    def _read(self, effect: Effect) -> None:
        if not effect.table or (self._names.is_row(effect.table) and not self._is_temporary(effect.table)):
            return
        if self._names.is_system(effect.table):
            self.complete = False  # a task file may name a system table, or not
            return
        if (name := self._outside(effect.table)) and name not in self._created:
            self.reads.setdefault(name, effect.line)

    def _make(self, effect: Effect) -> None:
        if not effect.table or effect.table[-1].startswith("#"):
            return
        if self._in_session_schema(effect.table):
            self._make_temporary(effect)
            return
        self._temporary.pop(effect.table, None)
        self._created.add(self._full(effect.table))
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
            self._created.discard(name)
            self.writes.pop(name, None)

    def _rename(self, effect: Effect) -> None:
        old, new = effect.table, self._moved(effect.table, effect.other)
        if self._is_temporary(old):
            self._temporary.pop(old, None)
            self._temporary[effect.other] = self._full(effect.other)
            return
        name, new_name = self._full(old), self._full(new)
        if name in self._created:
            self._created.discard(name)
            self._created.add(new_name)
        elif not made_up(name) and name not in self.writes:
            self.reads.setdefault(name, effect.line)
        self.writes.pop(name, None)
        if made_up(new_name):
            self.complete = False
        else:
            self.writes.setdefault(new_name)

    def _moved(self, old: Parts, new: Parts) -> Parts:
        """Return the full new name of a renamed table: in the schema of the old one unless the statement names one."""
        if len(new) >= len(old) or (self._default and self._names.name in _MOVES_TO_CURRENT):
            return new
        return (*old[: len(old) - len(new)], *new)

    def _swap(self, effect: Effect) -> None:
        tables = [self._full(table) for table in (effect.table, effect.other)]
        if self._created.isdisjoint(tables):
            for table in (effect.table, effect.other):
                self._read(Effect(EffectKind.READ, table, effect.line))
        else:
            self._created.update(tables)
        for table in (effect.table, effect.other):
            self._change(Effect(EffectKind.CHANGE, table, effect.line))

    def _use_schema(self, effect: Effect) -> None:
        above = self._default[:-1] if len(effect.table) == 1 else ()
        self._default = (*above, *effect.table)

    def _use_catalog(self, effect: Effect) -> None:
        schema = self._default[-1:] if len(self._default) > 1 or len(self._names.default) == 1 else ()
        self._default = (*effect.table, *(schema or _schema_of(self._names.name)))

    def _reset(self, _: Effect) -> None:
        self._default = self._names.default

    def _hidden(self, _: Effect) -> None:
        self.complete = False

    def _unknown(self, effect: Effect) -> None:
        self.complete = False
        if effect.fatal:
            self.no_query = self.no_query or (effect.line, effect.reason)
        else:
            self.unread.append((effect.line, effect.reason))


def _schema_of(dialect: str) -> Parts:
    """Return the session's schema after it has changed to another database."""
    return {"snowflake": ("PUBLIC",), "tsql": ("dbo",), "fabric": ("dbo",), "trino": ("default",)}.get(
        dialect, ("default",)
    )


_PAIRS = {EffectKind.RENAME, EffectKind.SWAP}
_NAMING = {*EffectKind} - {EffectKind.RESET, EffectKind.HIDDEN, EffectKind.UNKNOWN}
_STEPS = {
    EffectKind.READ: SqlSession._read,
    EffectKind.MAKE: SqlSession._make,
    EffectKind.CHANGE: SqlSession._change,
    EffectKind.TEMPORARY: SqlSession._make_temporary,
    EffectKind.DROP: SqlSession._drop,
    EffectKind.RENAME: SqlSession._rename,
    EffectKind.SWAP: SqlSession._swap,
    EffectKind.USE_SCHEMA: SqlSession._use_schema,
    EffectKind.USE_CATALOG: SqlSession._use_catalog,
    EffectKind.RESET: SqlSession._reset,
    EffectKind.HIDDEN: SqlSession._hidden,
    EffectKind.UNKNOWN: SqlSession._unknown,
}
