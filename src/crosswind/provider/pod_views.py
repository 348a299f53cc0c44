"""Requests for descriptions of pods in flight, in the metadata database: pages store them, the executor answers them.

A view lasts for seconds: while a page is open, it asks again.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Mapping
from typing import Any

from airflow.utils.session import create_session
from sqlalchemy import Column, Float, String, Table, Text, delete, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from crosswind.provider.tables import METADATA, explained_errors, make_tables, read_rows

__all__ = ["VIEWS", "DatabasePodViews", "look_at", "read_details"]

log = logging.getLogger(__name__)

VIEWS = Table(
    "crosswind_pod_view",
    METADATA,
    Column("unique_id", String(64), primary_key=True),
    Column("executor", String(63), nullable=False, index=True),
    Column("viewed_at", Float(53), nullable=False),
    Column("detail", Text, nullable=False),
)

_VIEW_LIFETIME_S = 20.0
"""Seconds for which a pod counts as looked at: pages ask every three seconds, and clocks differ."""
_FORGET_AFTER_S = 600.0
_MAX_BYTES = 16_000
"""Of a description: MySQL's Text holds 65,535."""


class DatabasePodViews:
    """Implements ``crosswind.engine.pod_inspection.PodViews`` for one executor. ``executor``: its ``executor_key``."""

    def __init__(self, executor: str) -> None:
        self._executor = executor
        self._forgot_at = 0.0

    def viewed(self) -> Collection[str]:
        """Return the unique ids of pods that were looked at a moment ago, the latest first."""
        make_tables(VIEWS)
        now = time.time()
        own = VIEWS.c.executor == self._executor
        with explained_errors(VIEWS), create_session(scoped=False) as session:
            if now - self._forgot_at > _FORGET_AFTER_S:
                session.execute(delete(VIEWS).where(VIEWS.c.viewed_at < now - _FORGET_AFTER_S))
                self._forgot_at = now
            query = select(VIEWS.c.unique_id).where(own, VIEWS.c.viewed_at > now - _VIEW_LIFETIME_S)
            return session.scalars(query.order_by(VIEWS.c.viewed_at.desc())).all()

    def answer(self, details: Mapping[str, Mapping[str, Any]]) -> None:
        """Store the description of each pod."""
        with explained_errors(VIEWS), create_session(scoped=False) as session:
            for unique_id, detail in details.items():
                text = json.dumps(detail)
                if len(text) <= _MAX_BYTES:
                    session.execute(update(VIEWS).where(VIEWS.c.unique_id == unique_id).values(detail=text))


def look_at(pods: Mapping[str, str]) -> None:
    """Store that a user looks at pods: the executor of each, by unique id. An error is logged and not raised.

    Neither is a missing table one: no scheduler has made it yet.
    """
    try:
        with create_session(scoped=False) as session:
            for unique_id, executor in pods.items():
                values = {"viewed_at": time.time(), "executor": executor}
                updated = session.execute(update(VIEWS).where(VIEWS.c.unique_id == unique_id).values(values))
                if not updated.rowcount:  # type: ignore[attr-defined]
                    session.execute(insert(VIEWS).values(values | {"unique_id": unique_id, "detail": "{}"}))
    except SQLAlchemyError as error:  # also when two pages insert the same row at once
        log.debug("The views of pods could not be stored: %s", error)


def read_details(unique_ids: Collection[str]) -> dict[str, dict[str, Any]]:
    """Return the descriptions of pods by unique id. Raises SQLAlchemy's errors."""
    rows = read_rows(select(VIEWS.c.unique_id, VIEWS.c.detail).where(VIEWS.c.unique_id.in_(unique_ids)), VIEWS)
    return {row["unique_id"]: json.loads(row["detail"]) for row in rows}
