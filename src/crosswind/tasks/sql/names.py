"""Full names of tables, normalised by the dialect, so that ``Orders`` and ``sales.orders`` can be the same table."""

from __future__ import annotations

import copy
from functools import lru_cache

from sqlglot import exp
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import ErrorLevel, SqlglotError

from crosswind.tasks.sql.lexing import tokenizer_of

__all__ = ["HOLE", "VALUE", "Parts", "TableNames", "made_up", "names_of"]

HOLE = "jinja_hole"
"""Replaces text that a template generates when the task runs; a table of such a name is unknown until then."""
VALUE = "bound_value"
"""Replaces a value that the driver binds, such as ``%(day)s``; it is never a table."""

Parts = tuple[str, ...]
"""The parts of a name as it is written, each normalised."""

_DEFAULT_SCHEMAS = {"tsql": "dbo", "fabric": "dbo", "snowflake": "PUBLIC"}
"""The schema of ``database..table``."""
_FILE_FORMATS = {"parquet", "delta", "csv", "json", "orc", "avro", "text", "binaryfile"}
_PG_FAMILY = {"postgres", "redshift", "materialize", "risingwave"}
_CATALOGS = {
    "tsql": {"sys"},
    "fabric": {"sys"},
    "mysql": {"sys", "mysql", "performance_schema"},
    "oracle": {"SYS"},
    "clickhouse": {"system"},
    "teradata": {"dbc"},
    "trino": {"system"},
    "presto": {"system"},
}
_DUAL = {"dual", "sysdummy1"}
_ANYWHERE = {"information_schema", "pg_catalog"}


def made_up(name: str) -> bool:
    """Return whether a template or a driver determines the name when the task runs."""
    lowered = name.lower()
    return HOLE in lowered or VALUE in lowered


class TableNames:
    """The rules of one dialect. ``default``: the parts of the schema of unqualified tables."""

    def __init__(self, dialect: Dialect, name: str, default_schema: str) -> None:
        self.dialect, self.name = dialect, name
        self.tokenizer = tokenizer_of(dialect)
        self.parser = dialect.parser()
        self.lenient = dialect.parser(error_level=ErrorLevel.IGNORE)
        self.in_script = False
        """Whether the text is the body of a script, where ``SELECT … INTO`` sets a variable."""
        self._name_tokenizer = dialect.tokenizer()
        self._known: dict[str, str] = {}
        self.default: Parts = ()
        if default_schema:
            self.default = tuple(self.of_text(default_schema).split("."))

    def as_script(self) -> TableNames:
        """Return the same rules for the text of a script."""
        names = copy.copy(self)
        names.in_script = True
        return names

    def of_text(self, name: str) -> str:
        """Return the full name of a table that is written in a task file."""
        if name not in self._known:
            try:
                self._known[name] = self.full(self.parts(self.table(name)), self.default)
            except (SqlglotError, ValueError):
                self._known[name] = name
        return self._known[name]

    def table(self, name: str) -> exp.Table:
        """Return the table of a name that is given as text, as ``exp.to_table`` does, which creates a parser for it.

        Raises ``SqlglotError`` or ``ValueError`` if it is no name.
        """
        try:
            trees = self.parser.parse_into(exp.Table, self._name_tokenizer.tokenize(name), name)
        except SqlglotError:
            trees = []
        tree = trees[0] if len(trees) == 1 else None
        try:
            return tree if isinstance(tree, exp.Table) else exp.to_table(name, dialect=self.dialect)
        except TypeError as error:  # of sqlglot's compiled code, for a statement in place of a name
            raise ValueError(f"no name of a table: {name}") from error

    def parts(self, table: exp.Table) -> Parts:
        """Return the parts of a table's name. T-SQL's ``#`` is kept: ``#orders`` is never ``orders``."""
        parts = [self.part(part) for part in table.parts if isinstance(part, exp.Identifier)]
        if table.args.get("catalog") and table.args.get("db") == "" and len(parts) == 2:
            parts.insert(1, self.default[-1] if self.default else _DEFAULT_SCHEMAS.get(self.name, ""))
        if parts and parts[-1].startswith("#"):
            return (parts[-1],)
        return tuple(parts)

    def part(self, part: exp.Identifier) -> str:
        """Return one part, normalised."""
        part.meta["is_table"] = True  # in BigQuery only the names of tables are case-sensitive
        name = str(self.dialect.normalize_identifier(part).name)
        if part.args.get("temporary") or part.args.get("global_"):
            return f"{'##' if part.args.get('global_') else '#'}{name}"
        if "$" in name[1:] and self.name in {"bigquery", "trino", "presto", "athena"}:
            return name[: name.index("$", 1)]  # a partition of the table, or its metadata
        return name

    def full(self, parts: Parts, default: Parts) -> str:
        """Return the full name. ``default``: the schema of unqualified tables at this point of the text."""
        missing = max(0, len(default) + 1 - len(parts))
        return ".".join([*default[:missing], *parts])

    def is_row(self, parts: Parts) -> bool:
        """Return whether it is a table of one row, such as Oracle's DUAL, which queries without a table name."""
        lowered = [part.lower() for part in parts]
        return lowered[-1] in _DUAL and (len(parts) == 1 or lowered[-2] in {"sys", "sysibm"})

    def is_system(self, parts: Parts) -> bool:
        """Return whether it is one of the database's system tables, which no task makes."""
        lowered = [part.lower() for part in parts]
        if _ANYWHERE & {word for part in lowered for word in part.split(".")}:
            return True
        if len(parts) == 1:
            if self.name in _PG_FAMILY and lowered[0].startswith(("pg_", "stl_", "svv_", "svl_", "stv_", "sys_query")):
                return True
            return self.name == "sqlite" and lowered[0] in {"sqlite_master", "sqlite_schema"}
        return bool(_CATALOGS.get(self.name, set()) & set(parts[:-1]))

    def is_file(self, table: exp.Table, parts: Parts) -> bool:
        """Return whether it is a path in place of a table's name: ``parquet.`/a/b``` or ``'x.csv'``."""
        path = parts[-1] if parts else ""
        looks_like_path = "." in path or "/" in path
        if len(parts) == 2:
            return looks_like_path and parts[0].lower() in _FILE_FORMATS
        if len(parts) != 1:
            return False
        if "://" in path or path.startswith("/"):
            return True
        is_quoted = isinstance(table.this, exp.Identifier) and bool(table.this.args.get("quoted"))
        return is_quoted and looks_like_path and self.name == "duckdb"


@lru_cache(maxsize=16)
def names_of(dialect: str, default_schema: str) -> TableNames:
    """Return the rules of a dialect with a default schema."""
    return TableNames(Dialect.get_or_raise(dialect), dialect.split(",")[0].strip().lower(), default_schema)
