"""The cost of many deferred pods for a triggerer: ours (one watch) against stock (polling).

python -m benchmarks.deferred [--pods N] [--seconds S] [--contestants ours,stock] [--output text|markdown|json]

A local cluster plays the pods. Each contestant is a process with one event loop and a trigger for each pod, as a
triggerer has it; measured while nothing happens for a time, and then while some pods end. Ends with 1 when ours misses
a goal: every end noticed, within 200 ms of the moment in which its report is sent to the API server, and all pods on
one connection.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

import psutil
import yaml
from benchmarks.chaos.scenario import Row, at_most, exactly
from benchmarks.goals import table as goal_table
from benchmarks.tables import ResultTable, machine, show

from crosswind.kube.client import Client
from crosswind.kube.resources import PODS
from crosswind.settings import KubeSettings

NAMESPACE = "default"
ENDS = 50
"""Pods that end, one each tenth of a second, to see how soon that is noticed."""
LONGEST_MS = 200.0
_LATE_S = 60.0


def pod(number: int) -> dict[str, Any]:
    """Return a pod that runs until the benchmark ends it."""
    base = {"name": "base", "image": "work", "resources": {"requests": {"cpu": "1m"}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"pod-{number}",
            "labels": {"kubernetes_pod_operator": "True"},
            "annotations": {"simulate.crosswind/run-seconds": "3600"},
        },
        "spec": {"restartPolicy": "Never", "containers": [base]},
    }


def trigger(contestant: str, name: str, kubeconfig: str) -> Any:
    """Return a contestant's trigger for a pod, with its defaults."""
    if contestant == "ours":
        from crosswind.triggers import PodTrigger

        return PodTrigger(pod_name=name, pod_namespace=NAMESPACE, config_file=kubeconfig)
    from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger

    with open(kubeconfig) as file:
        config = yaml.safe_load(file)
    return KubernetesPodTrigger(
        pod_name=name,
        pod_namespace=NAMESPACE,
        trigger_start_time=datetime.datetime.now(datetime.UTC),
        base_container_name="base",
        config_dict=config,
        log_events_on_startup=False,
    )


async def play(contestant: str, kubeconfig: str, pods: int, seconds: float) -> None:
    """Run as the triggerer: print a line when the quiet time begins, when it ends, and for each end noticed."""

    async def wait(name: str) -> None:
        async for event in trigger(contestant, name, kubeconfig).run():
            emit(name=name, at=time.monotonic(), status=event.payload["status"])
            return

    tasks = [asyncio.create_task(wait(f"pod-{number}")) for number in range(pods)]
    await asyncio.sleep(10)  # every trigger has polled once
    emit(begin=True)
    cpu, began = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    lateness = time.monotonic() - began - seconds
    emit(cpu=time.process_time() - cpu, seconds=time.monotonic() - began, lateness=lateness)
    await asyncio.wait(tasks[:ENDS], timeout=_LATE_S)
    os._exit(0)


def emit(**what: Any) -> None:
    """Print a line of JSON for the process that measures."""
    os.write(3, json.dumps(what).encode() + b"\n")


