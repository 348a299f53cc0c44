"""The pods per second that the one-machine API takes from creation to deletion, on simulated nodes.

A server process has the cluster. This process is the client, a bare aiohttp loop: it creates each pod, waits on one
watch of all pods until it runs and succeeds, deletes it and waits for the deletion.

    python -m benchmarks.local_api [--pods N] [--nodes N] [--at-once N] [--profile FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import cProfile
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
import psutil
from benchmarks.metering import quantile
from benchmarks.tables import ResultTable, machine, show

PODS = "/api/v1/namespaces/default/pods"


@dataclass
class ApiFigures:
    """The figures of a run; times in seconds, memory in bytes."""

    pods: int
    at_once: int
    seconds: float = 0.0
    events: int = 0
    creates: list[float] = field(default_factory=list)
    lives: list[float] = field(default_factory=list)
    server_cpu: float = 0.0
    client_cpu: float = 0.0
    server_memory: int = 0


def pod(name: str) -> dict[str, Any]:
    """Return a pod of about the size of a worker's."""
    environment = [{"name": f"AIRFLOW__SECTION__KEY_{number}", "value": "value"} for number in range(10)]
    base = {
        "name": "base",
        "image": "apache/airflow:3.3.2",
        "args": ["python", "-m", "airflow.sdk.execution_time.execute_workload"],
        "env": environment,
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": [{"name": "logs", "mountPath": "/opt/airflow/logs"}],
    }
    labels = {"kubernetes_executor": "True", "dag_id": "bench", "task_id": "work", "run_id": "one", "try_number": "1"}
    spec = {"restartPolicy": "Never", "containers": [base], "volumes": [{"name": "logs", "emptyDir": {}}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


class Lives:
    """The pods of a run. The watch wakes the task that waits for a step of a pod."""

    def __init__(self, session: aiohttp.ClientSession, measured: ApiFigures) -> None:
        self._session = session
        self._measured = measured
        self._waiting: dict[tuple[str, str], asyncio.Future[None]] = {}

    async def watch(self, response: aiohttp.ClientResponse) -> None:
        """Read the watch of all pods."""
        rest = b""
        async for chunk in response.content.iter_any():
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._measured.events += 1
                event = orjson.loads(line)
                thing = event["object"]
                step = "DELETED" if event["type"] == "DELETED" else thing["status"]["phase"]
                waiting = self._waiting.pop((thing["metadata"]["name"], step), None)
                if waiting and not waiting.done():
                    waiting.set_result(None)

    def _until(self, name: str, step: str) -> asyncio.Future[None]:
        future = self._waiting[name, step] = asyncio.get_running_loop().create_future()
        return future

    async def live(self, name: str) -> None:
        """Take one pod from creation to deletion."""
        steps = [self._until(name, step) for step in ("Running", "Succeeded", "DELETED")]
        begin = time.perf_counter()
        async with self._session.post(PODS, data=orjson.dumps(pod(name))) as reply:
            await reply.read()
            reply.raise_for_status()
        self._measured.creates.append(time.perf_counter() - begin)
        await asyncio.gather(*steps[:2])
        async with self._session.delete(f"{PODS}/{name}") as reply:
            await reply.read()
            reply.raise_for_status()
        await steps[2]
        self._measured.lives.append(time.perf_counter() - begin)


async def measure(url: str, token: str, authority: str, pods: int, at_once: int) -> ApiFigures:
    """Take pods from creation to deletion, ``at_once`` at a time."""
    measured = ApiFigures(pods, at_once)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    tls = ssl.create_default_context(cafile=authority)
    connector, timeout = aiohttp.TCPConnector(limit=64, ssl=tls), aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(
            url, headers=headers, connector=connector, timeout=timeout, read_bufsize=2**20
        ) as session,
        session.get("/api/v1/pods", params={"watch": "1"}) as response,
        _in_background(lives := Lives(session, measured), response),
    ):
        numbers = iter(range(pods))

        async def carry() -> None:
            for number in numbers:
                await lives.live(f"bench-{number}")

        begin = time.perf_counter()
        async with asyncio.timeout(600), asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(carry())
        measured.seconds = time.perf_counter() - begin
    return measured


@contextlib.asynccontextmanager
async def _in_background(lives: Lives, response: aiohttp.ClientResponse) -> AsyncIterator[None]:
    watching = asyncio.create_task(lives.watch(response))
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def serve(nodes: int) -> None:
    """Run as the server: print its address, token and certificate authority, and serve until TERM."""
    from kubelocal.cluster import LocalCluster
    from kubelocal.settings import LocalSettings

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with LocalCluster(LocalSettings(simulate=nodes, simulated_start=0.0, simulated_run=0.0)) as cluster:
        print(cluster.url, cluster.token, cluster.authority_file, flush=True)
        await cluster.serve_until(stop)


def run_server(nodes: int, profile: str) -> None:
    """Serve on uvloop if it is installed, as ``crosswind local up`` does."""
    profiler = cProfile.Profile() if profile else contextlib.nullcontext()
    with profiler, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(nodes))
    if isinstance(profiler, cProfile.Profile):
        profiler.dump_stats(profile)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


