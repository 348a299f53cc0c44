"""Crosswind's own tables in Airflow's metadata database, created on first use, and fault-tolerant writes to them.

The tables are apart from Airflow's migrations: their names begin with ``crosswind_``, no table of Airflow's refers to
them, and a table whose columns change gets a new name.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    "explained_errors",
    "insert_rows",
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


_GRANT_RIGHTS = "Grant the database's user the rights to read and write it"

_MYSQL_DENIED = (1044, 1142, 1143)
"""MySQL's errors for want of a right on a database, a table or a column; the drivers raise them as OperationalError."""

_POSTGRESQL_WRITES_NOTHING = ("25006", "53100", "53300")
"""PostgreSQL's codes for a read-only server (a replica that is not promoted yet), a full disk, too many connections."""

_MYSQL_WRITES_NOTHING = (1021, 1040, 1114, 1203, 1290, 1792, 1836)
"""MySQL's errors for a full disk or table space, too many connections, and a read-only server or transaction."""


class DatabaseUnavailable(Exception):
    """The metadata database does not answer. The rows were not at fault: try again later."""


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
    except (DatabaseUnavailable, WriteForbidden):
        raise
    except Exception as error:
        if is_forbidden(error):
            raise WriteForbidden(f"{_cause_of(error)}. {_GRANT_RIGHTS}") from error
        if is_outage(error):
            raise DatabaseUnavailable(_cause_of(error)) from error
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
        except (DatabaseUnavailable, WriteForbidden):
            raise
        except Exception as error:
            if is_outage(error):
                raise DatabaseUnavailable(_cause_of(error)) from error
            if not is_transient(error):
                return error
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
    columns = [column(table_column.name, table_column.type) for table_column in table.columns]
    json_rows = func.json_to_recordset(cast(bindparam("rows", type_=Text()), JSON()))
    rows = json_rows.table_valued(*columns).render_derived(with_types=True)
    names = [table_column.name for table_column in table.columns]
    return insert(table).from_select(names, select(*(rows.c[name] for name in names)))


def is_transient(error: Exception) -> bool:
    """Whether the database's state may cause an error, rather than the statement or its values."""
    return isinstance(error, OperationalError | InterfaceError | PoolTimeout | OSError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )


def is_outage(error: Exception) -> bool:
    """Whether the database does not answer, or writes no row at all for now: the rows are not at fault."""
    state, number, message = _driver_error(error)
    if state in _POSTGRESQL_WRITES_NOTHING or number in _MYSQL_WRITES_NOTHING or "disk is full" in message:
        return True
    return is_transient(error) and not _answers()


def is_forbidden(error: Exception) -> bool:
    """Whether the database's user lacks a right, for any row: only a person can help."""
    state, number, message = _driver_error(error)
    return state == "42501" or number in _MYSQL_DENIED or "readonly database" in message


def _driver_error(error: Exception) -> tuple[str, object, str]:
    """Return PostgreSQL's code, MySQL's number and the message of a driver's error, each empty for another error."""
    cause = getattr(error, "orig", None)
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None) or ""
    return state, next(iter(getattr(cause, "args", ())), None), str(cause or "")


def _cause_of(error: Exception) -> str:
    """Return the first line of the driver's own message: the statement, and SQLAlchemy's link, come after it."""
    return str(getattr(error, "orig", error)).strip().partition("\n")[0]


def _answers() -> bool:
    try:
        with create_session(scoped=False) as session:
            session.execute(select(1))
    except (SQLAlchemyError, OSError):
        return False
    return True


_known_tables: dict[str, set[str]] = {}
"""Names of the tables of ours that exist, by the address of their database."""

_creation_lock = threading.Lock()


def make_tables(*needed: Table) -> None:
    """Create those of our tables that are missing; costs nothing once this process knows that ``needed`` exist. Blocks.

    ``needed``: the tables that the caller works with; by default all. Raises ``DatabaseUnavailable`` when the database
    does not answer, and ``WriteForbidden`` when one of them is missing and cannot be created. A table that exists can
    be used although another one is missing: a new version may need one more than a person has created.
    """
    with create_session(scoped=False) as session:
        engine = session.get_bind()
        assert isinstance(engine, Engine)
    with _creation_lock:
        known = _known_tables.setdefault(str(engine.url), set())
        names = {table.name for table in needed or METADATA.tables.values()}
        if names <= known:
            return
        try:
            METADATA.create_all(engine)
            known.update(table.name for table in METADATA.tables.values())
        except SQLAlchemyError as error:
            if is_outage(error):
                raise DatabaseUnavailable(_cause_of(error)) from error
            # Two schedulers that start at once both find a table missing; the second CREATE TABLE fails.
            known.update(inspect(engine).get_table_names(schema=METADATA.schema))
            if missing := sorted(names - known):
                raise WriteForbidden(
                    f"the table {missing[0]} cannot be created: {_cause_of(error)}. Grant the database's user the right"
                    " to create tables, or create it by hand"
                ) from error


@contextlib.contextmanager
def explained_errors(table: Table) -> Iterator[None]:
    """Raise ``WriteForbidden`` or ``DatabaseUnavailable`` where an error of a write to ``table`` means that."""
    try:
        yield
    except Exception as error:
        if is_forbidden(error):
            message = f"the table {table.name} cannot be written: {_cause_of(error)}. {_GRANT_RIGHTS}"
            raise WriteForbidden(message) from error
        if is_outage(error):
            raise DatabaseUnavailable(_cause_of(error)) from error
        raise


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
        # A scheduler may have created the table in the meantime; any other error is raised again.
        return session.execute(query).mappings().all()
