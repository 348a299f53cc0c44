"""What an executor saves of its watches, and what it logs while the database refuses."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, cast

import pytest

from crosswind.engine.database import MetadataDatabase, WatchPosition
from crosswind.engine.watch_positions import WatchPositions
from crosswind.engine.watcher import WorkerWatcher
from crosswind.settings import EngineSettings


class Database:
    def __init__(self) -> None:
        self.saved: list[WatchPosition] = []
        self.away = False

    def save_positions(self, positions: Collection[WatchPosition]) -> None:
        if self.away:
            raise OSError("the database is away")
        self.saved += positions


async def test_an_outage_of_the_database_is_one_line_and_the_latest_positions_are_saved_after_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    database, versions = Database(), {"tasks": "1"}
    watcher: Any = SimpleNamespace(positions=lambda: dict(versions))
    positions = WatchPositions(
        "https://a", EngineSettings(executor_id="7"), cast(MetadataDatabase, database), cast(WorkerWatcher, watcher)
    )
    for _ in range(2):  # two outages
        await positions.save()
        database.away = True
        for _ in range(3):
            versions["tasks"] += "0"
            await positions.save()
        database.away = False
    await positions.save()
    await positions.save()
    saved = [WatchPosition("7", "https://a", "tasks", version) for version in ("1", "1000", "1000000")]
    assert database.saved == saved
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["The positions of watches could not be saved, retrying: the database is away"] * 2