@contextlib.contextmanager
def _server(nodes: int, profile: str) -> Iterator[tuple[psutil.Process, str, str, str]]:
    command = [sys.executable, "-m", "benchmarks.local_api", "--serve", "--nodes", str(nodes), "--profile", profile]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            if not (line := process.stdout.readline()):
                raise SystemExit("the server did not start; what it said stands above")
            url, token, authority = line.split()
            yield psutil.Process(process.pid), url, token, authority
        finally:
            process.terminate()
            process.wait(timeout=30)


def report(measured: ApiFigures, nodes: int) -> ResultTable:
    """Return the table that is printed."""
    rows = {
        "pods (at once)": f"{measured.pods} ({measured.at_once})",
        "full lives per second": f"{measured.pods / measured.seconds:.0f}",
        "create, median / 99th percentile": _pair(measured.creates),
        "whole life, median / 99th percentile": _pair(measured.lives),
        "watch events per pod": f"{measured.events / measured.pods:.1f}",
        "CPU per pod, server / client": _each(measured.server_cpu, measured)
        + " / "
        + _each(measured.client_cpu, measured),
        "server's memory at the end": f"{measured.server_memory / 2**20:.0f} MiB",
    }
    title = f"The one-machine API: full pod lives on {nodes} simulated nodes; {machine()}"
    return ResultTable(title, ("measure", "value"), list(rows.items()))


def _pair(values: Sequence[float]) -> str:
    return f"{quantile(values, 0.5) * 1000:.0f} / {quantile(values, 0.99) * 1000:.0f} ms"


def _each(seconds: float, measured: ApiFigures) -> str:
    return f"{seconds / measured.pods * 1000:.2f} ms"


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 when done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.local_api", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pods", type=int, default=5000, help="pods to carry through their lives")
    parser.add_argument("--nodes", type=int, default=100, help="simulated nodes, of 110 pods each")
    parser.add_argument("--at-once", type=int, default=200, help="lives at the same time")
    parser.add_argument("--output", choices=["text", "markdown"], default="text")
    parser.add_argument("--profile", default="", help="write the server's cProfile statistics to this file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        run_server(options.nodes, options.profile)
        return 0
    with _server(options.nodes, options.profile) as (server, url, token, authority):
        before, own = _cpu(server), _cpu(psutil.Process())
        measured = asyncio.run(measure(url, token, authority, options.pods, options.at_once))
        measured.server_cpu, measured.client_cpu = _cpu(server) - before, _cpu(psutil.Process()) - own
        measured.server_memory = server.memory_info().rss
    show([report(measured, options.nodes)], options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
