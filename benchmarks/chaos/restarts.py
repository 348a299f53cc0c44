"""Schedulers that are killed: real processes on PostgreSQL, with the workers of simulated pods played through the API.

A worker starts each task, runs it for some time and reports its end through the real Execution API, where the starts of
a task are counted. A killed scheduler counts as dead after 5 s here (30 s by default). Schedulers look for orphans
every 2 s (300 s by default), and queue a twelfth of the tasks at a time, so that two share them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import sqlalchemy
from benchmarks.chaos.databases import environment as variables
from benchmarks.chaos.proxying import Answer, Proxy
from benchmarks.chaos.scenario import Row, Scenario, ScenarioSize, at_least, exactly
from benchmarks.executors import NAMESPACE, PODS_PER_NODE, TEMPLATE, database, simulated_cluster
from benchmarks.playing_workers import Players, Start
from benchmarks.whole_scheduler import (
    DAG,
    DAG_ID,
    HOST,
    SchedulerContestant,
    Watched,
    log_in,
    playing,
    ready,
    scheduler_environment,
    trigger,
)

from crosswind.demo.processes import Airflow, free_port
from crosswind.kube.client import Client
from crosswind.kube.resources import PODS, SECRETS, Resource
from crosswind.types import Manifest

__all__ = ["SCENARIOS", "Lab", "killed", "lab", "two"]

_FAMILY = "restarts"
_OURS = SchedulerContestant("Crosswind", "crosswind.executor.KubernetesExecutor")
_SCHEDULER = {
    "SCHEDULER_HEARTBEAT_SEC": "1",
    "SCHEDULER_HEALTH_CHECK_THRESHOLD": "5",
    "ORPHANED_TASKS_CHECK_INTERVAL": "2",
    "SCHEDULER_IDLE_SLEEP_TIME": "0.2",
}
_WORKLOADS = "app.kubernetes.io/component=workloads"
_LIMIT_S = 180.0
_RUNS = 3
"""Attempts of a DAG run until two schedulers share its tasks."""
_FOR_EVER = 3600.0
_CLEAN_S = 120.0
"""The time limit for the deletion of a Secret without a pod: two sweeps, 30 s apart, after its scheduler is dead."""


@dataclass
class Lab:
    """A real Airflow on PostgreSQL whose schedulers can be killed, and the figures of its workers."""

    home: Path
    airflow: Airflow
    environment: dict[str, str]
    client: Client
    players: Players
    watched: Watched
    database: sqlalchemy.Engine
    tasks: int
    start_run: Callable[[], Awaitable[str]]
    schedulers: list[int] = field(default_factory=list)
    """Process ids of the live ones, the oldest first."""
    killed: int = 0

    def rows(self, statement: str, **values: Any) -> list[Any]:
        """Query the metadata database."""
        with self.database.begin() as connection:
            return list(connection.execute(sqlalchemy.text(statement), values))

    async def until(self, happened: Callable[[], Any], what: str, limit: float = _LIMIT_S) -> None:
        """Wait until a condition holds. Raises ``TimeoutError``."""
        end = time.monotonic() + limit
        while not await asyncio.to_thread(happened):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {limit:g} s: {what}; {self._standing()}")
            await asyncio.sleep(0.1)

    def _standing(self) -> str:
        """Return the state of tasks and pods, for an error."""
        states = dict(self.rows("SELECT coalesce(state, 'none'), count(*) FROM task_instance GROUP BY 1"))
        newest = max(self.home.glob("scheduler*.log"), key=lambda path: path.stat().st_mtime)
        end = "\n".join(newest.read_text(errors="replace").splitlines()[-15:])
        starts, problems = len(self.players.starts), self.players.problems[:2]
        return f"tasks {states}, {starts} workers started, {self.players.at_work} at work, troubles {problems}\n{end}"

    async def add_scheduler(self) -> int:
        """Start one more scheduler, wait until it counts as alive, and return its job.

        Another scheduler's job is no sign of it: one whose heartbeat is late counts as dead for a moment.
        """
        newest = self.newest_job()
        with (self.home / f"scheduler-{self.killed}-{len(self.schedulers)}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "airflow", "scheduler"),
                env=self.environment,
                cwd=self.home,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.schedulers.append(process.pid)
        await self.until(lambda: max(self.alive(), default=0) > newest, "a new scheduler at work")
        return self.newest_job()

    def newest_job(self) -> int:
        """Return the job of the scheduler that was started last, dead or alive."""
        [(job,)] = self.rows("SELECT max(id) FROM job WHERE job_type = 'SchedulerJob'")
        return int(job)

    def kill_scheduler(self) -> None:
        """Kill the oldest scheduler with signal 9."""
        os.kill(self.schedulers.pop(0), signal.SIGKILL)
        self.killed += 1

    def alive(self) -> set[int]:
        """Return the jobs of schedulers with a recent heartbeat."""
        query = "SELECT id FROM job WHERE job_type = 'SchedulerJob' AND state = 'running' AND latest_heartbeat > :since"
        since = time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(time.time() - 5))
        return {row[0] for row in self.rows(query, since=since)}

    def owners(self) -> Counter[int]:
        """Return the number of tasks in flight by scheduler's job."""
        query = "SELECT queued_by_job_id FROM task_instance WHERE state IN ('queued', 'running')"
        return Counter(row[0] for row in self.rows(query))

    async def adopted(self) -> None:
        """Wait until all tasks in flight, and their pods, are those of schedulers that are alive."""
        await self.until(lambda: self.owners().keys() <= self.alive(), "tasks in flight adopted")
        end = time.monotonic() + _LIMIT_S
        while not {_label(pod) for pod in await self.listed(PODS)} <= {str(job) for job in self.alive()}:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"not within {_LIMIT_S:g} s: pods marked by the scheduler that adopts\n{self._log()}"
                )
            await asyncio.sleep(0.2)

    async def listed(self, resource: Resource) -> list[Manifest]:
        """Return the worker pods, or the workload Secrets."""
        labels = _WORKLOADS if resource is SECRETS else "kubernetes_executor=True"
        return (await self.client.list(resource, namespace=NAMESPACE, labels=labels)).items

    async def left(self, resource: Resource, limit: float = _CLEAN_S) -> int:
        """Return the number of objects once it has stopped falling, or after ``limit`` seconds."""
        end = time.monotonic() + limit
        while objects := await self.listed(resource):
            if time.monotonic() > end:
                break
            await asyncio.sleep(0.5)
        return len(objects)

    async def begin(self) -> str:
        """Start a run whose tasks do not end before ``finish``, and return its id."""
        self.players.duration = _FOR_EVER
        return await self.start_run()

    async def finish(self, run_id: str, first: int) -> list[Row]:
        """End the tasks of a run, and return the figures. ``first``: index of its first start in ``players.starts``."""
        self.players.duration = 0.0
        await self.until(lambda: self.watched.is_over(run_id), "the end of the DAG run")
        ran = _ran(self.players.starts[first:])
        states = Counter(state for state, _ in self.watched.tasks(run_id))
        return [
            exactly("tasks lost", self.tasks - states["success"]),
            exactly("tasks that no worker ran", self.tasks - len(ran)),
            exactly("tasks run twice", sum(count > 1 for count in ran.values())),
            exactly("pods left", await self.left(PODS)),
            exactly("Secrets left", await self.left(SECRETS)),
            exactly("troubles of the workers", len(self.players.problems)),
        ]

    async def fill(self) -> Row:
        """Run all tasks once more at the same time, which needs every slot."""
        run_id = await self.begin()
        with contextlib.suppress(TimeoutError):
            await self.until(lambda: self.players.at_work >= self.tasks, "all tasks at work")
        row = exactly("slots free at the end", self.players.at_work, self.tasks)
        self.players.duration = 0.0
        await self.until(lambda: self.watched.is_over(run_id), "the end of the DAG run")
        return row


