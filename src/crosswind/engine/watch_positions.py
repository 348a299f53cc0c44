"""Saves how far the watches have come, so that the next scheduler continues from there when it adopts the pods.

``WatchPositions.run`` is one loop. It ends when it is cancelled; the engine saves once more when it stops.
"""

from __future__ import annotations

import asyncio
import logging

from crosswind.engine.database import MetadataDatabase, WatchPosition
from crosswind.engine.outage_log import OutageLog
from crosswind.engine.watcher import WorkerWatcher
from crosswind.event_loop import call_blocking
from crosswind.pods.naming import label_value
from crosswind.settings import EngineSettings

__all__ = ["WatchPositions", "position_server"]

log = logging.getLogger(__name__)

_SAVE_EVERY_S = 5.0
"""After a crash the next scheduler sees the events of the last seconds again, which is harmless."""


def position_server(host: str, settings: EngineSettings) -> str:
    """Return the name under which positions are saved: each team's executor watches the API server for itself."""
    return f"{host}#{settings.team}" if settings.team else host


class WatchPositions:
    """Saves the positions of a watcher. ``server``: from ``position_server``."""

    def __init__(
        self, server: str, settings: EngineSettings, database: MetadataDatabase, watcher: WorkerWatcher
    ) -> None:
        self._server = server
        self._executor = label_value(settings.executor_id)
        self._database = database
        self._watcher = watcher
        self._saved: dict[str | None, str] = {}
        self._outage = OutageLog(log)

    async def run(self) -> None:
        """Save until cancelled."""
        while True:
            await asyncio.sleep(_SAVE_EVERY_S)
            await self.save()

    async def save(self) -> None:
        """Save the positions that have changed.

        Errors are logged and not raised: without a position, the next scheduler lists its pods.
        """
        changed = {
            namespace: version
            for namespace, version in self._watcher.positions().items()
            if self._saved.get(namespace) != version
        }
        if not changed:  # an idle executor writes nothing
            return
        positions = [
            WatchPosition(self._executor, self._server, namespace, version) for namespace, version in changed.items()
        ]
        try:
            await call_blocking(self._database.save_positions, positions)
        except Exception as error:
            self._outage.failed("The positions of watches could not be saved, retrying: %s", error)
        else:
            self._saved |= changed
            self._outage.worked()
