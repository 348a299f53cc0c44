"""What waiting for many deferred pods costs a triggerer: ours (one watch) against stock (polling).

python -m benchmarks.deferred [--pods N] [--seconds S] [--contestants ours,stock]

A local cluster plays the pods. Each contestant is a process with one event loop and a trigger for each pod, as a
triggerer has it; measured while nothing happens for a time, and then while some pods end.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from crosswind.kube.client import Client
from crosswind.kube.resources import PODS
from crosswind.settings import KubeSettings

NAMESPACE = "default"
ENDS = 50
"""Pods that end, one each tenth of a second, to see how soon that is noticed."""
_LATE_S = 60.0


def pod(number: int) -> dict[str, Any]:
    """Return a pod that runs for as long as nobody ends it."""
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
    import yaml
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
    """Be the triggerer: write a line when the quiet time begins, when it is over, and for each end noticed."""

    async def wait(name: str) -> None:
        async for event in trigger(contestant, name, kubeconfig).run():
            tell(name=name, at=time.monotonic(), status=event.payload["status"])
            return

    tasks = [asyncio.create_task(wait(f"pod-{number}")) for number in range(pods)]
    await asyncio.sleep(10)  # everybody has looked once
    tell(begin=True)
    cpu, began = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    lateness = time.monotonic() - began - seconds
    tell(cpu=time.process_time() - cpu, seconds=time.monotonic() - began, lateness=lateness)
    await asyncio.wait(tasks[:ENDS], timeout=_LATE_S)
    os._exit(0)


def tell(**what: Any) -> None:
    """Write a line for the one who measures."""
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
    """Return what a contestant needed, and how late it noticed the ends."""
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
            process = subprocess.Popen(  # noqa: ASYNC220  # starts at once, and nobody else needs this loop
                [sys.executable, "-c", code, *arguments],
                env=environment,
                pass_fds=[writer],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            os.close(writer)
            try:
                with os.fdopen(reader) as lines:
                    found = await _listen(client, lines)
            finally:
                process.kill()
                process.wait()
        await client.delete_collection(PODS, namespace=NAMESPACE, grace_period=0)
        return found


async def _start(client: Client, pods: int) -> None:
    for begin in range(0, pods, 50):
        batch = range(begin, min(begin + 50, pods))
        await asyncio.gather(*(client.create(PODS, pod(number), namespace=NAMESPACE) for number in batch))
    async with asyncio.timeout(120):
        while len((await client.list(PODS, namespace=NAMESPACE, fields="status.phase=Running")).items) < pods:  # noqa: ASYNC110
            await asyncio.sleep(0.5)


async def _listen(client: Client, lines: Any) -> dict[str, Any]:
    async def line() -> dict[str, Any]:
        text = await asyncio.to_thread(lines.readline)
        return dict(json.loads(text)) if text else {}

    assert "begin" in await line()
    before = await _requests(client)
    found = await line()
    found["requests"] = (await _requests(client)) - before
    ended = {}
    for number in range(ENDS):
        ended[f"pod-{number}"] = time.monotonic()
        await _end(client, f"pod-{number}")
        await asyncio.sleep(0.1)
    noticed = {}
    while told := await line():
        noticed[told["name"]] = told["at"]
    found["delays"] = sorted(noticed[name] - ended[name] for name in noticed if name in ended)
    return found


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


def table(results: dict[str, dict[str, Any]], pods: int) -> Table:
    """Return the figures side by side."""
    made = Table("", *results, title=f"{pods} deferred pods in one triggerer process")
    rows = {
        "CPU while nothing happens": lambda one: f"{100 * one['cpu'] / one['seconds']:.1f} %",
        "requests a second": lambda one: f"{one['requests'] / one['seconds']:.1f}",
        "event loop late by": lambda one: f"{max(one['lateness'], 0) * 1000:.0f} ms",
        f"ends noticed, of {ENDS}": lambda one: str(len(one["delays"])),
        "noticed after, median": lambda one: _delay(one["delays"], 0.5),
        "noticed after, slowest": lambda one: _delay(one["delays"], 1.0),
    }
    for name, figure in rows.items():
        made.add_row(name, *(figure(one) for one in results.values()))
    return made


def _delay(delays: Sequence[float], share: float) -> str:
    return f"{1000 * delays[min(int(len(delays) * share), len(delays) - 1)]:.0f} ms" if delays else "never"


def main() -> None:
    """Measure, or be a contestant."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deferred")
    parser.add_argument("--pods", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long nothing happens")
    parser.add_argument("--contestants", default="ours,stock")
    parser.add_argument("--play", help=argparse.SUPPRESS)
    parser.add_argument("--kubeconfig", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        asyncio.run(play(options.play, options.kubeconfig, options.pods, options.seconds))
        return
    compare(options.pods, options.seconds, options.contestants.split(","))


def compare(pods: int = 1000, seconds: float = 20.0, contestants: Sequence[str] = ("ours", "stock")) -> None:
    """Measure the contestants one after the other and print the table."""
    with simulated() as kubeconfig:
        results = {name: asyncio.run(measure(name, kubeconfig, pods, seconds)) for name in contestants}
    Console(width=None if sys.stdout.isatty() else 120).print(table(results, pods))


if __name__ == "__main__":
    main()
