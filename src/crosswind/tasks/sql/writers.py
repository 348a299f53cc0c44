"""What each kind of statement does, told from its syntax tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlglot import exp

from crosswind.tasks.sql.effects import Did, Effect
from crosswind.tasks.sql.names import Names, Parts
from crosswind.tasks.sql.scopes import base_of, cte_of, line_of, reads_in

__all__ = ["KNOWN", "effects_of"]

_MADE = {"TABLE", "VIEW", "MODEL", "DICTIONARY", "STREAM", "STREAMING TABLE", "MATERIALIZED VIEW", "SNAPSHOT"}
_UPDATABLE = {"tsql", "fabric", ""}
"""Where a WITH may be the target of a change; elsewhere a target of such a name is a table."""
_SELECT_INTO = {"", "tsql", "fabric", "postgres", "redshift", "materialize", "risingwave"}
"""Where ``SELECT … INTO name`` makes a table; elsewhere the name is a variable's."""


class _Reader:
    """Gathers the effects of one tree: reads first, as a statement reads before it writes."""

    def __init__(self, tree: exp.Expr, names: Names) -> None:
        self.tree, self.names = tree, names
        self.skip: set[int] = set()
        self.does: list[Effect] = []

    def add(self, did: Did, table: object, other: object = None) -> None:
        """Note an effect on ``table``, if it is one, and keep the name from counting as read."""
        table = table.this if isinstance(table, exp.Schema) else table
        if not isinstance(table, exp.Table):
            return
        self.skip.add(id(table))
        if not isinstance(table.this, exp.Identifier):
            return
        parts = self.names.parts(table)
        if self.names.is_file(table, parts):
            return
        second: Parts = ()
        if isinstance(other, exp.Table):
            self.skip.add(id(other))
            second = self.names.parts(other)
        self.does.append(Effect(did, parts, line_of(table), second))

    def target(self, table: object, sources: list[exp.Expr]) -> None:
        """Note a change of ``table``, which may be the alias of one of ``sources``, or a WITH's name."""
        table = table.this if isinstance(table, exp.Schema) else table
        if not isinstance(table, exp.Table):
            base = base_of(table) if isinstance(table, exp.Expr) else None
            self.add(Did.CHANGE, base)
            return
        self.skip.add(id(table))
        meant = self._meant(table, sources)
        if meant is not None and meant is not table:
            self.add(Did.CHANGE, meant)
        else:
            self.add(Did.CHANGE, table)

    def _meant(self, table: exp.Table, sources: list[exp.Expr]) -> exp.Table | None:
        if not table.args.get("db"):
            for source in sources:
                if source is not table and source.alias_or_name.lower() == table.name.lower():
                    return self._behind(source) if isinstance(source, exp.Table) else base_of(source)
        if self.names.name not in _UPDATABLE or (isinstance(table.parent, exp.Insert) and not self.names.name):
            return table
        return self._behind(table)

    def _behind(self, table: exp.Table) -> exp.Table | None:
        """Return the table behind a WITH's name."""
        seen: exp.Table | None = table
        while seen is not None and not seen.args.get("db") and isinstance(seen.this, exp.Identifier):
            expression = cte_of(seen, seen, self.names)
            if expression is None or expression.args.get("this") is None:
                break
            seen = base_of(expression.this)
        return seen

    def result(self) -> list[Effect]:
        """Return all effects in their order."""
        return [*reads_in(self.tree, self.names, self.skip), *self.does]


def _insert(reader: _Reader, node: exp.Expr) -> None:
    if not node.args.get("is_function"):
        reader.target(node.this, [])


def _create(reader: _Reader, node: exp.Expr) -> None:
    kind = str(node.args.get("kind") or "").upper()
    if kind not in _MADE:
        return
    reader.add(Did.TEMPORARY if _temporary(node) else Did.MAKE, node.this)
    properties = node.args.get("properties")
    if properties is not None:
        for into in properties.find_all(exp.ToTableProperty):
            reader.add(Did.CHANGE, into.this)


def _temporary(node: exp.Expr) -> bool:
    properties = node.args.get("properties")
    if node.args.get("temporary") or properties is None:
        return bool(node.args.get("temporary"))
    if properties.find(exp.TemporaryProperty, exp.VolatileProperty) is not None:
        return True
    return any(one.this.name.upper() == "VOLATILE" for one in properties.find_all(exp.StabilityProperty))


