"""An executor driven as the scheduler drives it, on a simulated cluster behind a proxy, with a real metadata database.

The relevant part of the scheduler's loop is the real one: ``SchedulerJobRunner.process_executor_events``, on rows that
it may lock. The executor writes the tasks' event logs itself; the drive reads them back from the table.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
import uuid
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
from benchmarks.chaos.databases import ChaosDatabase, environment, postgresql
from benchmarks.chaos.proxying import Proxy
from benchmarks.chaos.scenario import Row, at_least, at_most, exactly
from benchmarks.chaos.working import ChaosWorkers
from benchmarks.contestant import make_task_instances, workloads
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from crosswind.engine.warm_claim_patch import POOL_LABEL
from crosswind.executor import KubernetesExecutor
from kubelocal.registry.generic_registry import ClusterRegistry

__all__ = ["ChaosDrive", "drive"]

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
"""The time limit of a scenario's tasks: many times the time that they need on a busy machine."""
_COMPONENT = "app.kubernetes.io/component"
_SETTLED_S = 90.0
"""The time limit for the deletion of the remaining pods and Secrets after all tasks have ended.

A pod that the server has made of a request without an answer, after its task had ended, is deleted by the second round
of housekeeping that sees it, and rounds are 30 s apart.
"""
_LONGEST_BEAT = 1.0


