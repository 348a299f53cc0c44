"""A real Airflow and a one-machine cluster whose pods are real processes, for the time that a task takes to start.

Everything is a process of its own: the cluster, PostgreSQL, scheduler, DAG processor and API server, and each worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sysconfig
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import sqlalchemy
import yaml
from benchmarks.executors import NAMESPACE, OURS, database, executor_environment, simulated_cluster
from benchmarks.whole_scheduler import log_in

from crosswind.demo.processes import Airflow, airflow_environment, free_port
from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES, NODES, PODS
from crosswind.settings import KubeSettings
from crosswind.types import Manifest

__all__ = ["CHAIN", "COLD", "WARM", "StartLab", "StartedTask", "lab"]

WARM, COLD, CHAIN = "start_warm", "start_cold", "chain"
"""DAGs: a task in the queue with waiting pods, one in the queue without, and a chain of tasks in the first queue."""
COLD_QUEUE = "cold"
CHAIN_LENGTH, CHAIN_TASK_S = 10, 1.0
IMAGE = "apache/airflow:3.3.2"
CLAIMED = "crosswind/claim"
BYTECODE = "bytecode"
PACKAGES = Path(sysconfig.get_path("purelib")).resolve()
_UP_S, _RUN_S = 120.0, 180.0

DAGS = f"""
import time
from airflow.sdk import DAG, task

def work(seconds):
    time.sleep(seconds)
    return time.time()

for name, queue in (("{WARM}", "default"), ("{COLD}", "{COLD_QUEUE}")):
    with DAG(name, schedule=None, max_active_runs=100):
        task(work, task_id="work", queue=queue)(0.2)

with DAG("{CHAIN}", schedule=None):
    before = None
    for number in range({CHAIN_LENGTH}):
        step = task(work, task_id=f"step_{{number}}")({CHAIN_TASK_S})
        if before is not None:
            before >> step
        before = step
