"""A snapshot of the pods in flight, for pages and commands that must not list pods: 5,000 of them are 55 MB in a list.

``SnapshotReporter.run`` is a task of the engine's task group. Every two seconds it compares the runs with what it has
stored, and has the changes stored in a thread of its own. A database that does not answer delays the snapshot and
nothing else: the changes are computed anew from what was stored last. The task ends with the engine; what it has stored
then is as old as ``seen_at`` says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from crosswind.engine.column_text import storable
from crosswind.engine.outage_log import OutageLog
from crosswind.engine.state import RunStage, WorkerRun
from crosswind.event_loop import BlockingCallThread

__all__ = ["PodInFlight", "SnapshotChanges", "SnapshotReporter", "SnapshotStore", "changes_since"]

log = logging.getLogger(__name__)

SNAPSHOT_EVERY_S = 2.0
_RETRY_S = 10.0
"""Seconds until the next attempt when the database refuses the snapshot or does not answer."""
_LASTING_S = 2.0
"""Seconds in a phase after which a run is stored with it.

Most phases of short tasks are over before anybody looks, and rows for them cost a burst of tasks a tenth of its speed.
"""
_LASTING_WAIT_S = 10.0
"""The same for a run that waits for nothing but its turn; the gauges count those that wait for less."""
_STORE_TIMEOUT_S = 60.0

_PHASES = {
    RunStage.ADOPTING: "adopting",
    RunStage.WAITING: "waiting",
    RunStage.CREATED: "pending",
    RunStage.RUNNING: "running",
    RunStage.ENDED: "ending",
}

_Seen = tuple[RunStage, str, str]
"""Stage, reason and pod name of a run: a change of one is worth a row."""


@dataclass(frozen=True, slots=True)
class PodInFlight:
    """One run of a workload, from its request until its pod is gone; some 200 bytes beside the ids of its task."""

    unique_id: str
    ti_id: str
    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    queue: str
    namespace: str
    name: str
    phase: str
    """adopting, waiting (to be created), pending (in the cluster), running, ending (base has ended)."""
    reason: str
    """One word for what it waits for, "" for nothing in particular."""
    since: float
    """When it entered the phase, in seconds since 1970."""
    launch: int = 0
    """0 for the first pod of a try."""
    node: str = ""
    created: float = 0.0
    """When its pod was created, in seconds since 1970; 0 before, and where another executor created it."""
    started: float = 0.0
    """When the base container was seen to run."""


@dataclass(frozen=True, slots=True)
class SnapshotChanges:
    """The differences from the stored snapshot."""

    changed: Sequence[PodInFlight]
    gone: Collection[str]
    """Unique ids."""


class SnapshotStore(Protocol):
    """Where the snapshot is stored. Methods are called in a thread: they may block, and raise any exception."""

    def apply(self, changes: SnapshotChanges, gauges: Mapping[str, float]) -> None:
        """Store changes, and that the executor is alive, in one transaction."""
        ...


def changes_since(
    stored: Mapping[str, _Seen], runs: Iterable[WorkerRun], now: float, clock_offset: float
) -> tuple[SnapshotChanges, dict[str, _Seen]]:
    """Return the changes since ``stored``, and the stored state after they are applied.

    A phase counts once it has lasted. ``now``: monotonic seconds; ``clock_offset``: what to add to them for seconds
    since 1970.
    """
    current: dict[str, _Seen] = {}
    changed: list[PodInFlight] = []
    for run in runs:
        stage, wait = run.stage, run.wait
        if stage is RunStage.WAITING and wait is None and now - run.times.requested < _LASTING_WAIT_S:
            continue  # first and cheap: a burst has thousands of them
        if stage is RunStage.ENDED and run.pod_gone:
            continue  # its end is being reported; there is no pod to show
        seen, before = (stage, wait.reason if wait is not None else "", run.name), stored.get(run.unique_id)
        if before != seen:
            if now - _began(run) < _LASTING_S:
                if before is not None:
                    current[run.unique_id] = before
                continue
            changed.append(_pod(run, seen, clock_offset))
        current[run.unique_id] = seen
    return SnapshotChanges(changed, stored.keys() - current.keys()), current


def _began(run: WorkerRun) -> float:
    """Return when a run entered its phase."""
    times = run.times
    if run.stage is RunStage.RUNNING:
        return times.started
    if run.stage is RunStage.ENDED:
        return times.ended
    return times.created if run.stage is RunStage.CREATED else times.requested


def _pod(run: WorkerRun, seen: _Seen, clock_offset: float) -> PodInFlight:
    task, times = run.task, run.times
    stage, reason, name = seen
    return PodInFlight(
        unique_id=run.unique_id,
        ti_id=task.ti_id,
        dag_id=storable(task.dag_id, most_chars=250),
        task_id=storable(task.task_id, most_chars=250),
        run_id=storable(task.run_id, most_chars=250),
        map_index=task.map_index,
        try_number=task.try_number,
        queue=storable(task.queue, most_chars=250),
        namespace=storable(run.namespace, most_chars=63),
        name=storable(name, most_chars=253),
        phase=_PHASES[stage],
        reason=storable(reason, most_chars=64),
        since=_began(run) + clock_offset,
        launch=run.attempt,
        node=storable(run.node, most_chars=253),
        created=times.created and times.created + clock_offset,
        started=times.started and times.started + clock_offset,
    )


class SnapshotReporter:
    """Keeps the stored snapshot up to date. ``gauges``: figures of the executor that go with it, by name."""

    def __init__(
        self, runs: Callable[[], Iterable[WorkerRun]], store: SnapshotStore, gauges: Callable[[], Mapping[str, float]]
    ) -> None:
        self._runs, self._store, self._gauges = runs, store, gauges
        self._stored: dict[str, _Seen] = {}
        self._outage = OutageLog(log)

    async def run(self) -> None:
        """Report until cancelled."""
        thread = BlockingCallThread("crosswind-snapshot", _STORE_TIMEOUT_S)
        try:
            while True:
                await asyncio.sleep(SNAPSHOT_EVERY_S)
                if not await self._report(thread):
                    await asyncio.sleep(_RETRY_S)
        finally:
            thread.close()

    def _changes(self) -> tuple[SnapshotChanges, dict[str, _Seen]]:
        now = time.monotonic()
        return changes_since(self._stored, self._runs(), now, time.time() - now)

    async def _report(self, thread: BlockingCallThread) -> bool:
        changes, current = self._changes()
        try:
            await thread.call(self._store.apply, changes, dict(self._gauges()))
        except Exception as error:
            self._outage.failed("The snapshot of the pods in flight could not be stored: %s", error)
            return False
        self._outage.worked()
        self._stored = current
        return True