@dataclass
class ChaosDrive:
    """A running executor and its surroundings. ``disturb`` is called at each heartbeat once a task has started."""

    cluster: SimulatedCluster
    proxy: Proxy
    database: ChaosDatabase
    workers: ChaosWorkers
    executor: KubernetesExecutor
    tasks: list[dict[str, Any]]
    dies: Callable[[int], bool]
    starts: bool
    disturb: Callable[[], object] = lambda: None
    schedules: bool = False
    """Whether tasks that the executor has rescheduled are queued again, as the scheduler does."""
    faults: int = 0
    """The number of faults that were not injected by the proxy."""
    emitted: Counter[Any] = field(default_factory=Counter)
    """Failures that the executor has reported, by key."""
    longest: float = 0.0
    refused: int = 0
    """How often the database was unavailable to the scheduler."""

    def queue(self) -> None:
        """Queue all tasks."""
        for workload in workloads(self.tasks):
            self.executor.queue_workload(workload, session=None)  # type: ignore[arg-type]

    def beat(self) -> None:
        """Run the part of the scheduler's loop that concerns an executor."""
        begun = time.perf_counter()
        self.executor.heartbeat()
        self.longest = max(self.longest, time.perf_counter() - begun)
        self.emitted.update(self.executor.event_buffer.keys())
        try:
            with create_session() as session:
                session.execute(select(1))  # the loop queries the database in each iteration
                if self.executor.event_buffer:
                    SchedulerJobRunner.process_executor_events(self.executor, _JOB, DBDagBag(), session)
            if self.schedules:
                self._schedule()
        except DBAPIError:
            self.refused += 1

    def assign(self, row: dict[str, Any], job: int) -> None:
        """Queue a row for the executor of a job, under its next try if it has had one."""
        columns = ("try_number", "external_executor_id", "queued_by_job_id")
        row |= {"external_executor_id": str(uuid.uuid4()), "queued_by_job_id": job}
        values = {name: row[name] for name in columns}
        table = TaskInstance.__table__
        with self.database.engine.begin() as connection:
            connection.execute(table.update().where(table.c.id == row["id"]).values(state="queued", **values))

    def _schedule(self) -> None:
        """Queue the tasks that have no state, with the ids of their next tries."""
        table = TaskInstance.__table__
        with self.database.engine.connect() as connection:
            rows = connection.execute(
                select(table.c.map_index, table.c.id, table.c.try_number).where(table.c.state.is_(None))
            ).all()
        for index, task, number in rows:
            self.tasks[index] |= {"id": task, "try_number": number + 1}
            self.assign(self.tasks[index], _JOB)
            (workload,) = workloads([self.tasks[index]])
            self.executor.queue_workload(workload, session=None)  # type: ignore[arg-type]

    def retries_used(self) -> int:
        """Return the tries that count as retries: a lost try adds one to ``max_tries``, and so costs none."""
        table = TaskInstance.__table__
        with self.database.engine.connect() as connection:
            tries = connection.execute(select(table.c.try_number, table.c.max_tries)).all()
        return sum(number - 1 - most for number, most in tries)

    def until(self, happened: Callable[[], Any], limit: float) -> bool:
        """Send heartbeats until a condition holds; False if it does not after ``limit`` seconds."""
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
        """Queue all tasks, and run until they have ended."""
        self.queue()
        self.settle(limit)

    def settle(self, limit: float = _LIMIT_S) -> None:
        """Run until every slot is free or ``limit`` seconds have passed; then, without faults, until all is deleted."""
        self.until(self.is_over, limit)
        self.disturb = lambda: None
        self.proxy.fault = lambda method, path: None
        self.proxy.release()
        self.database.start()
        self.until(lambda: self.is_empty() and not any(self._left()), _SETTLED_S)

    def is_over(self) -> bool:
        """Whether the executor has no task, and each task instance has ended."""
        if self.executor.running or self.executor.queued_tasks:
            return False
        with contextlib.suppress(DBAPIError):
            unfinished = {"queued", "running", None} if self.schedules else {"queued", "running"}
            return not {*self.states().values()} & unfinished
        return False  # the database is unavailable

    def is_empty(self) -> bool:
        """Return whether the engine has no pod and no Secret left."""
        engine = self.executor._engine
        figures = engine.figures() if engine is not None else {}
        return not any(
            figures.get(name) for name in ("waiting", "created", "running", "ended", "secrets", "cleaning up")
        )

    def _left(self) -> tuple[int, int]:
        """Return the numbers of pods and Secrets in the cluster; a pod that waits for a task, and its Secret, stay."""
        return self.cluster.do(lambda registry: (_without(registry, "Pod"), _without(registry, "Secret")))

    def states(self) -> dict[UUID, str | None]:
        """Return the state of each task instance in the database."""
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
        """Return the texts that core wrote for the terminal events that it acted on, by map index."""
        table = Log.__table__
        texts: dict[int, list[str]] = {}
        with self.database.engine.connect() as connection:
            for index, extra in connection.execute(
                select(table.c.map_index, table.c.extra).where(table.c.event == "state mismatch")
            ):
                texts.setdefault(index, []).append(extra)
        return texts

    def rows(self, faults: int, *, longest: float = _LONGEST_BEAT) -> list[Row]:
        """End the executor and return the figures. ``faults``: the smallest valid number of injected faults."""
        running, slots = len(self.executor.running), self.executor.slots_available
        self.executor.end()
        states, starts = self.states(), self.workers.starts
        fails = {row["map_index"]: not self.starts or self.dies(row["map_index"]) for row in self.tasks}
        expected_states = {row["id"]: "failed" if fails[row["map_index"]] else "success" for row in self.tasks}
        mismatches = self.mismatches()
        unlogged = {index for index, expected in fails.items() if expected} - self.logged("pod failed")
        wrong = [index for index, expected in fails.items() if len(mismatches.get(index, ())) != expected]
        pods, secrets = self._left()
        return [
            at_least("faults injected", self.faults + self.proxy.injected, faults),
            exactly("tasks that started", sum(starts.values()), len(self.tasks) * self.starts),
            exactly("tasks lost", sum(states.get(task) != state for task, state in expected_states.items())),
            exactly("tasks run twice", sum(count > 1 for count in starts.values())),
            exactly("terminal events missing or too many", len(wrong)),
            exactly("failures missing from the tasks' event logs", len(unlogged)),
            exactly("running at the end", running),
            exactly("free slots at the end", slots, self.executor.parallelism),
            exactly("pods left", pods),
            exactly("Secrets left", secrets),
            at_most("longest heartbeat, s", self.longest, longest),
        ]


def _without(registry: ClusterRegistry, kind: str) -> int:
    """Return the number of objects of a kind, but for those of pods that wait for a task."""
    labels = [manifest["metadata"].get("labels") or {} for manifest in registry.list(kind)]
    return sum(POOL_LABEL not in each and each.get(_COMPONENT) != "warm-pods" for each in labels)


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
) -> Iterator[ChaosDrive]:
    """Start cluster, proxy, database and executor, and remove all of them on exit.

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
        workers = stack.enter_context(ChaosWorkers(cluster, database.engine, dies=dies, seconds=seconds))
        stack.enter_context(environment(_configuration(folder, proxy.kubeconfig, options or {})))
        executor = KubernetesExecutor(parallelism=parallelism or tasks)
        executor.job_id = _JOB
        rows = make_task_instances(tasks, _JOB)
        before(proxy)
        executor.start()
        stack.callback(executor.end)
        yield ChaosDrive(cluster, proxy, database, workers, executor, rows, dies, starts)


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
