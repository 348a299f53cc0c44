"""The effects of each kind of statement, from its syntax tree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlglot import exp

from crosswind.tasks.sql.effects import Effect, EffectKind
from crosswind.tasks.sql.names import Parts, TableNames
from crosswind.tasks.sql.scopes import base_of, cte_of, line_of, nodes_of, reads_in

__all__ = ["KNOWN", "effects_of"]

_CREATABLE = {"TABLE", "VIEW", "MODEL", "DICTIONARY", "STREAM", "STREAMING TABLE", "MATERIALIZED VIEW", "SNAPSHOT"}
_UPDATABLE_CTE = {"tsql", "fabric", ""}
"""Dialects in which a common table expression may be the target of a change."""
_SELECT_INTO = {"", "tsql", "fabric", "postgres", "redshift", "materialize", "risingwave"}
"""Dialects in which ``SELECT … INTO name`` creates a table; in others it sets a variable."""
_OUTPUT_INTO = {"tsql", "fabric"}
"""Dialects in which a statement writes the rows that it changes into a second table."""
_DELETES_FROM_SEVERAL = {"mysql", "mariadb", "singlestore", "doris", "starrocks", ""}
"""Dialects in which one DELETE may name several tables."""


class _EffectReader:
    """Collects the effects of one tree, reads first, because a statement reads before it writes."""

    def __init__(self, names: TableNames) -> None:
        self.names = names
        self.skip: set[int] = set()
        """The ids of nodes that are not reads."""
        self.writes: list[Effect] = []

    def add(self, action: EffectKind, table: object, other: object = None) -> None:
        """Add an effect on ``table`` if it is a table, so that it does not count as read."""
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
        self.writes.append(Effect(action, parts, line_of(table), second))

    def ignore_tables(self, node: exp.Expr) -> None:
        """Keep all tables below ``node`` from counting as read."""
        self.skip.update(id(table) for table in node.find_all(exp.Table))

    def target(self, table: object, sources: list[exp.Expr]) -> None:
        """Add a change of ``table``, which may be the alias of one of ``sources``, or the name of a CTE."""
        table = table.this if isinstance(table, exp.Schema) else table
        if not isinstance(table, exp.Table):
            base = base_of(table) if isinstance(table, exp.Expr) else None
            self.add(EffectKind.CHANGE, base)
            return
        self.skip.add(id(table))
        self.add(EffectKind.CHANGE, self._resolve(table, sources) or table)

    def _resolve(self, table: exp.Table, sources: list[exp.Expr]) -> exp.Table | None:
        """Return the table that a target's name refers to."""
        if not table.args.get("db"):
            for source in sources:
                if source is not table and source.alias_or_name.lower() == table.name.lower():
                    return self._resolve_cte(source) if isinstance(source, exp.Table) else base_of(source)
        if self.names.name not in _UPDATABLE_CTE or (isinstance(table.parent, exp.Insert) and not self.names.name):
            return table
        return self._resolve_cte(table)

    def _resolve_cte(self, table: exp.Table) -> exp.Table | None:
        """Return the base table of a common table expression, which may refer to another one."""
        base: exp.Table | None = table
        while base is not None and not base.args.get("db") and isinstance(base.this, exp.Identifier):
            expression = cte_of(base, base, self.names)
            if expression is None or expression.args.get("this") is None:
                break
            base = base_of(expression.this)
        return base


def _insert(reader: _EffectReader, node: exp.Expr) -> None:
    if not node.args.get("is_function"):
        reader.target(node.this, [])


def _create(reader: _EffectReader, node: exp.Expr) -> None:
    kind = str(node.args.get("kind") or "").upper()
    if kind not in _CREATABLE:
        return
    reader.add(EffectKind.TEMPORARY if _temporary(node) else EffectKind.MAKE, node.this)
    properties = node.args.get("properties")
    if properties is not None:
        for into in properties.find_all(exp.ToTableProperty):
            reader.add(EffectKind.CHANGE, into.this)


