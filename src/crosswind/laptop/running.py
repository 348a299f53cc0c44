"""Running Airflow on this machine for a folder of DAGs, until it is interrupted; and everything away at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from crosswind.counting import counted
from crosswind.demo.following import Run, watch_pods
from crosswind.demo.processes import Airflow, free_port
from crosswind.demo.webapi import AirflowApi
from crosswind.errors import ConfigError, CrosswindError
from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES
from crosswind.laptop import manifests
from crosswind.laptop.database import Database, open_database
from crosswind.laptop.in_pods import AirflowInPods, airflow_in_pods
from crosswind.laptop.in_processes import airflow_in_processes
from crosswind.laptop.manifests import Place
from crosswind.local.kubelet.proxying import Relay
from crosswind.local.serving import LocalCluster
from crosswind.ownership import temporary_folder
from crosswind.settings import KubeSettings, LocalSettings

__all__ = ["DagNews", "LaptopOptions", "check_dags", "run_laptop"]

LOOPBACK = "127.0.0.1"
USUAL_PORT = 8080
POLL_S = 1.0
HEALTHY_S = 600.0


@dataclass(frozen=True, slots=True)
class LaptopOptions:
    """What ``crosswind local airflow`` was asked for."""

    dags: Path
    inject: bool = False
    port: int | None = None
    """Of the UI; None is 8080, or a free one if that is taken."""
    unpaused: bool = False
    """Whether new DAGs run at once. Airflow's own default is that they wait until somebody switches them on."""
    processes: bool = False
    """Run Airflow's own programs as processes, also where they could run in pods."""
    local: LocalSettings = field(default_factory=LocalSettings)


def check_dags(folder: Path) -> Path:
    """Return the absolute path of a DAG folder. Raises ``ConfigError``: it is none, or cannot be read."""
    if not folder.exists():
        raise ConfigError(f"there is no folder {folder}: name the one with your DAG files, or make it first")
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file: name the folder that it is in")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ConfigError(f"{folder} cannot be read by this user")
    return Path(os.path.abspath(folder))


async def run_laptop(options: LaptopOptions, console: Console) -> int:
    """Serve until the task is cancelled."""
    dags, port = check_dags(options.dags), _port(options.port)
    with temporary_folder("crosswind-airflow-", "crosswind local airflow") as home:
        output = home / "output"
        output.mkdir()
        output.chmod(0o777)
        await _serve(options, _Screen(console), home, Place(dags, output), port)
    return 0


def _port(asked: int | None) -> int:
    """Return the port of the UI. Raises ``ConfigError``: the one that was asked for is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, asked or USUAL_PORT))
        except OSError as problem:
            if asked:
                raise ConfigError(
                    f"cannot serve the UI at port {asked}: {problem.strerror}; leave --port out"
                ) from problem
            return free_port()
        return int(probe.getsockname()[1])


class _Screen:
    """Lines with the seconds since the start."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.begun = time.monotonic()

    def step(self, text: str) -> None:
        """Say what happens now."""
        self.line(f"{time.monotonic() - self.begun:6.1f} s  {text}")

    def line(self, text: str) -> None:
        """Print as it is."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


async def _serve(options: LaptopOptions, screen: _Screen, home: Path, place: Place, port: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(home))
        screen.step(f"{database.kind} runs" if database.sockets else f"SQLite is the database: {database.why}")
        settings = replace(
            options.local,
            kubeconfig=options.local.kubeconfig or home / "kubeconfig",
            # room for what pods ask for, however small this machine is
            node_cpu=options.local.node_cpu or "64",
            node_memory=options.local.node_memory or "256Gi",
        )
        cluster = await stack.enter_async_context(LocalCluster(settings))
        kube = KubeSettings(kubeconfig=str(cluster.kubeconfig))
        client = await stack.enter_async_context(await Client.connect(kube))
        for namespace in manifests.namespaces(options.inject):
            await client.create(NAMESPACES, namespace)
        screen.step("the cluster runs")
        airflow = await stack.enter_async_context(
            _airflow(options, screen, home, cluster, client, database, place, port)
        )
        await stack.enter_async_context(_relayed(airflow.url, port))
        api = await stack.enter_async_context(AirflowApi(f"http://{LOOPBACK}:{port}"))
        await _until_healthy(airflow, api, screen)
        _announce(screen, cluster, place, port, options)
        await _follow(airflow, api, client, screen)


@contextlib.asynccontextmanager
async def _airflow(
    options: LaptopOptions,
    screen: _Screen,
    home: Path,
    cluster: LocalCluster,
    client: Client,
    database: Database,
    place: Place,
    port: int,
) -> AsyncIterator[Airflow | AirflowInPods]:
    """Run Airflow in pods where these have a network of their own and reach the database; else as processes."""
    release = version("apache-airflow")
    image, config = f"apache/airflow:{release}", _config(options, port)
    host = cluster.host_address
    if host != LOOPBACK and database.sockets and not options.processes:
        screen.step(f"Airflow {release} starts in pods, which takes about a minute")
        values = manifests.values(image, release, place, database.sockets, config)
        yield await airflow_in_pods(client, values, database, screen.step)
        return
    screen.step(f"Airflow {release} starts, its tasks run in pods; this takes about half a minute")
    address = (host, port if host == LOOPBACK else free_port(host))
    async with airflow_in_processes(
        client, home, cluster.kubeconfig, database, place, image, address, config
    ) as airflow:
        yield airflow


def _config(options: LaptopOptions, port: int) -> Mapping[str, Mapping[str, str | int | bool]]:
    cores = os.cpu_count() or 1
    return {
        "api": {"base_url": f"http://localhost:{port}"},
        "core": {
            "dags_are_paused_at_creation": not options.unpaused,
            "parallelism": min(32, max(4, 2 * cores)),  # each task is a process that imports Airflow
            "simple_auth_manager_all_admins": True,
        },
        "dag_processor": {"refresh_interval": 5, "min_file_process_interval": 5, "dag_file_processor_timeout": 300},
        "usage_data_collection": {"enabled": False},
    }


@contextlib.asynccontextmanager
async def _relayed(url: str, port: int) -> AsyncIterator[None]:
    """Serve at this machine's loopback address what listens where pods reach it."""
    host, _, target = url.removeprefix("http://").rpartition(":")
    if host == LOOPBACK:
        yield
        return
    relay = Relay()
    relay.targets = [(host, int(target))]
    await relay.open(LOOPBACK, port, "TCP")
    try:
        yield
    finally:
        await relay.close()


