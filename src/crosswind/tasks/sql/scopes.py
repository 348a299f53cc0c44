"""Finds the tables that a statement reads: the names that no WITH, alias or function of the statement defines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set

from sqlglot import exp
from sqlglot.errors import SqlglotError

from crosswind.tasks.sql.effects import Effect, EffectKind
from crosswind.tasks.sql.names import TableNames

__all__ = ["base_of", "cte_of", "line_of", "nodes_of", "read_effect", "reads_in"]

_IMPLICITLY_RECURSIVE = {"tsql", "fabric", "oracle", "snowflake"}
"""Dialects in which a common table expression may refer to itself without the word RECURSIVE."""
_FIELDS_IN_FROM = {"bigquery", "redshift"}
"""Dialects in which ``alias.column`` in FROM is an array of the row, not a table of a schema."""
_READ = (exp.Table, exp.In, exp.Anonymous)
_NAMES = (exp.Identifier, exp.Dot)
_NOT_READ = (exp.Reference, exp.ForeignKey, exp.UserDefinedFunction, exp.LockingProperty, exp.Hint)


def nodes_of(tree: exp.Expr) -> list[exp.Expr]:
    """Return all nodes of ``tree``, level by level, in the order of ``tree.bfs`` and in a fraction of its time."""
    nodes = [tree]
    for node in nodes:  # the list grows meanwhile
        for value in node.args.values():
            if not value:  # most arguments are None or False
                continue
            if isinstance(value, list):
                nodes += [item for item in value if isinstance(item, exp.Expr)]
            elif isinstance(value, exp.Expr):
                nodes.append(value)
    return nodes


def reads_in(nodes: Sequence[exp.Expr], names: TableNames, skip: Set[int] = frozenset()) -> Iterator[Effect]:
    """Yield the reads of a tree of these ``nodes``. ``skip``: ids of nodes that are targets, or aliases of targets."""
    above = [*_ancestors(nodes[0])]
    kinds = set(map(type, nodes))
    reading = {kind for kind in kinds if issubclass(kind, _READ)}
    # Most trees have no such node, and few tables the name of a WITH: only then, the nodes above a table matter.
    has_unread = any(issubclass(kind, _NOT_READ) for kind in {*kinds, *map(type, above)})
    defined = _defined_names(nodes, above)
    for node in nodes:
        if type(node) not in reading:
            continue
        table = node if isinstance(node, exp.Table) else _table_argument(node, names)
        if table is None or id(table) in skip or not isinstance(table.this, _NAMES):
            continue
        if (has_unread and node.find_ancestor(*_NOT_READ)) or _is_local(table, node, names, defined):
            continue
        effect = read_effect(table, names)
        if not names.is_file(table, effect.table):
            yield effect


def read_effect(table: exp.Table, names: TableNames) -> Effect:
    """Return the effect of reading ``table``."""
    return Effect(EffectKind.READ, names.parts(table), line_of(table))


def line_of(table: exp.Table) -> int:
    """Return the line of a table's name in the text, 0 if it is unknown."""
    return int(table.parts[-1].meta.get("line") or 0)


_TABLE_FUNCTIONS = {"TABLE", "TABLE_CHANGES", "QUERY_TABLE"}


def _table_argument(node: exp.Expr, names: TableNames) -> exp.Table | None:
    """Return the table of ClickHouse's ``x IN table``, of ``f(TABLE(table))`` or of a function of a table's name."""
    if isinstance(node, exp.In):
        return _column_as_table(node.args.get("field")) if names.name == "clickhouse" else None
    function = node.name.upper()
    if function not in _TABLE_FUNCTIONS or not node.expressions:
        return None
    argument = node.expressions[0]
    if isinstance(argument, exp.Literal) and argument.is_string and function != "TABLE":
        try:
            return names.table(argument.name)
        except (SqlglotError, ValueError):  # an expression that only the database evaluates
            return None
    return _column_as_table(argument) if node.find_ancestor(exp.Anonymous) is not None else None