def _temporary(node: exp.Expr) -> bool:
    properties = node.args.get("properties")
    if node.args.get("temporary") or properties is None:
        return bool(node.args.get("temporary"))
    if properties.find(exp.TemporaryProperty, exp.VolatileProperty) is not None:
        return True
    return any(stability.this.name.upper() == "VOLATILE" for stability in properties.find_all(exp.StabilityProperty))


def _merge(reader: _EffectReader, node: exp.Expr) -> None:
    reader.target(node.this, [])


def _update(reader: _EffectReader, node: exp.Expr) -> None:
    table = node.this
    if isinstance(node.parent, exp.When):
        return
    from_ = node.args.get("from_")
    sources = _tables_in_from([from_]) if from_ is not None else []
    joined = _tables_in_from([table]) if isinstance(table, exp.Table) and table.args.get("joins") else []
    for target in _tables_of_set(node, joined) or [table]:
        reader.target(target, [source for source in sources if source is not target])


def _tables_of_set(node: exp.Expr, tables: list[exp.Expr]) -> list[exp.Expr]:
    """Return the tables of which an UPDATE sets columns."""
    columns = [item.this for item in node.expressions if isinstance(item, exp.EQ) and isinstance(item.this, exp.Column)]
    qualifiers = {column.table.lower() for column in columns if column.table}
    return [table for table in tables if table.alias_or_name.lower() in qualifiers]


def _delete(reader: _EffectReader, node: exp.Expr) -> None:
    table, using = node.this, node.args.get("using") or []
    if isinstance(node.parent, exp.Alter):
        reader.target(node.parent.this, [])
    elif listed := node.args.get("tables"):
        sources = _tables_in_from([table]) if isinstance(table, exp.Expr) else []
        for target in listed:
            reader.target(target, sources)
    else:
        sources = _tables_in_from(using) if isinstance(using, list) else []
        targets = _tables_in_from([table]) if reader.names.name in _DELETES_FROM_SEVERAL else [table]
        for target in targets:
            reader.target(target, [source for source in sources if source is not target])
        _skip_repeated_targets(reader, sources)


def _skip_repeated_targets(reader: _EffectReader, sources: list[exp.Expr]) -> None:
    """In ``DELETE FROM a USING a JOIN b``, the second ``a`` is the target again, and not read as another table."""
    changed = {effect.table for effect in reader.writes}
    for source in sources:
        if isinstance(source, exp.Table) and not source.alias and reader.names.parts(source) in changed:
            reader.skip.add(id(source))


def _tables_in_from(roots: list[Any]) -> list[exp.Expr]:
    """Return the tables and subqueries of a FROM and its joins, but not the tables in a subquery."""
    tables: list[exp.Expr] = []
    todo = list(roots)
    while todo:
        node = todo.pop(0)
        is_wrapper = isinstance(node, exp.From | exp.Join | exp.Paren) or (
            isinstance(node, exp.Subquery) and isinstance(node.this, exp.Table)
        )
        if is_wrapper:
            todo.append(node.this)
        elif isinstance(node, exp.Table | exp.Subquery):
            tables.append(node)
        else:
            continue
        todo += node.args.get("joins") or []
    return tables


def _into(reader: _EffectReader, node: exp.Expr) -> None:
    table = node.this
    if (
        reader.names.name not in _SELECT_INTO
        or (reader.names.in_script and reader.names.name != "tsql")
        or not isinstance(table, exp.Table)
    ):
        reader.ignore_tables(node)
        return
    reader.add(EffectKind.TEMPORARY if node.args.get("temporary") and not _is_hash(table) else EffectKind.MAKE, table)


def _is_hash(table: exp.Table) -> bool:
    return bool(table.this.args.get("temporary"))


