"""When rows are written: how many in one transaction, and how soon."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy.orm import Session
from tests.databases import sqlite, use_as_airflows

from crosswind.provider.row_writer import RowWriter
from deadlines import scaled


def test_full_batches_are_written_at_once_and_the_rest_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: queue.SimpleQueue[list[int]] = queue.SimpleQueue()

    def insert(session: Session, rows: Sequence[int]) -> None:
        batches.put(list(rows))

    with sqlite(tmp_path) as engine:
        use_as_airflows(engine, monkeypatch)
        writer = RowWriter("rows of a burst", insert, str, collect_s=600.0)
        for row in range(1100):
            writer.put(row)
        assert batches.get(timeout=scaled(20)) == list(range(500))
        assert batches.get(timeout=scaled(20)) == list(range(500, 1000))
        assert batches.empty()
        writer.close(scaled(20))
        assert batches.get(timeout=scaled(20)) == list(range(1000, 1100))
        engine.dispose()
