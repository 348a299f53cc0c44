"""A real scheduler on PostgreSQL with a real DAG of 500 tasks, stock tuned against ours.

    python -m benchmarks.whole_scheduler [--tasks N] [--duration S] [--output text|markdown|json]

Scheduler, DAG processor and API server are Airflow's own processes. The nodes are simulated, and the workers of their
pods are played here through the real Execution API, with the token from each pod's own workload: the task runs for
``--duration`` seconds and succeeds. A task thus has the states queued, running, success as in production. Only the time
that a worker needs to start is missing, which is the same for both executors. The settings of scheduler, pool and
database are the same for both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import sqlalchemy
from benchmarks.executors import PODS_PER_NODE, TEMPLATE, database, executor_environment, simulated_cluster
from benchmarks.metering import quantile, tree_cpu
from benchmarks.playing_workers import Players
from benchmarks.tables import ResultTable, machine, show

from crosswind.demo.processes import Airflow, airflow_environment, free_port
from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES, PODS
from crosswind.settings import KubeSettings

__all__ = ["CONTESTANTS", "SchedulerContestant", "SchedulerOutcome", "main", "scheduler_environment", "table"]

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE, DAG_ID = "bench", "whole"
HOST = "127.0.0.1"
START_S, LIMIT_S = 90.0, 600.0

DAG = """\
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

with DAG({dag_id!r}, schedule=None):
    for number in range({tasks}):
        BashOperator(task_id=f"work_{{number}}", bash_command="true")
"""


@dataclass(frozen=True)
class SchedulerContestant:
    """An executor of ``benchmarks.timed_executors`` with its settings."""

    label: str
    executor: str
    settings: tuple[tuple[str, str], ...] = ()


CONTESTANTS = (
    SchedulerContestant(
        "stock, tuned",
        "benchmarks.timed_executors.Stock",
        (("WORKER_PODS_CREATION_BATCH_SIZE", "64"), ("ASYNC_POD_CREATION", "True")),
    ),
    SchedulerContestant("Crosswind, defaults", "benchmarks.timed_executors.Ours"),
)


@dataclass(frozen=True)
class SchedulerOutcome:
    """The result of one contestant. Times in seconds."""

    label: str
    tasks: int
    succeeded: int
    started_once: int
    """Tasks that exactly one worker was allowed to run."""
    wall: float
    """From the trigger to the end of the DAG run."""
    queued_to_running: float
    """Median."""
    queued_to_running_p99: float
    heartbeat_longest: float
    heartbeat_p99: float
    loop_median: float
    """From the start of a heartbeat to the start of the next one, while tasks were in progress."""
    cpu: float
    """Of the scheduler and all its children, from the trigger to the end of the DAG run."""
    api_cpu: float
    """Of the API server, which takes the workers' requests in one process, in the same time."""
    pods_left: int
    problems: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether every task succeeded, exactly one worker ran it, and no pod is left."""
        return self.succeeded == self.started_once == self.tasks and not (self.pods_left or self.problems)


def scheduler_environment(
    home: Path, url: str, kubeconfig: Path, port: int, tasks: int, contestant: SchedulerContestant
) -> dict[str, str]:
    """Return Airflow's configuration: limits that do not bind, the same for both, and the executor's own section."""
    return airflow_environment(home, home / "dags", HOST, port) | {
        "AIRFLOW__CORE__EXECUTOR": contestant.executor,
        "AIRFLOW__CORE__DEFAULT_POOL_TASK_SLOT_COUNT": str(tasks),
        "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": str(tasks),
        "AIRFLOW__CORE__PARALLELISM": str(tasks),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        "AIRFLOW__SCHEDULER__MAX_TIS_PER_QUERY": "512",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1",
        "CROSSWIND_BENCH_HEARTBEATS": str(home / "heartbeats.jsonl"),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        **executor_environment(home, kubeconfig, dict(contestant.settings)),
    }


class Watched:
    """The DAG's run as the database has it."""

    def __init__(self, url: str) -> None:
        self._engine = sqlalchemy.create_engine(url)

    def _rows(self, statement: str, **values: Any) -> list[Any]:
        with self._engine.begin() as connection:
            return list(connection.execute(sqlalchemy.text(statement), values))

    def is_ready(self) -> bool:
        """Whether the database has the DAG and a live scheduler."""
        known = "SELECT 1 FROM dag WHERE dag_id = :dag AND NOT is_stale AND NOT is_paused"
        alive = "SELECT 1 FROM job WHERE job_type = 'SchedulerJob' AND state = 'running' AND latest_heartbeat > :since"
        since = time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(time.time() - 10))
        return bool(self._rows(known, dag=DAG_ID) and self._rows(alive, since=since))

    def is_over(self, run_id: str) -> bool:
        """Whether the DAG run has ended."""
        query = "SELECT 1 FROM dag_run WHERE run_id = :run AND state IN ('success', 'failed')"
        return bool(self._rows(query, run=run_id))

    def tasks(self, run_id: str) -> list[Any]:
        """Return state, and seconds from queued to running, of each task instance."""
        query = "SELECT state, EXTRACT(EPOCH FROM start_date - queued_dttm) FROM task_instance WHERE run_id = :run"
        return self._rows(query, run=run_id)


