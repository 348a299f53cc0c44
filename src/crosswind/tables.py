"""Tables of our own in Airflow's metadata database, made when they are first needed.

They stand beside Airflow's migrations: names begin with ``crosswind_``, nothing of Airflow's refers to them, and a
change of one gets a new name.
"""

from __future__ import annotations

import logging
import threading

from airflow.configuration import conf
from airflow.utils.session import create_session
from sqlalchemy import Engine, LargeBinary, MetaData, inspect
from sqlalchemy.dialects.mysql import LONGBLOB
from sqlalchemy.exc import DBAPIError

__all__ = ["METADATA", "Blob", "make_tables"]

log = logging.getLogger(__name__)

METADATA = MetaData(schema=conf.get("database", "sql_alchemy_schema", fallback="") or None)
"""Where each table of ours is declared; ``make_tables`` makes what is missing."""

Blob = LargeBinary().with_variant(LONGBLOB(), "mysql", "mariadb")
"""Bytes of any length: MySQL's ordinary BLOB ends at 64 kB."""

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
