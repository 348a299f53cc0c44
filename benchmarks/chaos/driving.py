"""An executor driven as the scheduler drives it, on a simulated cluster behind a proxy, with a real metadata database.

The part of the scheduler's loop that matters here is the real one: ``SchedulerJobRunner.process_executor_events``, on
rows that it may lock. The tasks' event logs the executor writes itself; they are read back from the table.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dagbag import DBDagBag
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from benchmarks.chaos.clusters import SimulatedCluster
from benchmarks.chaos.databases import Database, environment, postgresql
from benchmarks.chaos.proxying import Proxy
from benchmarks.chaos.scenario import Row, at_least, at_most, exactly
from benchmarks.chaos.working import Workers
from benchmarks.contestant import make_task_instances, workloads
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from crosswind.executor import KubernetesExecutor

__all__ = ["Drive", "drive"]

_TEMPLATE = """\
apiVersion: v1
kind: Pod
metadata: {name: worker}
spec:
  restartPolicy: Never
  containers: [{name: base, image: "apache/airflow:3.3.2", resources: {requests: {cpu: 1m, memory: 1Mi}}}]
"""
_JOB = 1
_NAP = 0.02
_LIMIT_S = 300.0
"""How long a scenario's tasks may take: many times what they need on a busy machine."""
_SETTLED_S = 30.0
"""How long what is left of pods and Secrets may take to go when all tasks have ended."""
_LONGEST_BEAT = 1.0


@dataclass
class Drive:
    """A running executor and all around it. ``disturb`` is called with each beat once a task has started."""

    cluster: SimulatedCluster
    proxy: Proxy
    database: Database
    workers: Workers
    executor: KubernetesExecutor
    tasks: list[dict[str, Any]]
    dies: Callable[[int], bool]
    starts: bool
    disturb: Callable[[], object] = lambda: None
    faults: int = 0
    """Injected by other means than the proxy."""
    emitted: Counter[Any] = field(default_factory=Counter)
    """Failures that the executor has told, by key."""
    longest: float = 0.0
    refused: int = 0
    """Times that the database was not there for the scheduler."""

    def queue(self) -> None:
        """Queue all tasks."""
        for workload in workloads(self.tasks):
            self.executor.queue_workload(workload, session=None)  # type: ignore[arg-type]

    def beat(self) -> None:
        """Do what the scheduler's loop does about an executor."""
        begun = time.perf_counter()
        self.executor.heartbeat()
        self.longest = max(self.longest, time.perf_counter() - begun)
        self.emitted.update(self.executor.event_buffer.keys())
        try:
            with create_session() as session:
                session.execute(select(1))  # as the loop asks for one thing or another in each turn
                if self.executor.event_buffer:
                    SchedulerJobRunner.process_executor_events(self.executor, _JOB, DBDagBag(), session)
        except DBAPIError:
            self.refused += 1

    def until(self, happened: Callable[[], Any], limit: float) -> bool:
        """Beat until something has happened; False when it has not after ``limit`` seconds."""
        end = time.monotonic() + limit
        while not happened():
            if time.monotonic() > end:
                return False
            if self.workers.starts or not self.starts:
                self.disturb()
            self.beat()
            time.sleep(_NAP)
        return True

    def live(self, limit: float = _LIMIT_S) -> None:
        """Queue all, and see them to their end."""
        self.queue()
        self.settle(limit)

    def settle(self, limit: float = _LIMIT_S) -> None:
        """Beat until every slot is free, or ``limit`` seconds are over; then without faults until nothing is left."""
        self.until(self.is_over, limit)
        self.disturb = lambda: None
        self.proxy.fault = lambda method, path: None
        self.proxy.release()
        self.database.start()
        self.until(self.is_empty, _SETTLED_S)

    def is_over(self) -> bool:
        """Whether the executor has no task, and each task instance has ended."""
        if self.executor.running or self.executor.queued_tasks:
            return False
        with contextlib.suppress(DBAPIError):
            return not {*self.states().values()} & {"queued", "running"}
        return False  # the database is away

    def is_empty(self) -> bool:
        """Whether the engine knows of no pod and no Secret."""
        engine = self.executor._engine
        figures = engine.figures() if engine is not None else {}
        return not any(figures.get(name) for name in ("waiting", "created", "begun", "ended", "secrets", "stopping"))

    def states(self) -> dict[UUID, str]:
        """Return how each task instance stands in the database."""
        table = TaskInstance.__table__
        with self.database.engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(select(table.c.id, table.c.state))}

    def logged(self, event: str) -> set[int]:
        """Return the map indexes of the tasks that have an event in Airflow's event log, when all are written."""
        self.until(lambda: not len(self.executor._event_log), _SETTLED_S)
        table = Log.__table__
        with self.database.engine.connect() as connection:
            return set(connection.execute(select(table.c.map_index).where(table.c.event == event)).scalars())

    def mismatches(self) -> dict[int, list[str]]:
        """Return, by map index, what core wrote for each terminal event that it acted on."""
        table = Log.__table__
        found: dict[int, list[str]] = {}
        with self.database.engine.connect() as connection:
            for index, extra in connection.execute(
                select(table.c.map_index, table.c.extra).where(table.c.event == "state mismatch")
            ):
                found.setdefault(index, []).append(extra)
        return found

    def rows(self, faults: int, *, longest: float = _LONGEST_BEAT) -> list[Row]:
        """End the executor and count. ``faults``: the least that had to be injected."""
        running, slots = len(self.executor.running), self.executor.slots_available
        self.executor.end()
        states, starts = self.states(), self.workers.starts
        fails = {row["map_index"]: not self.starts or self.dies(row["map_index"]) for row in self.tasks}
        wanted = {row["id"]: "failed" if fails[row["map_index"]] else "success" for row in self.tasks}
        told = self.mismatches()
        unlogged = {index for index, expected in fails.items() if expected} - self.logged("pod failed")
        wrong = [index for index, expected in fails.items() if len(told.get(index, ())) != expected]
        pods, secrets = self.cluster.do(lambda registry: (len(registry.list("Pod")), len(registry.list("Secret"))))
        return [
            at_least("faults injected", self.faults + self.proxy.injected, faults),
            exactly("tasks that started", sum(starts.values()), len(self.tasks) * self.starts),
            exactly("tasks lost", sum(states.get(task) != state for task, state in wanted.items())),
            exactly("tasks run twice", sum(count > 1 for count in starts.values())),
            exactly("terminal events missing or too many", len(wrong)),
            exactly("failures missing from the tasks' event logs", len(unlogged)),
            exactly("running at the end", running),
            exactly("free slots at the end", slots, self.executor.parallelism),
            exactly("pods left", pods),
            exactly("Secrets left", secrets),
            at_most("longest heartbeat, s", self.longest, longest),
        ]