"""


@dataclass(frozen=True)
class OfficialImage:
    """The packages of this environment as the official image has them: bytecode of the standard library alone.

    ``cache``: bytecode of everything, as a Job leaves it on a volume for ``[crosswind] bytecode_volume``.
    """

    packages: Path
    cache: Path

    @classmethod
    def make(cls, folder: Path) -> OfficialImage:
        """Link the files of this environment below ``folder``; nothing is copied or compiled."""
        image = cls(folder / "packages", folder / "cache")
        _link(PACKAGES, image.packages, lambda path: "__pycache__" not in path.parts)
        for source in (PACKAGES, Path(sysconfig.get_path("stdlib"))):
            target = image.cache / str(source).lstrip("/")
            _link(source, target, _is_bytecode, lambda path: path.parent.parent / path.name)
        return image

    @property
    def mounts(self) -> dict[str, str]:
        """What the image has at which path."""
        return {str(PACKAGES): str(self.packages)}


def _is_bytecode(path: Path) -> bool:
    return "__pycache__" in path.parts and not {"site-packages", "test"} & {*path.parts}


def _link(
    source: Path,
    target: Path,
    keeps: Callable[[Path], bool],
    place: Callable[[Path], Path] = lambda path: path,
) -> None:
    for folder, _, files in os.walk(source):
        for name in files:
            relative = Path(folder, name).relative_to(source)
            if keeps(relative):
                linked = target / place(relative)
                linked.parent.mkdir(parents=True, exist_ok=True)
                os.link(Path(folder, name).resolve(), linked)


@dataclass(frozen=True)
class StartedTask:
    """One task instance. Times in seconds since 1970; ``code_ended``: when its own code ended."""

    task_id: str
    state: str
    queued: float
    started: float
    code_ended: float

    @property
    def wait(self) -> float:
        """Seconds from queued to running."""
        return self.started - self.queued


@dataclass
class StartLab:
    """A running Airflow with one executor."""

    airflow: Airflow
    client: Client
    database: sqlalchemy.Engine
    trigger_url: str
    web: aiohttp.ClientSession
    headers: Mapping[str, str]
    claimed: set[str] = field(default_factory=set)
    """Names of the pods that got their task by a claim."""

    def rows(self, statement: str, **values: Any) -> list[Any]:
        """Query the metadata database."""
        with self.database.begin() as connection:
            return list(connection.execute(sqlalchemy.text(statement), values))

    async def until(self, happened: Any, limit: float, what: str) -> None:
        """Wait until a condition holds. Raises ``SystemExit`` with the end of the scheduler's log."""
        end = time.monotonic() + limit
        while not await asyncio.to_thread(happened):
            self.airflow.check()
            if time.monotonic() > end:
                raise SystemExit(f"not within {limit:g} s: {what}\\n{self.airflow.log_end('scheduler', 40)}")
            await asyncio.sleep(0.1)

    async def trigger(self, dag_id: str) -> str:
        """Start a run and return its id."""
        url = f"{self.trigger_url}/api/v2/dags/{dag_id}/dagRuns"
        async with self.web.post(url, json={"logical_date": None}, headers=self.headers) as answer:
            answer.raise_for_status()
            return str((await answer.json())["dag_run_id"])

    async def ready_pods(self, count: int, limit: float = _RUN_S) -> None:
        """Wait until so many pods wait for a workload."""
        end = time.monotonic() + limit
        while (ready := len(await self.waiting_pods())) < count:
            self.airflow.check()
            if time.monotonic() > end:
                log = self.airflow.log_end("scheduler", 40)
                raise SystemExit(f"{ready} of {count} pods waited after {limit:g} s\\n{log}")
            await asyncio.sleep(0.2)

    async def waiting_pods(self) -> list[Manifest]:
        """Return the pods of the pool that can be claimed."""
        pods = (await self.client.list(PODS, namespace=NAMESPACE, labels="crosswind/pool")).items
        return [pod for pod in pods if _started(pod)]

    async def run_one(self, dag_id: str) -> list[StartedTask]:
        """Run a DAG once and return its tasks, in their order."""
        run_id = await self.trigger(dag_id)
        over = "SELECT 1 FROM dag_run WHERE run_id = :run AND state IN ('success', 'failed')"
        await self.until(lambda: self.rows(over, run=run_id), _RUN_S, f"the end of a run of {dag_id}")
        return await asyncio.to_thread(self.tasks, run_id)

    def tasks(self, run_id: str) -> list[StartedTask]:
        """Return the tasks of a run in the order of their starts."""
        query = (
            "SELECT t.task_id, t.state, EXTRACT(EPOCH FROM t.queued_dttm), EXTRACT(EPOCH FROM t.start_date), x.value"
            " FROM task_instance t LEFT JOIN xcom x ON x.run_id = t.run_id AND x.dag_id = t.dag_id"
            " AND x.task_id = t.task_id AND x.key = 'return_value' WHERE t.run_id = :run ORDER BY t.start_date"
        )
        return [
            StartedTask(task, str(state), float(queued or 0), float(started or 0), float(value or 0))
            for task, state, queued, started, value in self.rows(query, run=run_id)
        ]

    async def watch_claims(self) -> None:
        """Note the pods that were claimed, until cancelled."""
        version = (await self.client.list(PODS, namespace=NAMESPACE, labels=CLAIMED)).version
        while True:
            async for event in self.client.watch(
                PODS, namespace=NAMESPACE, labels=CLAIMED, version=version, timeout=300
            ):
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self.claimed.add(event["object"]["metadata"]["name"])


def _started(pod: Manifest) -> bool:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return any(status["name"] == "base" and status.get("started") for status in statuses)


