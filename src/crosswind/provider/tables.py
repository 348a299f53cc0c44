"""Crosswind's own tables in Airflow's metadata database, created when first needed, and writing rows with care.

The tables are apart from Airflow's migrations: their names begin with ``crosswind_``, no table of Airflow's refers to
them, and a table whose columns change gets a new name.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import orjson
from airflow.configuration import conf
from airflow.utils.session import create_session
from sqlalchemy import (
    JSON,
    Engine,
    Insert,
    LargeBinary,
    MetaData,
    RowMapping,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    insert,
    inspect,
    select,
)
from sqlalchemy.dialects.mysql import LONGBLOB
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

__all__ = [
    "METADATA",
    "Blob",
    "DatabaseUnavailable",
    "WriteForbidden",
    "cause_of",
    "database_answers",
    "insert_rows",
    "is_forbidden",
    "is_transient",
    "make_tables",
    "read_rows",
    "write_rows",
]

log = logging.getLogger(__name__)

METADATA = MetaData(schema=conf.get("database", "sql_alchemy_schema", fallback="") or None)
"""Holds the declaration of each table; ``make_tables`` creates those that are missing."""

Blob = LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb")
"""Bytes of any length: MySQL's ordinary BLOB holds 64 kB."""

Row = TypeVar("Row")

_ROW_ATTEMPTS, _ROW_RETRY_S = 3, 0.5
"""Attempts to write one row when a lock, a deadlock or a lost connection may be the cause, and seconds in between."""


_MYSQL_DENIED = (1044, 1142, 1143)
"""MySQL's errors for want of a right on a database, a table or a column; the drivers raise them as OperationalError."""


class DatabaseUnavailable(Exception):
    """The metadata database does not answer. The rows were not at fault: write them again later."""


class WriteForbidden(Exception):
    """The database's user may not create or write a table. The message says which, and what to grant."""


def write_rows(
    rows: list[Row], write: Callable[[Session, Sequence[Row]], None], on_refused: Callable[[Row, Exception], None]
) -> None:
    """Write rows in one transaction, or each in a transaction of its own if the database refuses that. Blocks.

    Removes from ``rows`` each row that is written and each that the database refuses even by itself; ``on_refused``
    gets the latter with the error. So one bad row costs no other. Raises ``DatabaseUnavailable`` when the database does
    not answer; the rows that are left then are to be written again. Raises ``WriteForbidden`` for want of a right.
    """
    try:
        with create_session(scoped=False) as session:
            write(session, rows)
    except WriteForbidden:
        raise
    except Exception as error:
        if is_forbidden(error):
            raise WriteForbidden(
                f"{cause_of(error)}. Grant the database's user the rights to read and write it"
            ) from error
        if is_transient(error) and not database_answers():
            raise DatabaseUnavailable(str(error)) from error
    else:
        rows.clear()
    while rows:
        if (refusal := _write_row(rows[0], write)) is not None:
            on_refused(rows[0], refusal)
        del rows[0]


def _write_row(row: Row, write: Callable[[Session, Sequence[Row]], None]) -> Exception | None:
    """Return the error by which the database refuses a row, None when it is written."""
    for attempts_left in reversed(range(_ROW_ATTEMPTS)):
        try:
            with create_session(scoped=False) as session:
                write(session, [row])
        except Exception as error:
            if not is_transient(error):
                return error
            if not database_answers():
                raise DatabaseUnavailable(str(error)) from error
            # The row itself may look transient: MySQL closes the connection when one exceeds max_allowed_packet.
            if not attempts_left:
                return error
            time.sleep(_ROW_RETRY_S)
        else:
            break
    return None


def insert_rows(session: Session, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, each of which has a value for every column, in one statement; of no rows, none.

    PostgreSQL gets them as one JSON parameter: the driver's parameters, some twenty per row, take twice the CPU.
    """
    if not rows:
        return
    if session.get_bind().dialect.name == "postgresql":
        session.execute(_insert_from_json(table), {"rows": orjson.dumps(rows).decode()})
    else:
        session.execute(insert(table), rows)


@cache
def _insert_from_json(table: Table) -> Insert:
    columns = [column(one.name, one.type) for one in table.columns]
    given = func.json_to_recordset(cast(bindparam("rows", type_=Text()), JSON()))
    rows = given.table_valued(*columns).render_derived(with_types=True)
    names = [one.name for one in table.columns]
    return insert(table).from_select(names, select(*(rows.c[name] for name in names)))


def is_transient(error: Exception) -> bool:
    """Whether the database's state may cause an error, rather than the statement or its values."""
    return isinstance(error, OperationalError | InterfaceError | PoolTimeout | OSError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )


def is_forbidden(error: Exception) -> bool:
    """Whether the database's user lacks a right, for any row: only a person can help."""
    cause = getattr(error, "orig", None)
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    number = next(iter(getattr(cause, "args", ())), None)
    return state == "42501" or number in _MYSQL_DENIED or "readonly database" in str(cause)


def cause_of(error: Exception) -> str:
    """Return the driver's own message, without SQLAlchemy's statement and link, and PostgreSQL's line break."""
    return str(getattr(error, "orig", error)).strip()


def database_answers() -> bool:
    """Whether the database answers ``SELECT 1``."""
    try:
        with create_session(scoped=False) as session:
            session.execute(select(1))
    except (SQLAlchemyError, OSError):
        return False
    return True


_databases_with_tables: set[str] = set()
_creation_lock = threading.Lock()


def make_tables() -> None:
    """Create the tables that are missing; costs nothing when this process has done it before. Blocks.

    Raises SQLAlchemy's errors, for example when the database's user may not create tables.
    """
    with create_session(scoped=False) as session:
        engine = session.get_bind()
        assert isinstance(engine, Engine)
    with _creation_lock:
        if str(engine.url) in _databases_with_tables:
            return
        try:
            METADATA.create_all(engine)
        except DBAPIError:
            # Two schedulers that start at once both find a table missing; the second CREATE TABLE fails.
            if not _all_exist(engine):
                raise
        _databases_with_tables.add(str(engine.url))


def _all_exist(engine: Engine) -> bool:
    existing = set(inspect(engine).get_table_names(schema=METADATA.schema))
    return {table.name for table in METADATA.tables.values()} <= existing


def read_rows(query: Select[Any], table: Table) -> Sequence[RowMapping]:
    """Return the rows of a query of a table of ours; none where no scheduler has made the table yet.

    For readers that may not create tables, such as API servers. Raises SQLAlchemy's errors.
    """
    with create_session(scoped=False) as session:
        try:
            return session.execute(query).mappings().all()
        except DBAPIError:
            session.rollback()
            if not inspect(session.get_bind()).has_table(table.name, schema=METADATA.schema):
                return []
        # A scheduler may have made the table since; any other error comes again.
        return session.execute(query).mappings().all()
