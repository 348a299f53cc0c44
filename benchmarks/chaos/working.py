"""The workers of simulated pods, played: they report to the metadata database as the execution API would write it.

A worker whose base container starts asks for its task (QUEUED to RUNNING, which succeeds once per try), works, writes
``success`` and ends. One that is to die of memory writes nothing. Whoever loses the race for its task ends with exit
code 1. The cluster's store is asked directly, so that no fault between executor and API server hides a start.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import sqlalchemy
from airflow.models.taskinstance import TaskInstance
from benchmarks.chaos.clusters import SimulatedCluster

from crosswind.local.registry import ClusterRegistry
from crosswind.local.statuses import StatusError
from crosswind.local.store import Event
from crosswind.types import Manifest

__all__ = ["Workers"]

_TABLE: Any = TaskInstance.__table__
_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class _Worker:
    task: UUID
    index: int
    namespace: str
    pod: str
    ends_at: float = 0.0


class Workers:
    """Plays all workers while it is entered.

    ``dies``: which tasks, by map index, die of memory. ``seconds``: how long a task takes, at least and at most.
    ``starts``: how often a base container started, by task instance.
    """

    def __init__(
        self,
        cluster: SimulatedCluster,
        engine: sqlalchemy.Engine,
        *,
        dies: Callable[[int], bool],
        seconds: tuple[float, float],
        seed: int = 0,
    ) -> None:
        self.starts: Counter[UUID] = Counter()
        self.losers = 0
        """Pods that started and were refused their task."""
        self.busy = False
        """While set, no worker comes to its end."""
        self._cluster, self._engine, self._dies, self._seconds = cluster, engine, dies, seconds
        self._random = random.Random(seed)
        self._started: set[str] = set()
        self._alive: set[str] = set()
        self._asking: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._working: list[_Worker] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workers", daemon=True)

    def __enter__(self) -> Workers:
        self._deaf = self._cluster.do(lambda registry: registry.store.listen("Pod", self._saw))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)
        self._cluster.do(lambda registry: self._deaf())

    def _saw(self, event: Event) -> None:
        """Take a change of a pod; on the cluster's loop."""
        pod = event.entry.object
        metadata = pod["metadata"]
        uid, annotations = metadata["uid"], metadata.get("annotations") or {}
        if event.type == "DELETED":
            self._alive.discard(metadata["name"])
        elif uid not in self._started and "task_instance_id" in annotations and _base_runs(pod):
            self._started.add(uid)
            self._alive.add(metadata["name"])
            task = UUID(annotations["task_instance_id"])
            self.starts[task] += 1
            index = int(annotations.get("map_index", -1))
            self._asking.put(_Worker(task, index, metadata["namespace"], metadata["name"]))

    def _run(self) -> None:
        asking: list[_Worker] = []
        while not self._stop.wait(_PAUSE):
            while not self._asking.empty():
                asking.append(self._asking.get())
            with suppress(sqlalchemy.exc.DBAPIError):  # a real worker and the API server try again, and so do we
                self._begin(asking)
                asking = []
            with suppress(sqlalchemy.exc.DBAPIError):
                self._finish()

    def _begin(self, asking: list[_Worker]) -> None:
        if not asking:
            return
        begun = self._ask({worker.task: worker.pod for worker in asking})
        now = time.monotonic()
        for worker in asking:
            if worker.task in begun:
                self._working.append(replace(worker, ends_at=now + self._random.uniform(*self._seconds)))
            else:
                self.losers += 1
                self._end(worker, {"exit-code": "1"})

    def _ask(self, pods: dict[UUID, str]) -> set[UUID]:
        """Return the tasks that may begin in these pods; asking twice from the same pod is the same as once."""
        columns = sqlalchemy.column("id", sqlalchemy.Uuid), sqlalchemy.column("pod", sqlalchemy.String)
        asking = sqlalchemy.values(*columns, name="asking").data(list(pods.items()))
        same = (_TABLE.c.state == "running") & (_TABLE.c.hostname == asking.c.pod)
        may = _TABLE.c.state.in_(("queued", "restarting")) | same
        statement = (
            sqlalchemy.update(_TABLE)
            .where(_TABLE.c.id == asking.c.id, may)
            .values(state="running", hostname=asking.c.pod)
            .returning(_TABLE.c.id)
        )
        with self._engine.begin() as connection:
            return {row[0] for row in connection.execute(statement)}

    def _finish(self) -> None:
        """End the workers whose work is done: the database first, then the container."""
        if self.busy:
            return
        now = time.monotonic()
        due = [worker for worker in self._working if worker.ends_at <= now and worker.pod in self._alive]
        self._succeed([worker for worker in due if not self._dies(worker.index)])
        self._working = [worker for worker in self._working if worker.ends_at > now]
        for worker in due:
            self._end(worker, {"oom": "true"} if self._dies(worker.index) else {})

    def _succeed(self, workers: list[_Worker]) -> None:
        if not workers:
            return
        ids = [worker.task for worker in workers]
        statement = sqlalchemy.update(_TABLE).where(_TABLE.c.id.in_(ids), _TABLE.c.state == "running")
        with self._engine.begin() as connection:
            connection.execute(statement.values(state="success"))

    def _end(self, worker: _Worker, how: dict[str, str]) -> None:
        """Have a pod's base container end."""
        told = {f"simulate.crosswind/{name}": value for name, value in {**how, "run-seconds": "0"}.items()}

        def change(pod: Manifest) -> None:
            pod["metadata"].setdefault("annotations", {}).update(told)

        def end(registry: ClusterRegistry) -> None:
            with suppress(StatusError):  # the pod was deleted meanwhile
                registry.update("Pod", worker.namespace, worker.pod, change)

        self._cluster.post(end)


def _base_runs(pod: Manifest) -> bool:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return any(one["name"] == "base" and "running" in (one.get("state") or {}) for one in statuses)