@contextlib.contextmanager
def drive(
    tasks: int,
    *,
    parallelism: int = 0,
    dies: Callable[[int], bool] = lambda index: index % 10 == 9,
    starts: bool = True,
    seconds: tuple[float, float] = (0.1, 0.5),
    options: dict[str, str] | None = None,
    before: Callable[[Proxy], object] = lambda proxy: None,
) -> Iterator[Drive]:
    """Put up everything and start the executor; all is gone afterwards.

    ``parallelism``: slots, by default one for each task. ``dies``: which tasks' workers are killed for memory, by map
    index; by default one in ten. ``starts``: whether tasks start at all; those that do not have to fail. ``seconds``:
    how long a task takes. ``options``: Airflow's configuration, ``SECTION__OPTION`` to value. ``before``: called before
    the executor starts.
    """
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(postgresql())
        stack.callback(database.clear)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cw-chaos-")))
        cluster = stack.enter_context(SimulatedCluster(nodes=tasks // 100 + 2))
        proxy = stack.enter_context(Proxy(cluster.kubeconfig, folder))
        workers = stack.enter_context(Workers(cluster, database.engine, dies=dies, seconds=seconds))
        stack.enter_context(environment(_configuration(folder, proxy.kubeconfig, options or {})))
        executor = KubernetesExecutor(parallelism=parallelism or tasks)
        executor.job_id = _JOB
        rows = make_task_instances(tasks, _JOB)
        before(proxy)
        executor.start()
        stack.callback(executor.end)
        yield Drive(cluster, proxy, database, workers, executor, rows, dies, starts)


def _configuration(folder: Path, kubeconfig: Path, options: dict[str, str]) -> dict[str, str]:
    template = folder / "template.yaml"
    template.write_text(_TEMPLATE)
    chosen = {
        "KUBERNETES_EXECUTOR__IN_CLUSTER": "False",
        "KUBERNETES_EXECUTOR__CONFIG_FILE": str(kubeconfig),
        "KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE": str(template),
        "KUBERNETES_EXECUTOR__DELETE_WORKER_PODS_ON_FAILURE": "True",
        "CROSSWIND__SETTLE_INTERVAL": "1",
        "LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        **options,
    }
    return {f"AIRFLOW__{name}": value for name, value in chosen.items()}
