"""The tries of a DAG run's tasks, as the metadata database has them, and what old workers may still do with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import sqlalchemy
from benchmarks.chaos.pod_records import PodRecord
from benchmarks.playing_workers import API_VERSION, Players, Start

from crosswind.types import Manifest

__all__ = ["MortalPlayers", "TaskRow", "Tries", "accepted_states"]

_EVERY_S = 0.1
_NOW = "2026-01-01T00:00:00+00:00"


@dataclass(frozen=True, slots=True)
class TaskRow:
    """The row of a task instance."""

    task_id: str
    ti_id: str
    state: str
    try_number: int
    max_tries: int


class Tries:
    """Polls the task instances of a run. ``replaced``: when the id of a try was first missing, by id."""

    def __init__(self, engine: sqlalchemy.Engine) -> None:
        self._engine = engine
        self._raw: dict[str, Any] = {}
        self.rows: dict[str, TaskRow] = {}
        """The newest row of each task."""
        self.replaced: dict[str, float] = {}
        self.losses: dict[str, int] = {}
        """Replaced tries by task."""

    async def follow(self, run_id: str) -> None:
        """Poll until cancelled."""
        while True:
            self._take(await asyncio.to_thread(self._read, run_id))
            await asyncio.sleep(_EVERY_S)

    def finish(self, run_id: str) -> None:
        """Read the rows once more."""
        self._take(self._read(run_id))

    def _read(self, run_id: str) -> Sequence[Any]:
        query = (
            "SELECT task_id, id, coalesce(state, 'none'), try_number, max_tries FROM task_instance WHERE run_id = :r"
        )
        with self._engine.begin() as connection:
            return connection.execute(sqlalchemy.text(query), {"r": run_id}).all()

    def _take(self, rows: Sequence[Any]) -> None:
        """Take in the rows that have changed: this process also serves the cluster, and is asked ten times a second."""
        now = time.monotonic()
        for raw in rows:
            if self._raw.get(raw[0]) == raw:
                continue
            self._raw[raw[0]] = raw
            row = TaskRow(raw[0], str(raw[1]), *raw[2:])
            before = self.rows.get(row.task_id)
            if before is not None and before.ti_id != row.ti_id:
                self.replaced[before.ti_id] = now
                self.losses[row.task_id] = self.losses.get(row.task_id, 0) + 1
            self.rows[row.task_id] = row

    def first_poke(self, task_id: str) -> Any:
        """Return when a sensor's first poke began, by the reschedules of its present try; None without any."""
        return self._of_sensor("min(start_date)", "", task_id)

    def late_pokes(self, task_id: str, timeout: float) -> int:
        """Return how many of a sensor's pokes began after its timeout, and left it waiting all the same."""
        first = "(SELECT min(start_date) FROM pokes)"
        return int(self._of_sensor("count(*)", f"WHERE start_date > {first} + interval '{timeout} s'", task_id))

    def _of_sensor(self, what: str, where: str, task_id: str) -> Any:
        pokes = "SELECT r.start_date FROM task_reschedule r JOIN task_instance i ON i.id = r.ti_id WHERE i.task_id = :t"
        query = f"WITH pokes AS ({pokes}) SELECT {what} FROM pokes {where}"
        with self._engine.begin() as connection:
            return connection.execute(sqlalchemy.text(query), {"t": task_id}).scalar()

    def is_over(self) -> bool:
        """Whether every task has ended."""
        return bool(self.rows) and all(row.state in ("success", "failed", "skipped") for row in self.rows.values())

    def has_moved_on(self, record: PodRecord) -> bool:
        """Whether a pod's try was replaced, or its task has ended."""
        row = self.rows.get(record.task_id)
        return row is not None and (row.ti_id != record.ti_id or row.state in ("success", "failed", "skipped"))


class MortalPlayers(Players):
    """Players that die with their pods, and whose tokens remain. ``cut_off``: uids of pods whose kubelet is silent."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]  # those of Players
        self.tokens: dict[str, str] = {}
        self.cut_off: set[str] = set()

    def died(self, pods: Collection[PodRecord], are_dead: bool) -> None:
        """Have the workers on a silent node end, or go on without their kubelet's reports."""
        for record in pods:
            self.cut_off.add(record.uid)
            if are_dead and (task := self._playing.pop(record.uid, None)) is not None:
                task.cancel()

    def saw(self, pod: Manifest) -> None:
        """End the worker of a pod whose containers have ended."""
        statuses = (pod.get("status") or {}).get("containerStatuses") or ()
        ended = any(status["name"] == "base" and "terminated" in (status.get("state") or {}) for status in statuses)
        if ended and (task := self._playing.pop(pod["metadata"]["uid"], None)) is not None:
            task.cancel()

    async def _work(self, start: Start, token: str) -> bool:
        self.tokens[start.ti_id] = token
        return await super()._work(start, token)

    async def _end(self, pod: Manifest, code: int) -> None:
        self._playing.pop(pod["metadata"]["uid"], None)  # ``saw`` must not cancel the report itself
        if pod["metadata"]["uid"] not in self.cut_off:
            await super()._end(pod, code)


async def accepted_states(api: str, tokens: dict[str, str], session: aiohttp.ClientSession) -> tuple[int, int]:
    """Start and end replaced tries with their old tokens; return how many requests there were, and were accepted."""
    attempts = accepted = 0
    host = {"hostname": "old", "pid": 1}
    start = {"state": "running", "unixname": "airflow", "start_date": _NOW, **host}
    success = {"state": "success", "end_date": _NOW, "task_outlets": [], "outlet_events": []}
    for ti_id, token in tokens.items():
        headers = {"Authorization": f"Bearer {token}", "airflow-api-version": API_VERSION}
        for path, body in (("run", start), ("state", success)):
            async with session.patch(f"{api}/task-instances/{ti_id}/{path}", json=body, headers=headers) as answer:
                attempts += 1
                accepted += answer.status < 400
    return attempts, accepted