async def until(happened: Callable[[], bool], limit: float, what: str) -> None:
    """Poll a condition in a thread until it holds. Raises ``SystemExit`` after ``limit`` seconds."""
    end = time.monotonic() + limit
    while not await asyncio.to_thread(happened):
        if time.monotonic() > end:
            raise SystemExit(f"not within {limit:g} s: {what}")
        await asyncio.sleep(0.1)


async def ready(airflow: Airflow, watched: Watched) -> None:
    """Wait until Airflow is up; raises ``SystemExit`` with the ends of its logs."""

    def is_ready() -> bool:
        airflow.check()
        return watched.is_ready()

    try:
        await until(is_ready, START_S, "Airflow up")
    except SystemExit as late:
        ends = "\n".join(airflow.log_end(name) for name in ("scheduler", "dag-processor"))
        raise SystemExit(f"{late}\n{ends}") from None


async def log_in(api: str, session: aiohttp.ClientSession) -> dict[str, str]:
    """Wait for the API server; return the headers of requests to it."""
    end = time.monotonic() + START_S
    while True:
        try:
            async with session.get(f"{api}/auth/token") as answer:
                return {"Authorization": f"Bearer {(await answer.json())['access_token']}"}
        except aiohttp.ClientError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.2)


async def trigger(api: str, session: aiohttp.ClientSession, headers: dict[str, str]) -> str:
    """Start a run of the DAG and return its id."""
    url = f"{api}/api/v2/dags/{DAG_ID}/dagRuns"
    async with session.post(url, json={"logical_date": None}, headers=headers) as answer:
        answer.raise_for_status()
        return str((await answer.json())["dag_run_id"])