def _ran(starts: Iterable[Start]) -> Counter[str]:
    return Counter(start.task_id for start in starts if start.ran)


def _label(pod: Manifest) -> str:
    return str(pod["metadata"]["labels"].get("airflow-worker"))


@contextlib.asynccontextmanager
async def lab(tasks: int, fault: Callable[[str, str], Answer] | None = None) -> AsyncIterator[Lab]:
    """Start everything with one scheduler; tasks run until ``finish``.

    ``fault``: the fault of that scheduler's calls of the API server, and of no others.
    """
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cw-restarts-")))
        (home / "template.yaml").write_text(TEMPLATE)
        (home / "dags").mkdir()
        (home / "dags" / "whole.py").write_text(DAG.format(dag_id=DAG_ID, tasks=tasks))
        stack.enter_context(variables({"XDG_RUNTIME_DIR": str(home)}))  # for the database server's package
        url = stack.enter_context(database("postgresql", home))
        nodes = tasks // PODS_PER_NODE + 2
        kubeconfig, _ = await stack.enter_async_context(simulated_cluster(home, nodes, simulated_run=None))
        port = free_port(HOST)
        environment = scheduler_environment(home, url, kubeconfig, port, tasks, _OURS)
        settings = _SCHEDULER | {"MAX_TIS_PER_QUERY": str(max(1, tasks // 12))}  # so that two schedulers share them
        environment |= {f"AIRFLOW__SCHEDULER__{name}": value for name, value in settings.items()}
        first = dict(environment)
        if fault is not None:
            proxy = stack.enter_context(Proxy(kubeconfig, home))
            proxy.fault = fault
            first["AIRFLOW__KUBERNETES_EXECUTOR__CONFIG_FILE"] = str(proxy.kubeconfig)
        airflow = await stack.enter_async_context(Airflow(home, first, HOST, port))
        await airflow.migrate()
        await airflow.start()
        client, players = await stack.enter_async_context(playing(kubeconfig, airflow.url, _FOR_EVER))
        web = await stack.enter_async_context(aiohttp.ClientSession())
        watched, engine = Watched(url), sqlalchemy.create_engine(url)
        stack.callback(engine.dispose)
        await ready(airflow, watched)
        headers = await log_in(airflow.url, web)
        new_lab = Lab(
            *(home, airflow, environment, client, players, watched, engine, tasks),
            start_run=lambda: trigger(airflow.url, web, headers),
            schedulers=[airflow.process_id("scheduler")],
        )
        try:
            yield new_lab
        finally:
            for scheduler in new_lab.schedulers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(scheduler, signal.SIGTERM)
            await asyncio.sleep(0)


async def killed(place: Lab, kills: int, *, early: bool) -> list[Row]:
    """Kill the only scheduler several times. ``early``: the first time while pods are being created."""
    first, in_flight = len(place.players.starts), []
    run_id = await place.begin()
    for number in range(kills):
        running = place.tasks // 4 if early and not number else place.tasks
        await place.until(lambda running=running: place.players.at_work >= running, f"{running} running tasks")
        in_flight.append(place.owners().total())
        place.kill_scheduler()
        await place.add_scheduler()
        await place.adopted()
    return [
        exactly("schedulers killed", place.killed, kills),
        at_least("tasks in flight at each kill", min(in_flight), place.tasks),
        *await place.finish(run_id, first),
    ]


async def two(place: Lab) -> list[Row]:
    """Kill one of two schedulers while each has tasks at work."""
    living = await place.add_scheduler()
    for _ in range(_RUNS):
        first = len(place.players.starts)
        run_id = await place.begin()
        await place.until(lambda: place.players.at_work >= place.tasks, "all tasks at work")
        shares, before = place.owners(), await place.listed(PODS)
        if len(shares) > 1:
            break
        place.players.duration = 0.0  # on a slow machine the first scheduler may take all tasks
        await place.until(lambda run_id=run_id: place.watched.is_over(run_id), "the end of the DAG run")
    place.kill_scheduler()
    await place.until(lambda: place.alive() == {living}, "the other scheduler alone alive")
    await place.adopted()
    after = {pod["metadata"]["uid"]: pod for pod in await place.listed(PODS)}
    theirs = [pod for pod in before if _label(pod) == str(living)]
    touched = [pod for pod in theirs if _changed(pod, after.get(pod["metadata"]["uid"]))]
    lost = [pod for pod in before if pod["metadata"]["uid"] not in after]
    return [
        at_least("tasks of each scheduler at the kill", min(shares.values()) if len(shares) > 1 else 0, 1),
        at_least("tasks in flight at the kill", shares.total(), place.tasks),
        exactly("pods of the living scheduler touched", len(touched)),
        exactly("pods of the dead one not taken over", len(lost)),
        *await place.finish(run_id, first),
    ]


def _changed(before: Manifest, after: Manifest | None) -> bool:
    """Return whether a pod has changed except for its status: its labels, or by its deletion."""
    if after is None:
        return True
    fields = ("labels", "annotations", "deletionTimestamp")
    return any(before["metadata"].get(name) != after["metadata"].get(name) for name in fields)


async def creating(place: Lab, pod_count: int) -> list[Row]:
    """Kill a scheduler that has Secrets without pods, and pods that no answer or event has reported to it."""
    run_id = await place.begin()
    await place.until(lambda: len(place.players.starts) >= pod_count, "pods without an answer")
    pods, secrets = await place.listed(PODS), await place.listed(SECRETS)
    place.kill_scheduler()
    await place.add_scheduler()
    return [
        exactly("pods of which the scheduler heard nothing", len(pods), pod_count),
        at_least("Secrets at the kill", len(secrets), 1),
        *await place.finish(run_id, 0),
    ]


def unheard(pod_count: int) -> Callable[[str, str], Answer]:
    """Return a fault: some pods are created without an answer, no others, and no watch or list reports pods."""
    remaining = itertools.count(pod_count, -1)

    def fault(method: str, path: str) -> Answer:
        if "/pods" not in path:
            return None
        if method == "POST":
            return "unanswered" if next(remaining) > 0 else "dropped"
        return "dropped"

    return fault


def _run(work: Callable[[], Awaitable[Sequence[Row]]]) -> Sequence[Row]:
    """Run a scenario; ``SystemExit`` of a benchmark is an error here."""

    async def awaited() -> Sequence[Row]:
        return await work()

    try:
        return asyncio.run(awaited())
    except SystemExit as late:
        raise RuntimeError(str(late)) from late


def _killed(size: ScenarioSize) -> Sequence[Row]:
    async def work() -> Sequence[Row]:
        async with lab(size.of(200, 12)) as place:
            rows = await killed(place, size.of(3, 1), early=not size.short)
            return [*rows, await place.fill()]

    return _run(work)


def _two(size: ScenarioSize) -> Sequence[Row]:
    async def work() -> Sequence[Row]:
        async with lab(size.of(200, 12)) as place:
            return [*await two(place), await place.fill()]

    return _run(work)


def _creating(size: ScenarioSize) -> Sequence[Row]:
    pod_count = size.of(
        12, 3
    )  # fewer than the initial limit of concurrent requests, which stays while none is answered

    async def work() -> Sequence[Row]:
        async with lab(size.of(200, 12), unheard(pod_count)) as place:
            return [*await creating(place, pod_count), await place.fill()]

    return _run(work)


SCENARIOS = (
    Scenario("scheduler-killed", _FAMILY, "the scheduler is killed three times with 200 tasks in flight", _killed),
    Scenario("one-of-two-killed", _FAMILY, "one of two schedulers is killed while each has tasks at work", _two),
    Scenario("killed-while-creating", _FAMILY, "killed with Secrets without pods and unheard of pods", _creating),
)
