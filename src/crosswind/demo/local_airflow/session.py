"""Runs Airflow on this machine for a folder of DAGs, until it is interrupted.

``run_local_airflow`` owns the database, the cluster and Airflow in one exit stack. When its task is cancelled, they are
closed in reverse order.
"""

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

from crosswind.demo.airflow_api import AirflowApi
from crosswind.demo.local_airflow import deployment
from crosswind.demo.local_airflow.deployment import SharedFolders
from crosswind.demo.local_airflow.in_pods import AirflowInPods, airflow_in_pods
from crosswind.demo.local_airflow.in_processes import airflow_in_processes
from crosswind.demo.local_airflow.postgresql import LocalDatabase, open_database
from crosswind.demo.processes import Airflow, free_port
from crosswind.demo.progress import RunProgress
from crosswind.demo.run_watcher import watch_pods
from crosswind.errors import ConfigError, CrosswindError, counted
from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES
from crosswind.settings import KubeSettings
from kubelocal.cluster import LocalCluster
from kubelocal.kubelet.service_proxy import Relay
from kubelocal.owned_paths import temporary_folder
from kubelocal.settings import LocalSettings

__all__ = ["DagNews", "LocalAirflowOptions", "check_dags", "run_local_airflow"]

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8080
POLL_S = 1.0
HEALTH_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class LocalAirflowOptions:
    """The options of ``crosswind local airflow``."""

    dags: Path
    inject: bool = False
    port: int | None = None
    """Port of the UI; None: 8080, or a free port if that is in use."""
    unpaused: bool = False
    """Whether new DAGs run at once. By Airflow's default they are paused."""
    processes: bool = False
    """Run Airflow's components as processes, even where they could run in pods."""
    local: LocalSettings = field(default_factory=LocalSettings)


def check_dags(folder: Path) -> Path:
    """Return the absolute path of a DAG folder. Raises ``ConfigError`` if it is not a folder or cannot be read."""
    if not folder.exists():
        raise ConfigError(f"there is no folder {folder}: name the folder with your DAG files, or create it first")
    if not folder.is_dir():
        raise ConfigError(f"{folder} is a file: name the folder that contains it")
    if not os.access(folder, os.R_OK | os.X_OK):
        raise ConfigError(f"{folder} cannot be read by this user: change its permissions, or name another folder")
    return Path(os.path.abspath(folder))


async def run_local_airflow(options: LocalAirflowOptions, console: Console) -> int:
    """Serve until the task is cancelled."""
    dags, port = check_dags(options.dags), _choose_port(options.port)
    with temporary_folder("crosswind-airflow-", "crosswind local airflow") as home:
        output = home / "output"
        output.mkdir()
        output.chmod(0o777)
        await _serve(options, _Screen(console), home, SharedFolders(dags, output), port)
    return 0


