"""Plays the workers of simulated pods, which report to the metadata database as the execution API does.

A worker whose base container starts claims its task (QUEUED to RUNNING, which succeeds once per attempt), works, writes
``success`` and ends. A worker that is killed for memory writes no state. A worker that loses the race for its task ends
with exit code 1. The workers read the cluster's store directly, so that no fault between executor and API server hides
a start.
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

from crosswind.engine.warm_claim_patch import CLAIM_LABEL
from crosswind.types import Manifest
from kubelocal.codec.status_errors import StatusError
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.storage.store import Event

__all__ = ["ChaosWorkers"]

_TABLE: Any = TaskInstance.__table__
_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class _Worker:
    task: UUID
    index: int
    namespace: str
    pod: str
    ends_at: float = 0.0
    claimed: bool = False
    """Its pod had waited for a task. It counts as a start when it succeeds: before, it may never have got the task."""
    asks_at: float = 0.0


class ChaosWorkers:
    """A context manager that plays all workers inside its context.

    ``dies``: the tasks, by map index, that are killed for memory. ``seconds``: the shortest and the longest duration of
    a task. ``starts``: the number of starts of a base container by the id of the task instance's try.
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
        """Pods that started, and whose claim of the task was refused."""
        self.busy = False
        """While set, no worker ends."""
        self.delay: Callable[[], float] = lambda: 0.0
        """Returns the seconds from the claim of a waiting pod until its worker asks Airflow for the task."""
        self.outlive = False
        """Whether Airflow carries the request of a claimed pod's worker out also when the pod is gone."""
        self._late: set[UUID] = set()
        """Tasks that were started for a pod that was gone by then."""
        self._cluster, self._engine, self._dies, self._seconds = cluster, engine, dies, seconds
        self._random = random.Random(seed)
        self._started: set[str] = set()
        self._alive: set[str] = set()
        self._asking: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._working: list[_Worker] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workers", daemon=True)

    def __enter__(self) -> ChaosWorkers:
        self._deaf = self._cluster.do(lambda registry: registry.store.listen("Pod", self._saw))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)
        self._cluster.do(lambda registry: self._deaf())

    def _saw(self, event: Event) -> None:
        """Handle a change of a pod, on the cluster's loop."""
        pod = event.entry.object
        metadata = pod["metadata"]
        uid, annotations = metadata["uid"], metadata.get("annotations") or {}
        if event.type == "DELETED":
            self._alive.discard(metadata["name"])
        elif uid not in self._started and "task_instance_id" in annotations and _base_runs(pod):
            self._started.add(uid)
            self._alive.add(metadata["name"])
            task = UUID(annotations["task_instance_id"])
            index = int(annotations.get("map_index", -1))
            worker = _Worker(task, index, metadata["namespace"], metadata["name"])
            if CLAIM_LABEL in metadata["labels"]:
                worker = replace(worker, claimed=True, asks_at=time.monotonic() + self.delay())
            else:
                self.starts[task] += 1
            self._asking.put(worker)

    def _run(self) -> None:
        asking: list[_Worker] = []
        while not self._stop.wait(_PAUSE):
            while not self._asking.empty():
                asking.append(self._asking.get())
            now = time.monotonic()
            asking = [worker for worker in asking if not worker.claimed or worker.pod in self._alive or self.outlive]
            with suppress(sqlalchemy.exc.DBAPIError):  # a real worker and the API server retry, and so does this
                self._begin([worker for worker in asking if worker.asks_at <= now])
                asking = [worker for worker in asking if worker.asks_at > now]
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
                if worker.claimed and worker.pod not in self._alive:
                    self._late.add(worker.task)
            else:
                self.losers += 1
                if worker.task in self._late and not worker.claimed:
                    self.starts[worker.task] -= 1  # its worker ran nothing, and Airflow starts the task again
                self._end(worker, {"exit-code": "1"})

    def _ask(self, pods: dict[UUID, str]) -> set[UUID]:
        """Return the tasks that these pods have claimed; a second claim from the same pod has no effect."""
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
        self.starts.update(worker.task for worker in due if worker.claimed)
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
        """End a pod's base container."""
        annotations = {f"simulate.crosswind/{name}": value for name, value in {**how, "run-seconds": "0"}.items()}

        def change(pod: Manifest) -> None:
            pod["metadata"].setdefault("annotations", {}).update(annotations)

        def end(registry: ClusterRegistry) -> None:
            with suppress(StatusError):  # the pod was deleted meanwhile
                registry.update("Pod", worker.namespace, worker.pod, change)

        self._cluster.post(end)


def _base_runs(pod: Manifest) -> bool:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return any(status["name"] == "base" and "running" in (status.get("state") or {}) for status in statuses)
