"""Which names in a statement are tables that it reads: those that no WITH, alias or function of its own gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from sqlglot import exp

from crosswind.tasks.sql.effects import Did, Effect
from crosswind.tasks.sql.names import Names

__all__ = ["base_of", "cte_of", "line_of", "read_effect", "reads_in"]

_RECURSIVE_UNSAID = {"tsql", "fabric", "oracle", "snowflake"}
"""Where a common table expression may name itself without the word RECURSIVE."""
_FIELDS_IN_FROM = {"bigquery", "redshift"}
"""Where ``alias.column`` in FROM is an array of the row, not a table of a schema."""
_NOT_READ = (exp.Reference, exp.ForeignKey, exp.UserDefinedFunction, exp.LockingProperty, exp.Hint)


def reads_in(tree: exp.Expr, names: Names, skip: Set[int] = frozenset()) -> Iterator[Effect]:
    """Yield what ``tree`` reads. ``skip``: ids of nodes that are targets, or aliases of targets."""
    for node in tree.find_all(exp.Table, exp.In, exp.Anonymous):
        table = node if isinstance(node, exp.Table) else _named_otherwise(node, names)
        if table is None or id(table) in skip or not isinstance(table.this, exp.Identifier | exp.Dot):
            continue
        if node.find_ancestor(*_NOT_READ) or _is_local(table, node, names):
            continue
        effect = read_effect(table, names)
        if not names.is_file(table, effect.table):
            yield effect


def read_effect(table: exp.Table, names: Names) -> Effect:
    """Return the effect of reading ``table``."""
    return Effect(Did.READ, names.parts(table), line_of(table))


def line_of(table: exp.Table) -> int:
    """Return the line of a table's name in the text, 0 if it is not known."""
    return int(table.parts[-1].meta.get("line") or 0)


_TAKE_TABLES = {"TABLE", "TABLE_CHANGES", "QUERY_TABLE"}


def _named_otherwise(node: exp.Expr, names: Names) -> exp.Table | None:
    """Return the table of ClickHouse's ``x IN table``, of ``f(TABLE(table))`` or of a function of a table's name."""
    column: object = None
    if isinstance(node, exp.In):
        column = node.args.get("field") if names.name == "clickhouse" else None
    elif isinstance(node, exp.Anonymous) and node.name.upper() in _TAKE_TABLES and node.expressions:
        column = node.expressions[0]
        if isinstance(column, exp.Literal) and column.is_string and node.name.upper() != "TABLE":
            return exp.to_table(column.name, dialect=names.dialect)
        if node.find_ancestor(exp.Anonymous) is None:
            return None
    if not isinstance(column, exp.Column):
        return None
    table = exp.Table(this=column.this.copy(), db=column.args.get("table"), catalog=column.args.get("db"))
    table.this.meta.update(column.this.meta)
    return table


def _is_local(table: exp.Table, place: exp.Expr, names: Names) -> bool:
    """Whether a name at ``place`` is that of a common table expression, or of a column of another table there."""
    if table.args.get("db"):
        return names.name in _FIELDS_IN_FROM and _is_field(table, place)
    return cte_of(table, place, names) is not None


def _is_field(table: exp.Table, place: exp.Expr) -> bool:
    if table.args.get("catalog") and names_alias(place, table.args["catalog"].name):
        return True
    return not table.args.get("catalog") and names_alias(place, table.args["db"].name)


def names_alias(place: exp.Expr, name: str) -> bool:
    """Whether ``name`` is the alias, given or by itself, of another table in a FROM around ``place``."""
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


def cte_of(table: exp.Table, place: exp.Expr, names: Names) -> exp.CTE | None:
    """Return the common table expression that an unqualified name at ``place`` means, or None."""
    above = [place, *_ancestors(place)]
    for node in above:
        with_ = node.args.get("with_")
        if with_ is not None and (found := _visible(table.name, with_, above, names)):
            return found
    return None


def _ancestors(node: exp.Expr) -> Iterator[exp.Expr]:
    while node.parent is not None:
        node = node.parent
        yield node


def _visible(name: str, with_: exp.Expr, above: Sequence[exp.Expr], names: Names) -> exp.CTE | None:
    """Return the expression of a WITH that ``name`` means at a place with these nodes ``above``.

    An expression is seen after its end; inside itself, and before, only if the WITH is recursive.
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


def _recurses(expression: exp.Expr, around: Set[int], names: Names) -> bool:
    """Whether an expression that names itself does so as the second half of a recursion."""
    body = expression.this
    if names.name not in _RECURSIVE_UNSAID or not isinstance(body, exp.SetOperation):
        return False
    return id(body.expression) in around


def base_of(tree: exp.Expr | None) -> exp.Table | None:
    """Return the table whose rows a query passes on, as an updatable view does: the first one of its FROM."""
    while tree is not None and not isinstance(tree, exp.Table):
        if isinstance(tree, exp.Select):
            from_ = tree.args.get("from_")
            tree = from_.this if from_ is not None else None
        elif isinstance(tree, exp.Subquery | exp.CTE | exp.SetOperation):
            tree = tree.this
        else:
            return None
    return tree
