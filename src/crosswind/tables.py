"""Tables of our own in Airflow's metadata database, made when they are first needed, and how rows get into tables.

They stand beside Airflow's migrations: names begin with ``crosswind_``, nothing of Airflow's refers to them, and a
change of one gets a new name.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from airflow.configuration import conf
from airflow.utils.session import create_session
from sqlalchemy import Engine, LargeBinary, MetaData, inspect, select
from sqlalchemy.dialects.mysql import LONGBLOB
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

__all__ = ["METADATA", "Blob", "DatabaseAway", "answers", "is_passing", "make_tables", "write_rows"]

log = logging.getLogger(__name__)

METADATA = MetaData(schema=conf.get("database", "sql_alchemy_schema", fallback="") or None)
"""Where each table of ours is declared; ``make_tables`` makes what is missing."""

Blob = LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb")
"""Bytes of any length: MySQL's ordinary BLOB ends at 64 kB."""

Row = TypeVar("Row")

_TRIES, _PAUSE = 3, 0.5
"""Times that one row is tried when a lock, a deadlock or a lost connection may be to blame; seconds in between."""


class DatabaseAway(Exception):
    """The metadata database does not answer: nothing is wrong with what was to be written, try again."""


def write_rows(
    rows: list[Row], write: Callable[[Session, Sequence[Row]], None], refused: Callable[[Row, Exception], None]
) -> None:
    """Write rows in one transaction, or if the database refuses that, each in one of its own.

    Takes from ``rows`` what is written, and what is refused by itself: ``refused`` gets that with the error. Raises
    ``DatabaseAway`` when the database does not answer; what is still in ``rows`` then is to be tried again. Waits.
    """
    try:
        with create_session(scoped=False) as session:
            write(session, rows)
    except Exception as error:
        if is_passing(error) and not answers():
            raise DatabaseAway(str(error)) from error
    else:
        rows.clear()
    while rows:
        if (refusal := _write_one(rows[0], write)) is not None:
            refused(rows[0], refusal)
        del rows[0]


def _write_one(row: Row, write: Callable[[Session, Sequence[Row]], None]) -> Exception | None:
    """Return why the database refuses a row, None when it is written."""
    for left in reversed(range(_TRIES)):
        try:
            with create_session(scoped=False) as session:
                write(session, [row])
        except Exception as error:
            if not is_passing(error):
                return error
            if not answers():
                raise DatabaseAway(str(error)) from error
            if not left:  # MySQL, for one, cuts the connection when a row exceeds max_allowed_packet
                return error
            time.sleep(_PAUSE)
        else:
            break
    return None


def is_passing(error: Exception) -> bool:
    """Whether an error may come from the database's state rather than from what it was asked."""
    return isinstance(error, OperationalError | InterfaceError | PoolTimeout | OSError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )


def answers() -> bool:
    """Whether the database answers a plain question."""
    try:
        with create_session(scoped=False) as session:
            session.execute(select(1))
    except (SQLAlchemyError, OSError):
        return False
    return True


_made: set[str] = set()
_making = threading.Lock()


def make_tables() -> None:
    """Make the tables that are not there yet; cheap when they are. Waits for the database.

    Raises SQLAlchemy's errors, such as when the database's user may not create tables.
    """
    with create_session(scoped=False) as session:
        engine = session.get_bind()
        assert isinstance(engine, Engine)
    with _making:
        if str(engine.url) in _made:
            return
        try:
            METADATA.create_all(engine)
        except DBAPIError:
            if not _all_there(engine):  # else another scheduler was faster
                raise
        _made.add(str(engine.url))


def _all_there(engine: Engine) -> bool:
    names = set(inspect(engine).get_table_names(schema=METADATA.schema))
    return {table.name for table in METADATA.tables.values()} <= names
