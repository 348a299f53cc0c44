"""What a query reads and makes, by sqlglot. Loaded only for queries that the cache does not know."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache

from sqlglot import exp, parse
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import SqlglotError

from crosswind.tasks.facts import QueryFacts

__all__ = ["check_dialect", "read_query"]

logging.getLogger("sqlglot").setLevel(logging.ERROR)  # its warnings say without a place what our problems say with one

_JINJA = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_REPLACE = re.compile(r"(^|;)(\s*)REPLACE(\s+INTO\b)", re.IGNORECASE)
_SIGNS = re.compile(r"[^\w\s:,]")
_JOINS = re.compile(r"\b(?:JOIN|ON|USING|SELECT)\b", re.IGNORECASE)
_MAX_DEPTH = 500
_DEEP = "nested too deeply"
_HOLE = "jinja_hole"
"""Stands for what a template fills in when the task runs; a table of such a name is not known before."""


def check_dialect(name: str) -> str:
    """Return why there is no dialect of that name, or ""."""
    try:
        Dialect.get_or_raise(name)
    except ValueError as error:
        return str(error)
    return ""


def read_query(sql: str, names: Sequence[str], dialect: str, default_schema: str) -> QueryFacts:
    """Return what ``sql``, Jinja in it or not, reads and makes, and ``names`` normalised as the dialect does.

    Temporary tables and common table expressions belong to the query itself and are left out. ``default_schema``
    (``schema`` or ``catalog.schema``) qualifies names that say less.
    """
    rules = _rules(dialect, default_schema)
    normalised = tuple(rules.of_text(name) for name in names)
    statements, problem = _statements(sql, rules.dialect)
    if problem:
        return QueryFacts(names=normalised, problem=problem)
    targets = [(rules.of_table(target), passing) for one in statements for target, passing in one.targets]
    own = {name for name, passing in targets if passing} | _dropped(statements, rules)
    return QueryFacts(
        reads={name: line for name, line in sorted(_reads(statements, rules).items()) if _known(name, own)},
        writes=tuple(dict.fromkeys(name for name, passing in targets if not passing and _known(name, own))),
        names=normalised,
    )


@dataclass(frozen=True, slots=True)
class _Statement:
    """A statement, and the tables that it makes or changes, each with whether it is temporary."""

    tree: exp.Expr
    targets: list[tuple[exp.Table, bool]]


def _statements(sql: str, dialect: Dialect) -> tuple[list[_Statement], tuple[int, str] | None]:
    """Return the statements, or line and reason why they cannot be read."""
    if _nested_deeply(sql):
        return [], (0, _DEEP)
    try:
        found = [_Statement(one, list(_targets(one))) for one in parse(_plain(sql), dialect=dialect) if one]
    except (SqlglotError, RecursionError) as error:
        return [], _problem(error)
    trees = (one.tree for one in found)
    unread = next((tree for tree in trees if isinstance(tree, exp.Command) and _matters(tree)), None)
    return found, (0, f"a statement {unread.name.upper()} that is not understood") if unread else None


def _known(name: str, own: set[str]) -> bool:
    """Whether a name is that of a table outside of the query, and no template makes it up."""
    return bool(name) and name not in own and _HOLE not in name.lower()


def _reads(statements: Sequence[_Statement], rules: _Names) -> dict[str, int]:
    """Return the tables that statements read, each with its first line."""
    reads: dict[str, int] = {}
    for statement in statements:
        if isinstance(statement.tree, exp.Drop | exp.Execute):
            continue
        written = {id(target) for target, _ in statement.targets}
        local = {one.alias.lower() for one in statement.tree.find_all(exp.CTE)}
        for table in statement.tree.find_all(exp.Table):
            if id(table) not in written and not _is_local(table, local):
                reads.setdefault(rules.of_table(table), _line(table))
    return reads


def _nested_deeply(sql: str) -> bool:
    """Whether brackets, types or joins nest so deeply that sqlglot might exhaust the stack.

    Python would raise ``RecursionError``; the compiled parser takes the whole process down.
    """
    if sum(map(sql.count, "([{<")) + len(_JOINS.findall(sql)) <= _MAX_DEPTH:
        return False
    depth = angles = joins = 0
    for sign in _SIGNS.findall(sql):
        depth = max(0, depth + (sign in "([{") - (sign in ")]}"))
        angles = angles + 1 if sign == "<" else 0  # ARRAY<ARRAY<…, with nothing but words between
        if depth > _MAX_DEPTH or angles > _MAX_DEPTH:
            return True
    for word in map(str.upper, _JOINS.findall(sql)):
        joins = 0 if word == "SELECT" else max(0, joins + (1 if word == "JOIN" else -1))  # a JOIN b JOIN c … ON … ON …
        if joins > _MAX_DEPTH:
            return True
    return False


def _plain(sql: str) -> str:
    """Replace Jinja's expressions by a name, take its statements out, make REPLACE an INSERT; line numbers stay."""

    def replacement(found: re.Match[str]) -> str:
        newlines = "\n" * found[0].count("\n")
        return (_HOLE if found[0].startswith("{{") else " ") + newlines

    return _REPLACE.sub(r"\1\2INSERT\3", _JINJA.sub(replacement, sql))


