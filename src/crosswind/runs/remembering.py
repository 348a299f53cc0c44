"""How far the watches have come, kept in the metadata database now and then for the scheduler that comes after."""

from __future__ import annotations

import asyncio
import logging

from crosswind.pods.naming import label_value
from crosswind.runs.following import Follower
from crosswind.runs.threads import call_apart
from crosswind.runs.workloads import Ledger, Position
from crosswind.settings import EngineSettings

__all__ = ["Rememberer", "followed_by"]

log = logging.getLogger(__name__)

_EVERY = 5.0
"""Seconds: what a scheduler that is killed did not keep is seen once more by the next one, and that is cheap."""


def followed_by(host: str, settings: EngineSettings) -> str:
    """Return the name under which positions at an API server are kept: each team's executor has watches of its own."""
    return f"{host}#{settings.team}" if settings.team else host


class Rememberer:
    """Keeps the positions of a follower's watches. ``server``: from ``followed_by``."""

    def __init__(self, server: str, settings: EngineSettings, ledger: Ledger, follower: Follower) -> None:
        self._server = server
        self._executor = label_value(settings.executor_id)
        self._ledger = ledger
        self._follower = follower
        self._kept: dict[str | None, str] = {}

    async def run(self) -> None:
        """Keep until cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            await self.keep()

    async def keep(self) -> None:
        """Write down what has changed. What goes wrong is logged: without it the next scheduler lists its pods."""
        new = {place: now for place, now in self._follower.versions().items() if self._kept.get(place) != now}
        if not new:
            return
        positions = [Position(self._executor, self._server, place, version) for place, version in new.items()]
        try:
            await call_apart(self._ledger.remember, positions)
        except Exception as error:
            log.warning("The positions of watches could not be kept, trying again: %s", error)
        else:
            self._kept |= new
