"""The snapshot of the pods in flight: changes alone are stored, and nothing is lost while the database is away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from crosswind.engine import fleet_snapshot
from crosswind.engine.fleet_snapshot import SnapshotChanges, SnapshotReporter, changes_since
from crosswind.engine.state import PodDisposition, RunResult, RunStage, RunTimes, WaitReason, WorkerRun, Workload
from crosswind.engine.worker_pod import WorkerTask
from deadlines import scaled


def make_run(unique_id: str, stage: RunStage = RunStage.RUNNING, **fields: Any) -> WorkerRun:
    task = WorkerTask("dag", "task", "run", 1, unique_id, ti_id="ti")
    times = RunTimes(10.0, created=11.0, started=12.0)
    return WorkerRun(Workload("key", task, 1.0, lambda: b"{}"), task, times, stage=stage, name=unique_id, **fields)


def test_only_what_has_changed_is_stored() -> None:
    waiting, running = make_run("a", RunStage.WAITING), make_run("b")
    changes, stored = changes_since({}, [waiting, running], 30.0, 100.0)
    assert [(pod.unique_id, pod.phase, pod.since) for pod in changes.changed] == [
        ("a", "waiting", 110.0),
        ("b", "running", 112.0),
    ]
    assert changes_since(stored, [waiting, running], 30.0, 100.0)[0] == SnapshotChanges([], set())
    waiting.wait = WaitReason(lambda: "no node", "Unschedulable")
    changes, stored = changes_since(stored, [waiting], 30.0, 100.0)
    assert [(pod.unique_id, pod.reason) for pod in changes.changed] == [("a", "Unschedulable")]
    assert changes.gone == {"b"}


def test_a_phase_is_stored_once_it_has_lasted() -> None:
    """A burst of short tasks would otherwise cost three rows a task, for pages on which nobody sees them."""
    pending = make_run("a", RunStage.CREATED)
    assert changes_since({}, [pending], 12.9, 0.0) == (SnapshotChanges([], set()), {})
    changes, stored = changes_since({}, [pending], 13.0, 0.0)
    assert [pod.phase for pod in changes.changed] == ["pending"]
    assert changes_since(stored, [make_run("a")], 13.9, 0.0) == (SnapshotChanges([], set()), stored)
    assert [pod.phase for pod in changes_since(stored, [make_run("a")], 14.0, 0.0)[0].changed] == ["running"]


def test_a_run_that_waits_for_its_turn_alone_is_stored_after_ten_seconds() -> None:
    waiting = make_run("a", RunStage.WAITING)
    assert changes_since({}, [waiting], 19.9, 0.0)[1] == {}
    assert [pod.phase for pod in changes_since({}, [waiting], 20.0, 0.0)[0].changed] == ["waiting"]
    waiting.wait = WaitReason(lambda: "the quota is used up", "QuotaExceeded")
    assert [pod.reason for pod in changes_since({}, [waiting], 12.0, 0.0)[0].changed] == ["QuotaExceeded"]


def test_a_run_whose_pod_is_gone_is_not_in_flight() -> None:
    ended = make_run("a", RunStage.ENDED, result=RunResult(failed=False), disposition=PodDisposition.GONE)
    assert changes_since({}, [ended], 30.0, 0.0)[0].changed == []


class Store:
    def __init__(self) -> None:
        self.away = True
        self.applied: asyncio.Queue[SnapshotChanges] = asyncio.Queue()
        self.loop = asyncio.get_running_loop()
        self.refused = asyncio.Event()

    def apply(self, changes: SnapshotChanges, gauges: Mapping[str, float]) -> None:
        if self.away:
            self.loop.call_soon_threadsafe(self.refused.set)
            raise OSError("no database")
        self.loop.call_soon_threadsafe(self.applied.put_nowait, changes)


async def test_what_could_not_be_stored_is_stored_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fleet_snapshot, "SNAPSHOT_EVERY_S", 0.01)
    monkeypatch.setattr(fleet_snapshot, "_RETRY_S", 0.01)
    store, runs = Store(), [make_run("a")]
    reporter = asyncio.create_task(SnapshotReporter(lambda: runs, store, dict).run())
    async with asyncio.timeout(scaled(20)):
        await store.refused.wait()
        store.away = False
        changes = await store.applied.get()
    assert [pod.unique_id for pod in changes.changed] == ["a"]
    runs.clear()
    async with asyncio.timeout(scaled(20)):
        while not changes.gone:
            changes = await store.applied.get()
    assert changes.gone == {"a"}
    assert caplog.text.count("could not be stored: no database") == 1
    reporter.cancel()
    await asyncio.wait([reporter])