@contextmanager
def simulated() -> Iterator[str]:
    """Serve a cluster of played nodes; give its kubeconfig."""
    command = [sys.executable, "-m", "crosswind", "local", "up", "--simulate", "20", "--output", "json"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        yield str(json.loads(server.stdout.readline())["kubeconfig"])
    finally:
        server.terminate()
        server.wait(30)


async def measure(contestant: str, kubeconfig: str, pods: int, seconds: float) -> dict[str, Any]:
    """Return the figures of a contestant, with the delays until it noticed the ends."""
    async with await Client.connect(KubeSettings(kubeconfig=kubeconfig)) as client:
        await _start(client, pods)
        reader, writer = os.pipe()
        with tempfile.TemporaryDirectory(prefix="crosswind-deferred-") as home:
            environment = os.environ | {
                "AIRFLOW_HOME": home,
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            }
            code = f"import os; os.dup2({writer}, 3); from benchmarks import deferred; deferred.main()"
            arguments = [
                "--play",
                contestant,
                "--kubeconfig",
                kubeconfig,
                "--pods",
                str(pods),
                "--seconds",
                str(seconds),
            ]
            process = subprocess.Popen(  # noqa: ASYNC220  # starts at once, and no other task uses this loop
                [sys.executable, "-c", code, *arguments],
                env=environment,
                pass_fds=[writer],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            os.close(writer)
            try:
                with os.fdopen(reader) as lines:
                    figures = await _listen(client, lines, lambda: _connections(process.pid, kubeconfig))
            finally:
                process.kill()
                process.wait()
        await client.delete_collection(PODS, namespace=NAMESPACE, grace_period=0)
        return figures


async def _start(client: Client, pods: int) -> None:
    for begin in range(0, pods, 50):
        batch = range(begin, min(begin + 50, pods))
        await asyncio.gather(*(client.create(PODS, pod(number), namespace=NAMESPACE) for number in batch))
    async with asyncio.timeout(120):
        while len((await client.list(PODS, namespace=NAMESPACE, fields="status.phase=Running")).items) < pods:  # noqa: ASYNC110
            await asyncio.sleep(0.5)


def _connections(pid: int, kubeconfig: str) -> int:
    """Return how many connections a process has to the API server."""
    with open(kubeconfig) as file:
        port = urlsplit(yaml.safe_load(file)["clusters"][0]["cluster"]["server"]).port
    open_connections = psutil.Process(pid).net_connections("tcp")
    return sum(
        connection.status == psutil.CONN_ESTABLISHED and bool(connection.raddr) and connection.raddr.port == port
        for connection in open_connections
    )


async def _listen(client: Client, lines: Any, connections: Callable[[], int]) -> dict[str, Any]:
    async def line() -> dict[str, Any]:
        text = await asyncio.to_thread(lines.readline)
        return dict(json.loads(text)) if text else {}

    assert "begin" in await line()
    before = await _requests(client)
    figures = await line()
    figures["requests"] = (await _requests(client)) - before
    figures["connections"] = connections()
    ended = {}
    for number in range(ENDS):
        ended[f"pod-{number}"] = time.monotonic()
        await _end(client, f"pod-{number}")
        await asyncio.sleep(0.1)
    noticed = {}
    while event := await line():
        noticed[event["name"]] = event["at"]
    figures["delays"] = sorted(noticed[name] - ended[name] for name in noticed if name in ended)
    return figures


async def _end(client: Client, name: str) -> None:
    state = {"terminated": {"exitCode": 0, "reason": "Completed"}}
    status = {"name": "base", "state": state, "ready": False, "restartCount": 0, "image": "work", "imageID": ""}
    patch = {"status": {"phase": "Succeeded", "containerStatuses": [status]}}
    await client.patch(PODS, name, patch, namespace=NAMESPACE, subresource="status")


async def _requests(client: Client) -> int:
    counts = re.findall(
        r'^apiserver_request_total{[^}]*resource="pods"[^}]*} (\d+)', await client.text("/metrics"), re.M
    )
    return sum(map(int, counts))


def table(results: dict[str, dict[str, Any]], pods: int) -> ResultTable:
    """Return the figures side by side."""
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "CPU while nothing happens": lambda figures: f"{100 * figures['cpu'] / figures['seconds']:.1f} %",
        "requests a second": lambda figures: f"{figures['requests'] / figures['seconds']:.1f}",
        "connections": lambda figures: str(figures["connections"]),
        "event loop late by": lambda figures: f"{max(figures['lateness'], 0) * 1000:.0f} ms",
        f"ends noticed, of {ENDS}": lambda figures: str(len(figures["delays"])),
        "noticed after, median": lambda figures: _delay(figures["delays"], 0.5),
        "noticed after, slowest": lambda figures: _delay(figures["delays"], 1.0),
    }
    lines: list[Sequence[str]] = [
        [name, *(figure(result) for result in results.values())] for name, figure in rows.items()
    ]
    return ResultTable(f"{pods:,} deferred pods in one triggerer process ({machine()})", ["", *results], lines)


def _delay(delays: Sequence[float], share: float) -> str:
    return f"{1000 * delays[min(int(len(delays) * share), len(delays) - 1)]:.0f} ms" if delays else "never"


def goals(ours: dict[str, Any], pods: int) -> list[Row]:
    """Return the goals for ours."""
    slowest = 1000 * max(ours["delays"], default=float("inf"))
    return [
        exactly("ends noticed", len(ours["delays"]), ENDS),
        at_most("slowest end noticed after, ms", slowest, LONGEST_MS),
        exactly(f"connections for {pods:,} pods", ours["connections"], 1),
    ]


def main() -> int:
    """Measure, or be a contestant."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deferred")
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long nothing happens")
    parser.add_argument("--contestants", default="ours,stock")
    parser.add_argument("--output", choices=["text", "markdown", "json"], default="text")
    parser.add_argument("--play", help=argparse.SUPPRESS)
    parser.add_argument("--kubeconfig", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        asyncio.run(play(options.play, options.kubeconfig, options.pods, options.seconds))
        return 0
    return int(not compare(options.pods, options.seconds, options.contestants.split(","), options.output))


def compare(
    pods: int = 1000, seconds: float = 20.0, contestants: Sequence[str] = ("ours", "stock"), output: str = "text"
) -> bool:
    """Measure the contestants one after the other, print figures and goals; return whether ours reached its goals."""
    with simulated() as kubeconfig:
        results = {name: asyncio.run(measure(name, kubeconfig, pods, seconds)) for name in contestants}
    figures = goals(results["ours"], pods) if "ours" in results else []
    if output == "json":
        print(json.dumps({"results": results, "goals": [asdict(row) for row in figures]}))
    else:
        show([table(results, pods), goal_table(figures)], output)
    return all(row.held for row in figures)


if __name__ == "__main__":
    sys.exit(main())
