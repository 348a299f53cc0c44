"""Finds the tables that a statement reads: the names that no WITH, alias or function of the statement defines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from sqlglot import exp

from crosswind.tasks.sql.effects import Effect, EffectKind
from crosswind.tasks.sql.names import TableNames

__all__ = ["base_of", "cte_of", "line_of", "read_effect", "reads_in"]

_IMPLICITLY_RECURSIVE = {"tsql", "fabric", "oracle", "snowflake"}
"""Dialects in which a common table expression may refer to itself without the word RECURSIVE."""
_FIELDS_IN_FROM = {"bigquery", "redshift"}
"""Dialects in which ``alias.column`` in FROM is an array of the row, not a table of a schema."""
_NOT_READ = (exp.Reference, exp.ForeignKey, exp.UserDefinedFunction, exp.LockingProperty, exp.Hint)


def reads_in(tree: exp.Expr, names: TableNames, skip: Set[int] = frozenset()) -> Iterator[Effect]:
    """Yield the reads of ``tree``. ``skip``: ids of nodes that are targets, or aliases of targets."""
    for node in tree.find_all(exp.Table, exp.In, exp.Anonymous):
        table = node if isinstance(node, exp.Table) else _table_argument(node, names)
        if table is None or id(table) in skip or not isinstance(table.this, exp.Identifier | exp.Dot):
            continue
        if node.find_ancestor(*_NOT_READ) or _is_local(table, node, names):
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
        return exp.to_table(argument.name, dialect=names.dialect)
    return _column_as_table(argument) if node.find_ancestor(exp.Anonymous) is not None else None


def _column_as_table(column: object) -> exp.Table | None:
    if not isinstance(column, exp.Column):
        return None
    table = exp.Table(this=column.this.copy(), db=column.args.get("table"), catalog=column.args.get("db"))
    table.this.meta.update(column.this.meta)
    return table


def _is_local(table: exp.Table, place: exp.Expr, names: TableNames) -> bool:
    """Return whether a name at ``place`` refers to a common table expression, or to a column of another table."""
    if table.args.get("db"):
        return names.name in _FIELDS_IN_FROM and _is_field(table, place)
    return cte_of(table, place, names) is not None


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
    for node in above:
        with_ = node.args.get("with_")
        if with_ is not None and (expression := _visible(table.name, with_, above, names)):
            return expression
    return None


def _ancestors(node: exp.Expr) -> Iterator[exp.Expr]:
    while node.parent is not None:
        node = node.parent
        yield node


def _visible(name: str, with_: exp.Expr, above: Sequence[exp.Expr], names: TableNames) -> exp.CTE | None:
    """Return the expression of a WITH that ``name`` refers to at a place with these nodes ``above``.

    An expression is visible after its end; inside itself and before, only if the WITH is recursive.
    """
    around = {id(node) for node in above}
    for expression in with_.expressions:
        inside = id(expression) in around
        if expression.alias.lower() == name.lower():
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