def _column_as_table(column: object) -> exp.Table | None:
    if not isinstance(column, exp.Column):
        return None
    table = exp.Table(this=column.this.copy(), db=column.args.get("table"), catalog=column.args.get("db"))
    table.this.meta.update(column.this.meta)
    return table


def _defined_names(nodes: Iterable[exp.Expr], above: Iterable[exp.Expr]) -> set[str]:
    """Return the names, in lower case, of the common table expressions in a tree and ``above`` it."""
    clauses = [node for node in nodes if isinstance(node, exp.With)]
    clauses += [with_ for node in above if (with_ := node.args.get("with_")) is not None]
    return {expression.alias.lower() for with_ in clauses for expression in with_.expressions}


def _is_local(table: exp.Table, place: exp.Expr, names: TableNames, defined: Set[str]) -> bool:
    """Return whether a name at ``place`` refers to a common table expression, or to a column of another table.

    ``defined``: the names, in lower case, of all common table expressions.
    """
    if table.args.get("db"):
        return names.name in _FIELDS_IN_FROM and _is_field(table, place)
    return table.name.lower() in defined and cte_of(table, place, names) is not None


def _is_field(table: exp.Table, place: exp.Expr) -> bool:
    if table.args.get("catalog") and names_alias(place, table.args["catalog"].name):
        return True
    return not table.args.get("catalog") and names_alias(place, table.args["db"].name)


def names_alias(place: exp.Expr, name: str) -> bool:
    """Return whether ``name`` is the alias or the name of another table in a FROM around ``place``."""
    for above in _ancestors(place):
        if not isinstance(above, exp.Select):
            continue
        sources = [above.args.get("from_"), *(above.args.get("joins") or [])]
        for source in sources:
            table = source.this if source is not None else None
            if table is place or table is None:
                continue
            if table.alias_or_name.lower() == name.lower():
                return True
    return False


def cte_of(table: exp.Table, place: exp.Expr, names: TableNames) -> exp.CTE | None:
    """Return the common table expression that an unqualified name at ``place`` refers to, or None."""
    above = [place, *_ancestors(place)]
    clauses = [with_ for node in above if (with_ := node.args.get("with_")) is not None]
    if not clauses:
        return None
    name, around = table.name.lower(), {id(node) for node in above}
    return next((expression for with_ in clauses if (expression := _visible(name, with_, around, names))), None)


def _ancestors(node: exp.Expr) -> Iterator[exp.Expr]:
    while node.parent is not None:
        node = node.parent
        yield node


def _visible(name: str, with_: exp.Expr, around: Set[int], names: TableNames) -> exp.CTE | None:
    """Return the expression of a WITH that ``name`` refers to at a place with the nodes of these ids ``around``.

    An expression is visible after its end; inside itself and before, only if the WITH is recursive.
    """
    for expression in with_.expressions:
        inside = id(expression) in around
        if expression.alias.lower() == name:
            if not inside or with_.args.get("recursive") or _recurses(expression, around, names):
                return expression  # type: ignore[no-any-return]  # sqlglot types the list as Any
            return None
        if inside and not with_.args.get("recursive"):
            return None
    return None


def _recurses(expression: exp.Expr, around: Set[int], names: TableNames) -> bool:
    """Return whether an expression refers to itself in the second part of a recursion."""
    body = expression.this
    if names.name not in _IMPLICITLY_RECURSIVE or not isinstance(body, exp.SetOperation):
        return False
    return id(body.expression) in around


def base_of(tree: exp.Expr | None) -> exp.Table | None:
    """Return the table that a change of a query's rows changes, as in an updatable view: the first one of its FROM."""
    while tree is not None and not isinstance(tree, exp.Table):
        if isinstance(tree, exp.Select):
            from_ = tree.args.get("from_")
            tree = from_.this if from_ is not None else None
        elif isinstance(tree, exp.Subquery | exp.CTE | exp.SetOperation):
            tree = tree.this
        else:
            return None
    return tree
