"""Stock, ours and a bare loop: the executor alone, on simulated nodes, with a real metadata database.

The contestants run one after the other, each in a fresh process against a fresh one-machine cluster with simulated
nodes: stock with its defaults, stock tuned, ours, and the minimal Python program ``benchmarks.bare_loop``. This process
plays the workers: it watches the pods and writes ``success`` to the task instances of running pods, as the execution
API would.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy
from benchmarks.metering import quantile
from benchmarks.postgresql import start_server
from benchmarks.tables import ResultTable, machine

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
    """Of ``[kubernetes_executor]``."""
    own: dict[str, str] = field(default_factory=dict)
    """Of ``[crosswind]``."""


TUNED = {"WORKER_PODS_CREATION_BATCH_SIZE": "64", "ASYNC_POD_CREATION": "True"}
STOCK_DEFAULT = Contestant("stock, defaults, 1 s nap", STOCK, 1.0)
STOCK_TUNED = Contestant("stock, tuned: batch 64, async creation, no nap", STOCK, 0.01, TUNED)
ALIKE = {"ARCHIVE_LOGS": "never"}
"""As with remote logging or a log volume; stock keeps no logs itself."""
OURS_NAPPING = Contestant("Crosswind, 1 s nap", OURS, 1.0, own=ALIKE)
OURS_AWAKE = Contestant("Crosswind, no nap", OURS, 0.01, own=ALIKE)
OURS_KEEPING = Contestant("Crosswind, no nap, keeping the logs", OURS, 0.01)
OURS_WITHOUT_ROWS = Contestant(
    "Crosswind, no nap, without rows of pods", OURS, 0.01, own={**ALIKE, "POD_HISTORY": "False"}
)


@contextlib.contextmanager
def database(kind: str, home: Path) -> Any:
    """Start the metadata database; yield its SQLAlchemy URL."""
    if kind == "sqlite":
        yield f"sqlite:///{home}/airflow.db"
        return
    server = start_server(home / "pg")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    finally:
        server.cleanup()


def environment(home: Path, url: str, kubeconfig: Path, tasks: int, contestant: Contestant) -> dict[str, str]:
    """Return Airflow's configuration for one contestant, independent of the caller's environment."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    return inherited | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__API_AUTH__JWT_SECRET": "bench-" * 8,
        "AIRFLOW__CORE__EXECUTOR": contestant.executor,
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": str(tasks),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "PYTHONWARNINGS": "ignore",
        **executor_environment(home, kubeconfig, contestant.settings),
        **{f"AIRFLOW__CROSSWIND__{key}": value for key, value in contestant.own.items()},
    }