async def _until_healthy(airflow: Airflow | AirflowInPods, api: AirflowApi, screen: _Screen) -> None:
    begun, said = time.monotonic(), ""
    while True:
        airflow.check()
        health = await api.health()
        missing = [name for name, status in health.items() if status != "healthy"]
        if health and not missing:
            return
        waits = f"waits for Airflow's {', '.join(missing).replace('_', ' ')}" if health else ""
        if waits and waits != said:
            said = waits
            screen.step(waits)
        if time.monotonic() - begun > HEALTHY_S:
            raise CrosswindError(f"Airflow is not healthy after {HEALTHY_S:.0f} s: {said or 'its API does not answer'}")
        await asyncio.sleep(POLL_S)


def _announce(screen: _Screen, cluster: LocalCluster, place: Place, port: int, options: LaptopOptions) -> None:
    screen.line("")
    screen.line(f"  Airflow's UI      http://localhost:{port}")
    screen.line(
        f"  your DAGs         {place.dags}" + ("" if options.unpaused else "  (new ones are paused: switch them on)")
    )
    screen.line(f"  the cluster       export KUBECONFIG={cluster.kubeconfig}")
    screen.line(f"                    kubectl -n {manifests.WORKERS} get pods --watch")
    screen.line(f"  shared by pods    {manifests.OUTPUT}")
    screen.line("")
    screen.line("Changes of the DAG files are seen within seconds. Ctrl-C ends it and takes everything away.")
    screen.line("")


async def _follow(airflow: Airflow | AirflowInPods, api: AirflowApi, client: Client, screen: _Screen) -> None:
    """Say which DAGs come and go, which files are broken, and what holds task pods up."""
    run, watched = Run(begun=screen.begun), DagNews()
    async with asyncio.TaskGroup() as group:
        group.create_task(watch_pods(client, manifests.WORKERS, run))
        while True:
            airflow.check()
            for news in watched.news(await api.dag_ids(), await api.broken_files()):
                screen.step(news)
            for line in run.take_news():
                screen.line(line)
            await asyncio.sleep(POLL_S)


class DagNews:
    """Which DAGs and broken files were reported."""

    def __init__(self) -> None:
        self._dags: set[str] = set()
        self._broken: dict[str, str] = {}

    def news(self, dags: list[str] | None, broken: Mapping[str, str]) -> list[str]:
        """Return a line for what has changed."""
        if dags is None:
            return []
        lines = []
        if new := sorted(set(dags) - self._dags):
            lines.append(f"{counted(len(new), 'new DAG')}: {', '.join(new)}")
        if gone := sorted(self._dags - set(dags)):
            lines.append(f"{counted(len(gone), 'DAG')} gone: {', '.join(gone)}")
        for file, trace in broken.items():
            if self._broken.get(file) != trace:
                lines.append(f"{file} cannot be parsed: {trace.strip().splitlines()[-1]}")
        lines += [f"{file} can be parsed again" for file in self._broken if file not in broken]
        self._dags, self._broken = set(dags), dict(broken)
        return lines