@contextlib.asynccontextmanager
async def playing(kubeconfig: Path, api: str, duration: float) -> AsyncIterator[tuple[Client, Players]]:
    """Play all workers of the namespace within the block."""
    connector = aiohttp.TCPConnector(limit=64)
    async with (
        await Client.connect(KubeSettings(kubeconfig=str(kubeconfig))) as client,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        players = Players(client, session, NAMESPACE, api=f"{api}/execution", duration=duration)
        task = asyncio.create_task(players.run())
        try:
            yield client, players
        finally:
            task.cancel()
            await asyncio.wait([task])


async def compete(
    contestant: SchedulerContestant, home: Path, url: str, tasks: int, duration: float
) -> SchedulerOutcome:
    """Run the DAG once with one executor, against a fresh cluster."""
    port = free_port(HOST)
    async with simulated_cluster(home, tasks // PODS_PER_NODE + 2, simulated_run=None) as (kubeconfig, _):
        environment = scheduler_environment(home, url, kubeconfig, port, tasks, contestant)
        async with Airflow(home, environment, HOST, port) as airflow:
            await airflow.migrate()
            await airflow.start()
            async with playing(kubeconfig, airflow.url, duration) as (client, players), aiohttp.ClientSession() as web:
                watched = Watched(url)
                await ready(airflow, watched)
                headers = await log_in(airflow.url, web)
                scheduler, api_server = (_UsedCpu(airflow.process_id(name)) for name in ("scheduler", "api-server"))
                begun = time.perf_counter()
                run_id = await trigger(airflow.url, web, headers)
                await until(lambda: watched.is_over(run_id), LIMIT_S, f"the DAG run with {contestant.label}")
                wall, cpu, api_cpu = time.perf_counter() - begun, scheduler.seconds(), api_server.seconds()
                left = await remaining_pods(client)
                await airflow.stop()
        beats = [tuple(json.loads(line)) for line in (home / "heartbeats.jsonl").read_text().splitlines()]
        during = [beat for beat in beats if begun <= beat[0] <= begun + wall]
        return outcome(contestant, tasks, wall, cpu, api_cpu, left, during, watched.tasks(run_id), players)


class _UsedCpu:
    """The CPU time that a process and its children use from now on."""

    def __init__(self, process_id: int) -> None:
        self._process = psutil.Process(process_id)
        self._known: dict[int, float] = {}
        self._before = tree_cpu(self._process, self._known)

    def seconds(self) -> float:
        """Return the seconds since construction."""
        return tree_cpu(self._process, self._known) - self._before


async def remaining_pods(client: Client, patience: float = 30.0) -> int:
    """Return the number of pods once it has stopped falling, or after ``patience`` seconds."""
    end = time.monotonic() + patience
    while True:
        left = len((await client.list(PODS, namespace=NAMESPACE)).items)
        if not left or time.monotonic() > end:
            return left
        await asyncio.sleep(0.5)


def outcome(
    contestant: SchedulerContestant,
    tasks: int,
    wall: float,
    cpu: float,
    api_cpu: float,
    left: int,
    beats: list[tuple[float, float]],
    rows: list[Any],
    players: Players,
) -> SchedulerOutcome:
    """Collect the figures."""
    waits = [float(wait) for _, wait in rows if wait is not None]
    runs: dict[str, int] = {}
    for start in players.starts:
        runs[start.ti_id] = runs.get(start.ti_id, 0) + start.ran
    loops = [later[0] - earlier[0] for earlier, later in itertools.pairwise(beats)]
    took = [beat[1] for beat in beats]
    return SchedulerOutcome(
        label=contestant.label,
        tasks=tasks,
        succeeded=sum(state == "success" for state, _ in rows),
        started_once=sum(count == 1 for count in runs.values()),
        wall=wall,
        queued_to_running=statistics.median(waits),
        queued_to_running_p99=quantile(waits, 0.99),
        heartbeat_longest=max(took),
        heartbeat_p99=quantile(took, 0.99),
        loop_median=statistics.median(loops),
        cpu=cpu,
        api_cpu=api_cpu,
        pods_left=left,
        problems=tuple(players.problems[:3]),
    )


def table(outcomes: Sequence[SchedulerOutcome], duration: float) -> ResultTable:
    """Return the table that is printed."""
    columns = (
        "",
        "DAG run",
        "tasks/s",
        "queued to running, median / p99",
        "longest heartbeat / p99",
        "loop, median",
        "scheduler CPU per task",
        "API server CPU per task",
        "succeeded",
        "run by one worker",
        "pods left",
    )
    tasks = outcomes[0].tasks
    result = ResultTable(
        f"A real scheduler on PostgreSQL, a DAG of {tasks:,} tasks of {duration:g} s, simulated nodes; {machine()}",
        columns,
    )
    for outcome in outcomes:
        result.rows.append(
            (
                outcome.label,
                f"{outcome.wall:.1f} s",
                f"{outcome.succeeded / outcome.wall:.1f}",
                f"{outcome.queued_to_running:.1f} / {outcome.queued_to_running_p99:.1f} s",
                f"{outcome.heartbeat_longest * 1000:,.0f} / {outcome.heartbeat_p99 * 1000:,.0f} ms",
                f"{outcome.loop_median * 1000:,.0f} ms",
                f"{outcome.cpu / max(outcome.succeeded, 1) * 1000:.1f} ms",
                f"{outcome.api_cpu / max(outcome.succeeded, 1) * 1000:.1f} ms",
                f"{outcome.succeeded:,}",
                f"{outcome.started_once:,}",
                str(outcome.pods_left),
            )
        )
    return result


async def compare(tasks: int, duration: float) -> list[SchedulerOutcome]:
    """Run both, one after the other."""
    with tempfile.TemporaryDirectory(prefix="crosswind-bench-") as folder:
        home = Path(folder)
        (home / "template.yaml").write_text(TEMPLATE)
        (home / "dags").mkdir()
        (home / "dags" / "whole.py").write_text(DAG.format(dag_id=DAG_ID, tasks=tasks))
        with database("postgresql", home) as url:
            return [await compete(contestant, home, url, tasks, duration) for contestant in CONTESTANTS]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when a task of ours did not succeed, or did not run exactly once."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.whole_scheduler")
    parser.add_argument("--tasks", type=int, default=500)
    parser.add_argument("--duration", type=float, default=1.0, help="seconds that each task takes")
    parser.add_argument("--output", choices=["text", "markdown", "json"], default="text")
    options = parser.parse_args(arguments)
    outcomes = asyncio.run(compare(options.tasks, options.duration))
    if options.output == "json":
        print(json.dumps([asdict(outcome) for outcome in outcomes]))
    else:
        show([table(outcomes, options.duration)], options.output)
    for outcome in outcomes:
        for problem in outcome.problems:
            print(f"{outcome.label}: {problem}", file=sys.stderr)
    return 0 if outcomes[-1].right else 1


if __name__ == "__main__":
    sys.exit(main())