def executor_environment(home: Path, kubeconfig: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Return the section ``[kubernetes_executor]`` as variables, with ``settings`` in place of our own."""
    section = {
        "CONFIG_FILE": str(kubeconfig),
        "IN_CLUSTER": "False",
        "NAMESPACE": NAMESPACE,
        "POD_TEMPLATE_FILE": str(home / "template.yaml"),
        "WORKER_CONTAINER_REPOSITORY": "apache/airflow",
        "WORKER_CONTAINER_TAG": "3.3.2",
        **settings,
    }
    return {f"AIRFLOW__KUBERNETES_EXECUTOR__{key}": value for key, value in section.items()}


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


@dataclass
class ExecutorResult:
    """The result of a contestant. Times in seconds."""

    label: str
    tasks: int
    measured: dict[str, float]
    """The fields of ``contestant.ContestantFigures``; of the bare loop only seconds and CPU."""
    lives: int
    span: float
    """From the first pod's creation to the last one's deletion, as a watch sees it."""
    calls: int
    answer_bytes: int
    """Of all answers but those of watches."""
    server_cpu: float
    pods_left: int
    slots: list[float] = field(default_factory=list)
    """For each pod, from the event that its base container ended, as another watch got it, to its free slot."""

    @property
    def lives_per_second(self) -> float:
        """The number of pods from creation to deletion."""
        return self.lives / self.span if self.span else 0.0

    @property
    def kb_per_task(self) -> float:
        """Kilobytes of answers, but for those of watches."""
        return self.answer_bytes / max(self.lives, 1) / 1000

    @property
    def cpu_per_task(self) -> float:
        """Of the contestant's process and its children."""
        return self.measured["cpu"] / max(self.lives, 1)


class SimulatedWorkerPods:
    """Plays the workers of all pods, in batches: when a pod runs, its task instance gets ``state``.

    That is ``success`` where pods end: a worker has reported before its container is over, here as there.
    """

    def __init__(self, client: Client, url: str, home: Path, tasks: int, state: str) -> None:
        self._client, self._home, self._tasks, self._state = client, home, tasks, state
        self._engine = sqlalchemy.create_engine(url)
        self._begun: set[int] = set()
        self._unwritten: list[int] = []
        self._run_id = ""
        self.first_created = self.last_deleted = 0.0
        self.deleted = 0
        self.over_at: dict[int, float] = {}
        """When this watch reported the end of a base container, by map index, on the clock of ``time.monotonic``."""

    async def run(self) -> None:
        """Watch and write until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._write())

    async def _watch(self) -> None:
        version = (await self._client.list(PODS, namespace=NAMESPACE)).version
        while True:
            async for event in self._client.watch(PODS, namespace=NAMESPACE, version=version, timeout=300):
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self._take(event["type"], event["object"])

    def _take(self, kind: str, pod: Any) -> None:
        now = time.monotonic()
        if kind == "ADDED" and not self.first_created:
            self.first_created = now
            (self._home / "pod.json").write_text(json.dumps(as_sent(pod)))
        elif kind == "DELETED":
            self.last_deleted, self.deleted = now, self.deleted + 1
        phase, index = pod.get("status", {}).get("phase"), int(pod["metadata"]["labels"].get("map_index", -1))
        if phase == "Succeeded":
            self.over_at.setdefault(index, now)
        elif phase == "Running" and index not in self._begun:
            self._run_id = pod["metadata"]["annotations"]["run_id"]
            self._begun.add(index)
            self._unwritten.append(index)
            for count, name in ((self._tasks // 10, "warm"), (self._tasks, "held")):
                if len(self._begun) == count:
                    (self._home / name).touch()

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(0.05)
            indexes, self._unwritten = self._unwritten, []
            if indexes:
                await asyncio.to_thread(self._update, indexes)

    def _update(self, indexes: list[int]) -> None:
        # By the whole unique key, which costs as little as the execution API's update by id: the database runs on the
        # same cores as the contestants.
        statement = sqlalchemy.text(
            "UPDATE task_instance SET state = :state"
            " WHERE dag_id = 'bench' AND task_id = 'work' AND run_id = :run_id AND map_index IN :indexes"
        ).bindparams(sqlalchemy.bindparam("indexes", expanding=True))
        with self._engine.begin() as connection:
            connection.execute(statement, {"state": self._state, "run_id": self._run_id, "indexes": indexes})

    def forget_all(self) -> None:
        """Remove the rows of the last run."""
        with self._engine.begin() as connection:
            connection.execute(sqlalchemy.text("DELETE FROM task_instance WHERE dag_id = 'bench'"))
            connection.execute(sqlalchemy.text("DELETE FROM dag_run WHERE dag_id = 'bench'"))


def as_sent(pod: Any) -> Any:
    """Return a pod without the fields that the API server and the service account admission have added."""
    metadata = {key: pod["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    spec = {key: pod["spec"][key] for key in ("restartPolicy", "containers")}
    volumes = pod["spec"].get("volumes") or ()
    spec["volumes"] = [volume for volume in volumes if not volume["name"].startswith("kube-api-access")]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@dataclass(frozen=True)
class ExecutorBench:
    """The folder and the metadata database that all contestants use."""

    home: Path
    url: str

    async def run(
        self, contestant: Contestant | None, tasks: int, limit: float, mode: str = "queue", **cluster: object
    ) -> ExecutorResult:
        """Measure one contestant (None: the bare loop) against a fresh cluster; ``cluster``: settings of it."""
        for name in ("warm", "held", "freed.json"):
            (self.home / name).unlink(missing_ok=True)
        async with contextlib.AsyncExitStack() as stack:
            serving = simulated_cluster(self.home, tasks // PODS_PER_NODE + 2, **cluster)
            kubeconfig, server_pid = await stack.enter_async_context(serving)
            client = await stack.enter_async_context(await Client.connect(KubeSettings(kubeconfig=str(kubeconfig))))
            await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            workers = SimulatedWorkerPods(
                client, self.url, self.home, tasks, "running" if mode == "flight" else "success"
            )
            workers.forget_all()
            playing = asyncio.create_task(workers.run())
            calls, answers, server = (
                await api_calls(client),
                await answer_bytes(client),
                psutil.Process(server_pid).cpu_times(),
            )
            measured = await self._contest(contestant, kubeconfig, tasks, limit, mode)
            answers = await answer_bytes(client) - answers
            calls, after = await api_calls(client) - calls, psutil.Process(server_pid).cpu_times()
            left = len((await client.list(PODS, namespace=NAMESPACE)).items)
            if playing.done():
                playing.result()  # raises the error that ended the playing of workers
            playing.cancel()
            await asyncio.wait([playing])
        return ExecutorResult(
            label=contestant.label if contestant else "bare create-watch-delete loop",
            tasks=tasks,
            measured=measured,
            lives=workers.deleted,
            span=workers.last_deleted - workers.first_created,
            calls=calls,
            answer_bytes=answers,
            server_cpu=after.user + after.system - server.user - server.system,
            pods_left=left,
            slots=self._slots(workers),
        )

    async def _contest(
        self, contestant: Contestant | None, kubeconfig: Path, tasks: int, limit: float, mode: str
    ) -> dict[str, float]:
        if contestant is None:
            pod = str(self.home / "pod.json")
            arguments = ["benchmarks.bare_loop", "--kubeconfig", str(kubeconfig), "--pod", pod, "--tasks", str(tasks)]
            return await measured_process(arguments, dict(os.environ), limit)
        options: dict[str, object] = {
            "executor": contestant.executor,
            "mode": mode,
            "tasks": tasks,
            "nap": contestant.nap,
            "limit": limit,
            "job-id": 1,
            "freed": self.home / "freed.json",
            "held": self.home / "held",
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        env = environment(self.home, self.url, kubeconfig, tasks, contestant)
        return await measured_process(["benchmarks.contestant", *arguments], env, limit)

    def _slots(self, workers: SimulatedWorkerPods) -> list[float]:
        path = self.home / "freed.json"
        freed = json.loads(path.read_text()) if path.exists() else {}
        return [at - workers.over_at[int(index)] for index, at in freed.items() if int(index) in workers.over_at]


async def measured_process(arguments: list[str], env: dict[str, str], limit: float) -> dict[str, float]:
    """Run a module that prints one line with its result, and return that."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *arguments,
        env=env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=2**24,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    complaints = asyncio.create_task(process.stderr.read())
    try:
        async with asyncio.timeout(limit + 120):
            async for line in process.stdout:
                if line.startswith(b"RESULT "):
                    await process.wait()
                    return dict(json.loads(line[7:]))
            problem = (await complaints).decode(errors="replace")[-3000:]
            raise SystemExit(f"{arguments[0]}: no result\n{problem}")
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        await process.wait()
        complaints.cancel()


async def answer_bytes(client: Client) -> int:
    """Return how many bytes of answers the API server has sent so far, but for those of watches."""
    lines = (await client.text("/metrics")).splitlines()
    sizes = (line for line in lines if line.startswith("apiserver_response_sizes_sum") and 'verb="WATCH"' not in line)
    return sum(int(line.rpartition(" ")[2]) for line in sizes)


async def api_calls(client: Client) -> int:
    """Return the number of requests that the API server has answered so far, from its metrics."""
    lines = (await client.text("/metrics")).splitlines()
    return sum(int(line.rpartition(" ")[2]) for line in lines if line.startswith("apiserver_request_total"))


@contextlib.asynccontextmanager
async def prepared(kind: str, home: Path) -> AsyncIterator[ExecutorBench]:
    """Make the metadata database and the template."""
    (home / "template.yaml").write_text(TEMPLATE)
    with database(kind, home) as url:
        env = environment(home, url, home / "kubeconfig", 1, OURS_AWAKE)
        command = [sys.executable, "-m", "airflow", "db", "migrate"]
        migrate = await asyncio.create_subprocess_exec(*command, env=env, stdout=asyncio.subprocess.DEVNULL)
        if await migrate.wait():
            raise SystemExit("airflow db migrate failed")
        yield ExecutorBench(home, url)


COLUMNS = (
    "",
    "lives/s",
    "longest heartbeat",
    "p99",
    "CPU/task",
    "peak memory",
    "processes",
    "API calls/task (kB of answers)",
    "queries/task",
    "of them in the loop",
    "end to free slot, median / p99",
    "finished",
    "failed",
    "pods left",
)


def table(results: list[ExecutorResult], kind: str) -> ResultTable:
    """Return the table of one size.

    A life is a pod from its creation to its deletion, as a watch sees it; CPU and memory are those of the contestant's
    process and all its children.
    """
    result = ResultTable(f"{results[0].tasks:,} tasks at once, simulated nodes, {kind}; {machine()}", COLUMNS)
    result.rows.extend(row(result) for result in results)
    return result


def row(result: ExecutorResult) -> tuple[str, ...]:
    """Return the cells of one contestant."""
    m = result.measured
    shared = (result.label, f"{result.lives_per_second:,.1f}")
    lives = max(result.lives, 1)
    cpu, calls = f"{result.cpu_per_task * 1000:.2f} ms", f"{result.calls / lives:.1f} ({result.kb_per_task:.1f})"
    if "heartbeats" not in m:
        ended = f"{result.lives:,} in {m['seconds']:.0f} s"
        return (*shared, "", "", cpu, "", "1", calls, "", "", "", ended, "", str(result.pods_left))
    done = max(m["done"], 1)
    return (
        *shared,
        f"{m['heartbeat_longest'] * 1000:,.1f} ms",
        f"{m['heartbeat_p99'] * 1000:,.1f} ms",
        cpu,
        f"{m['memory']:.0f} MiB",
        f"{m['processes']:.0f}",
        calls,
        f"{m['queries'] / done:.3f}",
        f"{m['queries_in_loop'] / done:.3f}",
        f"{quantile(result.slots, 0.5) * 1000:,.0f} / {quantile(result.slots, 0.99) * 1000:,.0f} ms",
        f"{m['done']:,} in {m['seconds']:.0f} s",
        f"{m['failed']:.0f}",
        str(result.pods_left),
    )