def _problem(error: Exception) -> tuple[int, str]:
    details = getattr(error, "errors", None) or [{}]
    reason = details[0].get("description") or str(error).splitlines()[0]
    if isinstance(error, RecursionError):
        reason = _DEEP
    return int(details[0].get("line") or 0), re.sub(r"\x1b\[\d*m", "", reason)


def _matters(command: exp.Command) -> bool:
    """Whether a statement that sqlglot only passes through may read or make a table."""
    return command.name.upper() not in {"SET", "SHOW", "GRANT", "REVOKE", "CALL", "VACUUM", "OPTIMIZE", "EXPLAIN"}


def _targets(statement: exp.Expr) -> Iterator[tuple[exp.Table, bool]]:
    """Yield the tables that a statement makes or changes, and whether each is temporary."""
    for node in statement.find_all(exp.Insert, exp.Create, exp.Merge, exp.Update, exp.Delete, exp.Into, exp.Copy):
        if isinstance(node, exp.Create) and str(node.args.get("kind") or "").upper() not in {"TABLE", "VIEW"}:
            continue
        if isinstance(node, exp.Copy) and not node.args.get("kind"):
            continue  # COPY … TO: the table is read
        target = node.this.this if isinstance(node.this, exp.Schema) else node.this
        if isinstance(target, exp.Table):
            yield target, _temporary(node)


def _temporary(node: exp.Expr) -> bool:
    properties = node.args.get("properties")
    return bool(node.args.get("temporary") or (properties and properties.find(exp.TemporaryProperty)))


def _dropped(statements: Sequence[_Statement], rules: _Names) -> set[str]:
    """Return the tables that are gone at the end; one that is dropped to be made anew is not."""
    gone: dict[str, bool] = {}
    for statement in statements:
        if isinstance(statement.tree, exp.Drop):
            gone |= {rules.of_table(table): True for table in statement.tree.find_all(exp.Table)}
        gone |= {rules.of_table(target): False for target, _ in statement.targets}
    return {name for name, dropped in gone.items() if dropped}


def _is_local(table: exp.Table, expressions: Set[str]) -> bool:
    """Whether the name is that of one of the common table expressions, or no table's name at all."""
    if not isinstance(table.this, exp.Identifier):
        return True  # a function
    if table.args.get("db") or table.name.lower() not in expressions:
        return False
    above = [table, *_ancestors(table)]
    return any(_visible(table.name, node, above) for node in above)


def _ancestors(node: exp.Expr) -> Iterator[exp.Expr]:
    while node.parent is not None:
        node = node.parent
        yield node


def _visible(name: str, node: exp.Expr, above: Sequence[exp.Expr]) -> bool:
    """Whether ``node`` has a WITH whose ``name`` is seen at a place with these nodes ``above``.

    An expression is seen after its end, and inside itself only if it is recursive.
    """
    with_ = node.args.get("with_")
    if with_ is None:
        return False
    for expression in with_.expressions:
        inside = any(expression is one for one in above)
        if expression.alias.lower() == name.lower() and (not inside or with_.args.get("recursive")):
            return True
        if inside:
            return False
    return False


def _line(table: exp.Table) -> int:
    return int(table.this.meta.get("line") or 0)


class _Names:
    """Turns names into full, normalised ones, so that ``Orders`` and ``sales.orders`` can be the same."""

    def __init__(self, dialect: Dialect, default_schema: str) -> None:
        self.dialect = dialect
        self._known: dict[str, str] = {}
        self._default: list[str] = []
        if default_schema:
            self._default = self.of_text(default_schema).split(".")

    def of_text(self, name: str) -> str:
        if name not in self._known:
            try:
                self._known[name] = self.of_table(exp.to_table(name, dialect=self.dialect))
            except (SqlglotError, ValueError):
                self._known[name] = name
        return self._known[name]

    def of_table(self, table: exp.Table) -> str:
        parts = [self._normal(part) for part in table.parts if isinstance(part, exp.Identifier)]
        missing = max(0, len(self._default) + 1 - len(parts))
        return ".".join([*self._default[:missing], *parts])

    def _normal(self, part: exp.Identifier) -> str:
        part.meta["is_table"] = True  # BigQuery has case in names of tables and not in others
        return str(self.dialect.normalize_identifier(part).name)


@lru_cache(maxsize=16)
def _rules(dialect: str, default_schema: str) -> _Names:
    return _Names(Dialect.get_or_raise(dialect), default_schema)