def _merge(reader: _Reader, node: exp.Expr) -> None:
    reader.target(node.this, [])


def _update(reader: _Reader, node: exp.Expr) -> None:
    table = node.this
    if isinstance(node.parent, exp.When):
        return
    from_ = node.args.get("from_")
    sources = _tables_in_from([from_]) if from_ is not None else []
    joined = _tables_in_from([table]) if isinstance(table, exp.Table) and table.args.get("joins") else []
    changed = {column.table.lower() for column in _set_columns(node) if column.table}
    picked = [one for one in joined if one.alias_or_name.lower() in changed]
    for one in picked or [table]:
        reader.target(one, [source for source in sources if source is not one])


def _set_columns(node: exp.Expr) -> Iterator[exp.Column]:
    for one in node.expressions:
        if isinstance(one, exp.EQ) and isinstance(one.this, exp.Column):
            yield one.this


def _delete(reader: _Reader, node: exp.Expr) -> None:
    if isinstance(node.parent, exp.Alter):
        reader.target(node.parent.this, [])
        return
    listed, table = node.args.get("tables") or [], node.this
    using = node.args.get("using") or []
    if listed:
        sources = _tables_in_from([table]) if isinstance(table, exp.Expr) else []
        for one in listed:
            reader.target(one, sources)
        return
    sources = _tables_in_from(using) if isinstance(using, list) else []
    for one in _tables_in_from([table]) if reader.names.name in _MANY_DELETED else [table]:
        reader.target(one, [source for source in sources if source is not one])
    changed = {effect.table for effect in reader.does}
    for source in sources:  # DELETE FROM a USING a JOIN b: the first a is the target, the second no other table
        if isinstance(source, exp.Table) and not source.alias and reader.names.parts(source) in changed:
            reader.skip.add(id(source))


_MANY_DELETED = {"mysql", "mariadb", "singlestore", "doris", "starrocks", ""}


def _tables_in_from(roots: list[Any]) -> list[exp.Expr]:
    """Return the tables and subqueries of a FROM and its joins, not what is in a subquery."""
    found: list[exp.Expr] = []
    todo = list(roots)
    while todo:
        node = todo.pop(0)
        if isinstance(node, exp.From | exp.Join | exp.Paren):
            todo.append(node.this)
            todo += node.args.get("joins") or []
        elif isinstance(node, exp.Table):
            found.append(node)
            todo += node.args.get("joins") or []
        elif isinstance(node, exp.Subquery):
            todo += [node.this] if isinstance(node.this, exp.Table) else []
            found += [] if isinstance(node.this, exp.Table) else [node]
            todo += node.args.get("joins") or []
    return found


def _into(reader: _Reader, node: exp.Expr) -> None:
    table = node.this
    if (
        reader.names.name not in _SELECT_INTO
        or (reader.names.in_script and reader.names.name != "tsql")
        or not isinstance(table, exp.Table)
    ):
        reader.skip.update(id(one) for one in node.find_all(exp.Table))
        return
    reader.add(Did.TEMPORARY if node.args.get("temporary") and not _is_hash(table) else Did.MAKE, table)


def _is_hash(table: exp.Table) -> bool:
    return bool(table.this.args.get("temporary"))


def _returning(reader: _Reader, node: exp.Expr) -> None:
    """``OUTPUT … INTO table``."""
    into = node.args.get("into")
    if isinstance(into, exp.Identifier):
        reader.add(Did.CHANGE, exp.Table(this=into.copy()))
    elif isinstance(into, exp.Table):
        reader.target(into, [])
    elif isinstance(into, exp.Column):
        reader.add(Did.CHANGE, exp.Table(this=into.this.copy(), db=into.args.get("table"), catalog=into.args.get("db")))


def _copy(reader: _Reader, node: exp.Expr) -> None:
    if node.args.get("kind"):
        reader.target(node.this, [])


def _load(reader: _Reader, node: exp.Expr) -> None:
    reader.add(Did.TEMPORARY if node.args.get("temp") else Did.CHANGE, node.this)