def _returning(reader: _EffectReader, node: exp.Expr) -> None:
    """Read ``OUTPUT … INTO table`` of T-SQL; ``RETURNING … INTO`` of others sets variables."""
    into = node.args.get("into")
    if reader.names.name not in _OUTPUT_INTO:
        reader.skip.add(id(into))
        return
    if isinstance(into, exp.Identifier):
        reader.add(EffectKind.CHANGE, exp.Table(this=into.copy()))
    elif isinstance(into, exp.Table):
        reader.target(into, [])
    elif isinstance(into, exp.Column):
        reader.add(
            EffectKind.CHANGE, exp.Table(this=into.this.copy(), db=into.args.get("table"), catalog=into.args.get("db"))
        )


def _copy(reader: _EffectReader, node: exp.Expr) -> None:
    if node.args.get("kind"):
        reader.target(node.this, [])


def _load(reader: _EffectReader, node: exp.Expr) -> None:
    reader.add(EffectKind.TEMPORARY if node.args.get("temp") else EffectKind.CHANGE, node.this)


def _refresh(reader: _EffectReader, node: exp.Expr) -> None:
    if "VIEW" in str(node.args.get("kind")).upper():
        reader.add(EffectKind.CHANGE, node.this)
    else:
        reader.ignore_tables(node)


def _cache(reader: _EffectReader, node: exp.Expr) -> None:
    if node.args.get("expression") is not None:
        reader.add(EffectKind.TEMPORARY, node.this)
    else:
        reader.skip.add(id(node.this))  # caching a table neither reads nor changes it


def _alter(reader: _EffectReader, node: exp.Expr) -> None:
    reader.ignore_tables(node)
    kind = str(node.args.get("kind") or "").upper()
    if "TABLE" in kind or "VIEW" in kind:
        for action in node.args.get("actions") or []:
            _alter_action(reader, node.this, action)


def _alter_action(reader: _EffectReader, table: object, action: exp.Expr) -> None:
    match action:
        case exp.AlterRename():
            reader.add(EffectKind.RENAME, table, action.this)
        case exp.SwapTable():
            reader.add(EffectKind.SWAP, table, action.this)
        case exp.ReplacePartition():
            reader.add(EffectKind.CHANGE, table)
            reader.skip.discard(id(action.args["source"]))
        case exp.Delete():
            reader.skip.difference_update(id(inner) for inner in action.find_all(exp.Table))


def _drop(reader: _EffectReader, node: exp.Expr) -> None:
    reader.ignore_tables(node)
    if str(node.args.get("kind") or "").upper() in _CREATABLE:
        for table in [node.this, *(node.args.get("tables") or [])]:
            reader.add(EffectKind.DROP, table)


def _nothing(reader: _EffectReader, node: exp.Expr) -> None:
    reader.ignore_tables(node)


_WRITERS: dict[type[exp.Expr], Callable[[_EffectReader, exp.Expr], None]] = {
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
    exp.Use: _nothing,
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
"""Trees of whole statements. sqlglot also parses expressions, such as the sum of two columns, which are none."""


def effects_of(tree: exp.Expr, names: TableNames) -> list[Effect]:
    """Return the effects of the statement, reads first. The tree's nodes lose their parents, so it serves once."""
    if isinstance(tree, exp.Create) and str(tree.args.get("kind") or "").upper() not in _CREATABLE:
        body = tree.args.get("expression")
        return list(reads_in(nodes_of(body), names)) if _temporary(tree) and isinstance(body, exp.Expr) else []
    reader, nodes = _EffectReader(names), nodes_of(tree)
    for node in _writing(tree, nodes):
        _WRITERS[type(node)](reader, node)
    effects = [*reads_in(nodes, names, reader.skip), *reader.writes]
    for node in nodes:  # else only the garbage collector could free the tree, later and more slowly
        node.parent = None
    return effects


def _writing(tree: exp.Expr, nodes: Sequence[exp.Expr]) -> Iterable[exp.Expr]:
    """Return the nodes that may write, depth first, which is the order of the text."""
    writing = [node for node in nodes if type(node) in _WRITERS]
    return tree.find_all(*_WRITERS, bfs=False) if len(writing) > 1 else writing
