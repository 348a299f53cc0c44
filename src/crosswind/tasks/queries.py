"""What a query reads and makes, by sqlglot. Loaded only for queries that the cache does not know."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from sqlglot.dialects.dialect import Dialect

from crosswind.tasks.facts import QueryFacts
from crosswind.tasks.sql.names import Names, names_of
from crosswind.tasks.sql.session import Session
from crosswind.tasks.sql.statements import effects_in
from crosswind.tasks.sql.text import clean, mask_variables, nests_deeply, spell_out

__all__ = ["check_dialect", "read_query"]

logging.getLogger("sqlglot").setLevel(logging.ERROR)  # its warnings say without a place what our problems say with one


def check_dialect(name: str) -> str:
    """Return why there is no dialect of that name, or ""."""
    try:
        Dialect.get_or_raise(name)
    except ValueError as error:
        return str(error)
    return ""


def read_query(sql: str, names: Sequence[str], dialect: str, default_schema: str) -> QueryFacts:
    """Return what ``sql``, Jinja in it or not, reads and makes, and ``names`` normalised as the dialect does.

    Each statement is read by itself, in order: a table counts as read unless the text itself has made it before.
    Names that belong to the session (temporary tables, WITH) or that a template makes up are left out.
    ``default_schema`` (``schema`` or ``catalog.schema``) qualifies names that say less.
    """
    rules = names_of(dialect, default_schema)
    normalised = tuple(rules.of_text(name) for name in names)
    found = [*_sessions(clean(sql, rules.name), rules)]
    reads: dict[str, int] = {}
    for session, _ in found:
        for name, line in session.reads.items():
            reads.setdefault(name, line)
    return QueryFacts(
        reads=dict(sorted(reads.items())),
        writes=tuple(dict.fromkeys(name for session, _ in found for name in session.writes)),
        names=normalised,
        unread=_unread(found),
        no_query=next((session.no_query for session, _ in found if session.no_query), None),
        complete=all(session.complete for session, _ in found),
    )


_Choices = frozenset[tuple[str, bool]]


def _sessions(sql: str, rules: Names) -> Iterator[tuple[Session, _Choices]]:
    """Yield a session for each way through the template, in which the text has run."""
    plain = "{{" not in sql and "{%" not in sql and "{#" not in sql
    if plain or nests_deeply(sql):
        yield _run(sql, rules), frozenset()
        return
    from crosswind.tasks.sql.templates import TemplateProblem, readings  # slow to import, and few queries need it

    try:
        for reading in readings(sql):
            session = _run(reading.text, rules)
            session.complete = session.complete and reading.whole
            session.reads = {name: reading.line(line) for name, line in session.reads.items()}
            session.unread = [(reading.line(line), reason) for line, reason in session.unread]
            if session.no_query:
                session.no_query = (reading.line(session.no_query[0]), session.no_query[1])
            yield session, frozenset(reading.choices)
    except TemplateProblem as problem:
        session = Session(rules)
        session.unread.append((problem.line, f"its template is not readable: {problem}"))
        session.complete = False
        yield session, frozenset()


def _run(sql: str, rules: Names) -> Session:
    session = Session(rules)
    for effects in effects_in(spell_out(mask_variables(sql, rules.name), rules.name), rules):
        session.run(effects)
    return session


def _unread(found: Sequence[tuple[Session, _Choices]]) -> tuple[tuple[int, str], ...]:
    """Return what is unread in each way through a template, unless each of its branches is read in another way."""
    read = {choice for session, choices in found if not session.unread for choice in choices}
    some = any(not session.unread for session, _ in found)
    return tuple(
        sorted({problem for session, choices in found for problem in session.unread if not some or choices - read})
    )
