"""Finds the tables that a query reads and writes. The cache imports it late, because sqlglot takes 0.3 s to import."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlglot.dialects.dialect import Dialect

from crosswind.tasks.query_facts import QueryFacts
from crosswind.tasks.sql.names import TableNames, names_of
from crosswind.tasks.sql.sql_session import SqlSession
from crosswind.tasks.sql.statements import effects_in
from crosswind.tasks.sql.text import clean, mask_variables, nests_deeply, spell_out

__all__ = ["check_dialect", "read_query"]


def check_dialect(name: str) -> str:
    """Return why no dialect has that name, or ""."""
    try:
        Dialect.get_or_raise(name)
    except ValueError as error:
        return str(error)
    return ""


def read_query(sql: str, names: Sequence[str], dialect: str, default_schema: str) -> QueryFacts:
    """Return the tables that ``sql``, with Jinja or without, reads and writes, and ``names`` normalised by the dialect.

    Statements run in order: a table counts as read unless an earlier statement of the same text has created it.
    Names that belong to the session (temporary tables, WITH), or that a template generates, are left out.
    ``default_schema`` (``schema`` or ``catalog.schema``) qualifies names that have no schema.
    """
    rules = names_of(dialect, default_schema)
    # No part of a name such as Snowflake's @stage is that of a table; the name as written says in messages what it is.
    normalised = tuple(rules.of_text(name) or name for name in names)
    with _quiet_sqlglot():
        variants = [*_variants(clean(sql, rules.name), rules)]
    sessions = [variant.session for variant in variants]
    reads: dict[str, int] = {}
    for session in sessions:
        for name, line in session.reads.items():
            reads.setdefault(name, line)
    return QueryFacts(
        reads=dict(sorted(reads.items())),
        writes=tuple(dict.fromkeys(name for session in sessions for name in session.writes)),
        names=normalised,
        unread=_unread(variants),
        no_query=next((session.no_query for session in sessions if session.no_query), None),
        complete=all(session.complete for session in sessions),
    )


@contextmanager
def _quiet_sqlglot() -> Iterator[None]:
    """Suppress sqlglot's warnings, which repeat without a file and line what our problems report with them."""
    logger = logging.getLogger("sqlglot")
    # A filter, because setting a logger's level clears the caches of all loggers of the process, and a DAG processor
    # has hundreds.
    logger.addFilter(_is_error)
    try:
        yield
    finally:
        logger.removeFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


@dataclass(frozen=True, slots=True)
class _Variant:
    """The session in which one variant of a template has run, and the branches that the variant takes."""

    session: SqlSession
    choices: frozenset[tuple[str, bool]] = frozenset()


def _variants(sql: str, rules: TableNames) -> Iterator[_Variant]:
    plain = "{{" not in sql and "{%" not in sql and "{#" not in sql
    if plain or nests_deeply(sql):
        yield _Variant(_run(sql, rules))
        return
    from crosswind.tasks.sql import jinja_templates  # slow to import, and few queries need it

    try:
        for template in jinja_templates.variants(sql):
            session = _run(template.text, rules)
            session.move_to_template(template.line, complete=template.whole)
            yield _Variant(session, frozenset(template.choices))
    except jinja_templates.SqlTemplateError as problem:
        session = SqlSession(rules)
        session.unread.append((problem.line, f"its template is not readable: {problem}"))
        session.complete = False
        yield _Variant(session)


def _run(sql: str, rules: TableNames) -> SqlSession:
    session = SqlSession(rules)
    for effects in effects_in(spell_out(mask_variables(sql, rules.name), rules.name), rules):
        session.run(effects)
    return session


def _unread(variants: Sequence[_Variant]) -> tuple[tuple[int, str], ...]:
    """Return the unread statements of the variants, except where each branch is readable in another variant."""
    readable = [variant for variant in variants if not variant.session.unread]
    readable_choices = {choice for variant in readable for choice in variant.choices}
    reported = [variant for variant in variants if not readable or variant.choices - readable_choices]
    return tuple(sorted({problem for variant in reported for problem in variant.session.unread}))
