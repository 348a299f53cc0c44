"""What an executor logs while the pods that somebody looks at cannot be described."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from crosswind.engine import pod_inspection
from crosswind.engine.lifecycle import RunLifecycle
from crosswind.engine.pod_inspection import PodInspector
from crosswind.kube.client import Client


class Views:
    """Refuses some of the questions, by their number; ``done`` is set at the last one."""

    def __init__(self, refused: Collection[int], last: int) -> None:
        self.refused, self.last, self.asked = refused, last, 0
        self.done = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def viewed(self) -> Collection[str]:
        self.asked += 1
        if self.asked == self.last:
            self._loop.call_soon_threadsafe(self.done.set)
        if self.asked in self.refused:
            raise OSError("the database is away")
        return ()

    def answer(self, details: Mapping[str, Mapping[str, Any]]) -> None:
        raise AssertionError("nobody looks at a pod")


async def test_an_outage_of_the_database_is_one_line(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_inspection, "_LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(pod_inspection, "_PAUSE_S", 0.001)
    views = Views(refused={2, 3, 4, 7, 8}, last=10)  # two outages
    lifecycle: Any = SimpleNamespace(registry=SimpleNamespace(runs={}))
    inspector = PodInspector(cast(Client, None), cast(RunLifecycle, lifecycle), views)
    work = asyncio.create_task(inspector.run())
    async with asyncio.timeout(60):
        await views.done.wait()
    work.cancel()
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["Pods that somebody looks at are not described: the database is away"] * 2