def _choose_port(requested: int | None) -> int:
    """Return the port of the UI. Raises ``ConfigError`` if the requested one is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, requested or DEFAULT_PORT))
        except OSError as error:
            if requested:
                raise ConfigError(f"cannot serve the UI at port {requested}: {error.strerror}; omit --port") from error
            return free_port()
        return int(probe.getsockname()[1])


class _Screen:
    """Prints lines with the seconds since the start."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.started = time.monotonic()

    def step(self, text: str) -> None:
        """Print the current step."""
        self.line(f"{time.monotonic() - self.started:6.1f} s  {text}")

    def line(self, text: str) -> None:
        """Print a line unchanged."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


async def _serve(options: LocalAirflowOptions, screen: _Screen, home: Path, folders: SharedFolders, port: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(home))
        screen.step(f"{database.kind} runs" if database.sockets else f"SQLite is the database: {database.why}")
        settings = replace(
            options.local,
            kubeconfig=options.local.kubeconfig or home / "kubeconfig",
            # Enough for the requests of all pods: the processes share this machine, however small it is.
            node_cpu=options.local.node_cpu or "64",
            node_memory=options.local.node_memory or "256Gi",
        )
        cluster = await stack.enter_async_context(LocalCluster(settings))
        kube = KubeSettings(kubeconfig=str(cluster.kubeconfig))
        client = await stack.enter_async_context(await Client.connect(kube))
        for namespace in deployment.namespaces(options.inject):
            await client.create(NAMESPACES, namespace)
        screen.step("the cluster runs")
        relay = Relay()
        stack.push_async_callback(relay.close)
        if cluster.host_address != LOOPBACK:
            port = await _take_port(relay, port, options.port)
        airflow = await stack.enter_async_context(
            _airflow(options, screen, home, cluster, client, database, folders, port)
        )
        host, _, target = airflow.url.removeprefix("http://").rpartition(":")
        relay.targets = [(host, int(target))]
        api = await stack.enter_async_context(AirflowApi(f"http://{LOOPBACK}:{port}"))
        await _until_healthy(airflow, api, screen)
        _announce(screen, cluster, folders, port, options)
        await _follow(airflow, api, client, screen)


@contextlib.asynccontextmanager
async def _airflow(
    options: LocalAirflowOptions,
    screen: _Screen,
    home: Path,
    cluster: LocalCluster,
    client: Client,
    database: LocalDatabase,
    folders: SharedFolders,
    port: int,
) -> AsyncIterator[Airflow | AirflowInPods]:
    """Run Airflow in pods if these have a network of their own and reach the database, else as processes."""
    release = version("apache-airflow")
    image, config = f"apache/airflow:{release}", _config(options, port)
    host = cluster.host_address
    if host != LOOPBACK and database.sockets and not options.processes:
        screen.step(f"Airflow {release} starts in pods, which takes about a minute")
        values = deployment.values(image, release, folders, database.sockets, config)
        yield await airflow_in_pods(client, values, database, screen.step)
        return
    screen.step(f"Airflow {release} starts, its tasks run in pods; this takes about half a minute")
    address = (host, port if host == LOOPBACK else free_port(host))
    async with airflow_in_processes(
        client, home, cluster.kubeconfig, database, folders, image, address, config
    ) as airflow:
        yield airflow


def _config(options: LocalAirflowOptions, port: int) -> Mapping[str, Mapping[str, str | int | bool]]:
    cores = os.cpu_count() or 1
    return {
        "api": {"base_url": f"http://localhost:{port}"},
        "core": {
            "dags_are_paused_at_creation": not options.unpaused,
            "parallelism": min(32, max(4, 2 * cores)),  # each task imports Airflow in a process of its own
            "simple_auth_manager_all_admins": True,
        },
        "dag_processor": {"refresh_interval": 5, "min_file_process_interval": 5, "dag_file_processor_timeout": 300},
        "usage_data_collection": {"enabled": False},
    }


async def _take_port(relay: Relay, port: int, requested: int | None) -> int:
    """Have a port of the loopback address forwarded to Airflow, which listens at the address that pods use.

    Before Airflow starts, which takes a minute: another one that starts meanwhile would choose the same port.
    """
    try:
        await relay.open(LOOPBACK, port, "TCP")
    except OSError:
        if requested:
            raise
        port = free_port()
        await relay.open(LOOPBACK, port, "TCP")
    return port


async def _until_healthy(airflow: Airflow | AirflowInPods, api: AirflowApi, screen: _Screen) -> None:
    started, last_wait = time.monotonic(), ""
    while True:
        airflow.check()
        health = await api.health()
        missing = [name for name, status in health.items() if status != "healthy"]
        if health and not missing:
            return
        waits = f"waits for Airflow's {', '.join(missing).replace('_', ' ')}" if health else ""
        if waits and waits != last_wait:
            last_wait = waits
            screen.step(waits)
        if time.monotonic() - started > HEALTH_TIMEOUT_S:
            raise CrosswindError(
                f"Airflow is not healthy after {HEALTH_TIMEOUT_S:.0f} s: {last_wait or 'its API does not answer'}"
            )
        await asyncio.sleep(POLL_S)


def _announce(
    screen: _Screen, cluster: LocalCluster, folders: SharedFolders, port: int, options: LocalAirflowOptions
) -> None:
    screen.line("")
    screen.line(f"  Airflow's UI      http://localhost:{port}")
    screen.line(
        f"  your DAGs         {folders.dags}" + ("" if options.unpaused else "  (new DAGs are paused: unpause them)")
    )
    screen.line(f"  the cluster       export KUBECONFIG={cluster.kubeconfig}")
    screen.line(f"                    kubectl -n {deployment.WORKERS} get pods --watch")
    screen.line(f"  shared by pods    {deployment.OUTPUT}")
    screen.line("")
    screen.line("Airflow sees changes of the DAG files within seconds. Press Ctrl-C to stop it and remove everything.")
    screen.line("")


async def _follow(airflow: Airflow | AirflowInPods, api: AirflowApi, client: Client, screen: _Screen) -> None:
    """Report new and deleted DAGs, broken files, and why task pods do not start, until cancelled."""
    run, dag_news = RunProgress(started=screen.started), DagNews()
    async with asyncio.TaskGroup() as group:
        group.create_task(watch_pods(client, deployment.WORKERS, run))
        while True:
            airflow.check()
            for line in dag_news.lines(await api.dag_ids(), await api.broken_files()):
                screen.step(line)
            for line in run.take_lines():
                screen.line(line)
            await asyncio.sleep(POLL_S)


class DagNews:
    """Compares the DAGs and the broken files with those that were reported before."""

    def __init__(self) -> None:
        self._dags: set[str] = set()
        self._broken: dict[str, str] = {}

    def lines(self, dags: list[str] | None, broken: Mapping[str, str]) -> list[str]:
        """Return a line for each change."""
        if dags is None:
            return []
        lines = []
        if new := sorted(set(dags) - self._dags):
            lines.append(f"{counted(len(new), 'new DAG')}: {', '.join(new)}")
        if gone := sorted(self._dags - set(dags)):
            lines.append(f"{counted(len(gone), 'DAG')} deleted: {', '.join(gone)}")
        for file, trace in broken.items():
            if self._broken.get(file) != trace:
                lines.append(f"{file} cannot be parsed: {trace.strip().splitlines()[-1]}")
        lines += [f"{file} can be parsed again" for file in self._broken if file not in broken]
        self._dags, self._broken = set(dags), dict(broken)
        return lines