def _refresh(reader: _Reader, node: exp.Expr) -> None:
    if "VIEW" in str(node.args.get("kind")).upper():
        reader.add(Did.CHANGE, node.this)
    else:
        reader.skip.update(id(one) for one in node.find_all(exp.Table))


def _cache(reader: _Reader, node: exp.Expr) -> None:
    if node.args.get("expression") is not None:
        reader.add(Did.TEMPORARY, node.this)
    else:
        reader.skip.add(id(node.this))  # it only keeps what others read


def _alter(reader: _Reader, node: exp.Expr) -> None:
    reader.skip.update(id(one) for one in node.find_all(exp.Table))
    if "TABLE" not in (kind := str(node.args.get("kind") or "").upper()) and "VIEW" not in kind:
        return
    for action in node.args.get("actions") or []:
        if isinstance(action, exp.AlterRename):
            reader.add(Did.RENAME, node.this, action.this)
        elif isinstance(action, exp.SwapTable):
            reader.add(Did.SWAP, node.this, action.this)
        elif isinstance(action, exp.ReplacePartition):
            reader.add(Did.CHANGE, node.this)
            reader.skip.discard(id(action.args["source"]))
        elif isinstance(action, exp.Delete):
            reader.skip.difference_update(id(one) for one in action.find_all(exp.Table))


def _drop(reader: _Reader, node: exp.Expr) -> None:
    reader.skip.update(id(one) for one in node.find_all(exp.Table))
    if str(node.args.get("kind") or "").upper() in _MADE:
        for table in [node.this, *(node.args.get("tables") or [])]:
            reader.add(Did.DROP, table)


def _use(reader: _Reader, node: exp.Expr) -> None:
    reader.skip.update(id(one) for one in node.find_all(exp.Table))


def _nothing(reader: _Reader, node: exp.Expr) -> None:
    reader.skip.update(id(one) for one in node.find_all(exp.Table))


_WRITERS: dict[type[exp.Expr], Callable[[_Reader, exp.Expr], None]] = {
    exp.Insert: _insert,
    exp.Create: _create,
    exp.Merge: _merge,
    exp.Update: _update,
    exp.Delete: _delete,
    exp.Into: _into,
    exp.Returning: _returning,
    exp.Copy: _copy,
    exp.LoadData: _load,
    exp.Refresh: _refresh,
    exp.Cache: _cache,
    exp.Alter: _alter,
    exp.Drop: _drop,
    exp.Use: _use,
    exp.TruncateTable: _nothing,
    exp.Uncache: _nothing,
    exp.Describe: _nothing,
    exp.Analyze: _nothing,
    exp.Comment: _nothing,
    exp.Grant: _nothing,
    exp.Revoke: _nothing,
    exp.Show: _nothing,
    exp.Pragma: _nothing,
    exp.Kill: _nothing,
    exp.Transaction: _nothing,
    exp.Commit: _nothing,
    exp.Rollback: _nothing,
    exp.Attach: _nothing,
    exp.Detach: _nothing,
}

_READERS = (exp.Query, exp.Values, exp.Table, exp.Pivot, exp.Set, exp.Declare, exp.MultitableInserts)
_MORE_READERS = (exp.Export, exp.Summarize, exp.LockingStatement, exp.From, exp.Lateral, exp.Unnest)
KNOWN = (*_WRITERS, *_READERS, *_MORE_READERS)
"""Trees of whole statements; anything else that sqlglot reads is an expression, such as the sum of two columns."""

_DEFINITIONS = {"FUNCTION", "PROCEDURE", "MACRO", "TRIGGER", "INDEX", "SEQUENCE", "TASK", "EVENT", "PACKAGE"}
"""What CREATE only writes down: its body runs later, or elsewhere."""


def effects_of(tree: exp.Expr, names: Names) -> list[Effect]:
    """Return what the statement does, reads first."""
    if isinstance(tree, exp.Create) and str(tree.args.get("kind") or "").upper() not in _MADE:
        body = tree.args.get("expression")
        return list(reads_in(body, names)) if _temporary(tree) and isinstance(body, exp.Expr) else []
    reader = _Reader(tree, names)
    for node in tree.find_all(*_WRITERS, bfs=False):
        _WRITERS[type(node)](reader, node)
    return reader.result()
