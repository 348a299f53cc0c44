"""What a pod waits for that its status does not tell, a volume or the pod's network say: its events do."""

from __future__ import annotations

import asyncio
from functools import partial

from crosswind.errors import NotFound
from crosswind.kube.client import Client
from crosswind.kube.resources import EVENTS, PODS
from crosswind.pods.causes import why
from crosswind.runs.attending import events_of
from crosswind.runs.board import Board
from crosswind.runs.workloads import Run, Stage
from crosswind.settings import EngineSettings
from crosswind.types import Manifest

__all__ = ["Inquirer"]

_AT_ONCE = 20
"""Pods that are asked about in one go; the others' turn is the next."""


class Inquirer:
    """Asks about pods that have waited for some time and do not say why."""

    def __init__(self, client: Client, board: Board, settings: EngineSettings) -> None:
        self._client = client
        self._board = board
        self._settings = settings
        self._asked: dict[str, float] = {}
        self._allowed: dict[str, bool] = {}

    async def inquire(self) -> None:
        """Ask about those that were not asked about for longest. Raises what the API server answers."""
        now = asyncio.get_running_loop().time()
        before = now - self._settings.tell_after
        silent = [run for run in self._board.at(Stage.CREATED) if run.waits_for is None and run.created_at < before]
        self._asked = {run.unique: self._asked.get(run.unique, 0.0) for run in silent}
        for run in sorted(silent, key=lambda run: self._asked[run.unique])[:_AT_ONCE]:
            self._asked[run.unique] = now
            if await self._may_ask(run.namespace):
                await self._ask(run)

    async def _may_ask(self, namespace: str) -> bool:
        if namespace not in self._allowed:
            self._allowed[namespace] = await self._client.allowed("list", EVENTS, namespace=namespace)
        return self._allowed[namespace]

    async def _ask(self, run: Run) -> None:
        try:
            pod = await self._client.get(PODS, run.name, namespace=run.namespace)
        except NotFound:
            return
        fatal = self._settings.fatal_reasons
        events = await events_of(self._client, pod)
        told = why(pod, events, fatal=fatal)
        if run.stage is Stage.CREATED and told != why(pod, fatal=fatal):
            run.waits_for, run.held_up = partial(str, told), _reason(events)


def _reason(events: list[Manifest]) -> str:
    """Return one word for what events, the oldest first, say: the reason of the newest that warns."""
    return next((str(event.get("reason")) for event in reversed(events) if event.get("type") == "Warning"), "")