@contextlib.asynccontextmanager
async def lab(
    executor: str = OURS,
    *,
    nap: float = 0.1,
    options: Mapping[str, str] | None = None,
    image: OfficialImage | None = None,
) -> AsyncIterator[StartLab]:
    """Start everything with one executor.

    ``nap``: ``[scheduler] scheduler_idle_sleep_time``. ``options``: of ``[crosswind]``. ``image``: of the workers; None
    is one with bytecode of everything.
    """
    async with contextlib.AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cw-start-")))
        (home / "dags").mkdir()
        (home / "dags" / "starts.py").write_text(DAGS)
        url = stack.enter_context(database("postgresql", home))
        images = {IMAGE: {"like": IMAGE, "mounts": image.mounts}} if image else {}
        kubeconfig, _ = await stack.enter_async_context(simulated_cluster(home, 0, images=images, network="shared"))
        client = await stack.enter_async_context(await Client.connect(KubeSettings(kubeconfig=str(kubeconfig))))
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        host, port = await _host_address(client), free_port()
        environment = airflow_environment(home, home / "dags", host, port) | {
            "AIRFLOW__CORE__EXECUTOR": executor,
            "AIRFLOW__CORE__PARALLELISM": "32",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": str(nap),
            **executor_environment(home, kubeconfig, {}),
            **{f"AIRFLOW__CROSSWIND__{name}": value for name, value in (options or {}).items()},
        }
        api = environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
        (home / "template.yaml").write_text(yaml.safe_dump(_template(api, home / "dags", image)))
        airflow = await stack.enter_async_context(Airflow(home, environment, host, port))
        await airflow.migrate()
        await airflow.start()
        web = await stack.enter_async_context(aiohttp.ClientSession())
        engine = sqlalchemy.create_engine(url)
        stack.callback(engine.dispose)
        headers = await log_in(airflow.url, web)
        started = StartLab(airflow, client, engine, airflow.url, web, headers)
        await started.until(lambda: _is_ready(started), _UP_S, "Airflow up")
        watching = asyncio.create_task(started.watch_claims())
        try:
            yield started
        finally:
            watching.cancel()
            await asyncio.wait([watching])


def _is_ready(started: StartLab) -> bool:
    query = "SELECT 1 FROM job WHERE job_type = 'SchedulerJob' AND state = 'running'"
    dags = started.rows("SELECT dag_id FROM dag WHERE NOT is_stale AND NOT is_paused")
    return len(dags) == len((WARM, COLD, CHAIN)) and bool(started.rows(query))


async def _host_address(client: Client) -> str:
    """Return the address at which pods reach this machine."""
    (node,) = (await client.list(NODES)).items
    return next(each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP")


def _template(api: str, dags: Path, image: OfficialImage | None) -> Manifest:
    environment = {
        "AIRFLOW_HOME": "/opt/airflow",
        "AIRFLOW__CORE__DAGS_FOLDER": "/opt/airflow/dags",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": api,
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": "/opt/airflow/logs",
    }
    base = {
        "name": "base",
        "image": IMAGE,
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "volumeMounts": [
            {"name": "dags", "mountPath": "/opt/airflow/dags", "readOnly": True},
            {"name": "logs", "mountPath": "/opt/airflow/logs"},
        ],
    }
    volumes = [{"name": "dags", "hostPath": {"path": str(dags)}}, {"name": "logs", "emptyDir": {}}]
    if image:
        volumes.append({"name": BYTECODE, "hostPath": {"path": str(image.cache)}})
    spec = {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [base], "volumes": volumes}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, "spec": spec}


def hops(tasks: Sequence[StartedTask]) -> list[float]:
    """Return the seconds from the end of each task's code until the next one runs."""
    return [after.started - before.code_ended for before, after in itertools.pairwise(tasks)]


def overhead(tasks: Sequence[StartedTask]) -> float:
    """Return the seconds of a chain beyond those of its tasks' own code."""
    return tasks[-1].code_ended - tasks[0].queued - CHAIN_TASK_S * len(tasks)


def warm_options(count: int) -> dict[str, str]:
    """Return the options of ours: so many waiting pods for the default queue, none for the other."""
    pools = {"min": count, "max": count + 2, "queues": {COLD_QUEUE: {"min": 0, "max": 0}}}
    return {"WARM": json.dumps(pools)}
