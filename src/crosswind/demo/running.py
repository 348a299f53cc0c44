"""Running the demo: a cluster, Airflow beside it, two watchers, a screen; and everything away at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import yaml
from rich.console import Console
from rich.live import Live

from crosswind.demo import manifests, screen
from crosswind.demo.examples import ORDERS, Example
from crosswind.demo.processes import Airflow, airflow_environment, free_port
from crosswind.demo.summary import OVER, Stall, Summary, find_stall, summarise
from crosswind.demo.timelines import Timeline, advance
from crosswind.demo.webapi import AirflowApi
from crosswind.errors import ApiError, ConfigError, CrosswindError, Unreachable
from crosswind.kube.client import Client
from crosswind.kube.resources import CONFIG_MAPS, NAMESPACES, PERSISTENT_VOLUME_CLAIMS, PODS
from crosswind.local.serving import LocalCluster
from crosswind.settings import KubeSettings, LocalSettings
from crosswind.types import Json

__all__ = ["DemoOptions", "run_demo"]

EXECUTORS = {
    "crosswind": "crosswind.executor.KubernetesExecutor",
    "stock": "airflow.providers.cncf.kubernetes.executors.kubernetes_executor.KubernetesExecutor",
}
POLL_S = 0.5
PODS_GONE_S = 30.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What ``crosswind demo`` was asked for. Times in seconds."""

    example: Example = ORDERS
    executor: str = "crosswind"
    parallelism: int = 4
    """Slots of the executor: few, so that a lost one is felt at once."""
    time_limit: float = 240.0
    stall_limit: float = 25.0
    """A run in which nothing changed for so long, though tasks wait, stands still."""
    keep: bool = False
    context: str | None = None
    image: str | None = None
    host: str | None = None
    """Address under which pods reach this machine; needed with ``context``."""


@dataclass(slots=True)
class _Run:
    """What the watchers have seen so far."""

    begun: float = field(default_factory=time.monotonic)
    pods: dict[str, Timeline] = field(default_factory=dict)
    tasks: list[Json] = field(default_factory=list)
    dag_run: Json | None = None
    changed: float = 0.0

    @property
    def now(self) -> float:
        return time.monotonic() - self.begun

    @property
    def over(self) -> bool:
        return self.dag_run is not None and self.dag_run["state"] in OVER


async def run_demo(options: DemoOptions, console: Console) -> int:
    """Run the demo; return the exit code: 0 when the DAG succeeded and no pod is left."""
    home = Path(tempfile.mkdtemp(prefix="crosswind-demo-"))
    try:
        async with _cluster(options, home) as (client, host, kubeconfig):
            name = f"crosswind-demo-{os.urandom(3).hex()}" if options.context else "crosswind-demo"
            await _furnish(client, options.example, name)
            try:
                return await _run_dag(options, console, client, home, name, host, kubeconfig)
            finally:
                await _remove(client, name)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.asynccontextmanager
async def _cluster(options: DemoOptions, home: Path) -> AsyncIterator[tuple[Client, str, Path | None]]:
    """Open the cluster: the local one, or the kubeconfig's context that was asked for."""
    if options.context:
        if not options.host or not options.image:
            raise ConfigError(
                "--context needs --image (an Airflow 3.3 image) and --host (this machine, as pods reach it)"
            )
        async with await Client.connect(KubeSettings(context=options.context)) as client:
            await client.version()
            yield client, options.host, None
        return
    async with (
        LocalCluster(LocalSettings(kubeconfig=home / "kubeconfig")) as cluster,
        await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client,
    ):
        yield client, cluster.host_address, cluster.kubeconfig


async def _furnish(client: Client, example: Example, namespace: str) -> None:
    """Make the namespace and what the tasks need in it."""
    await client.create(NAMESPACES, manifests.namespace(namespace))
    for mount in example.mounts:
        await client.create(CONFIG_MAPS, manifests.files(mount.name, mount.contents()), namespace=namespace)
    await client.create(PERSISTENT_VOLUME_CLAIMS, manifests.output_claim(), namespace=namespace)


async def _remove(client: Client, namespace: str) -> None:
    with contextlib.suppress(ApiError, Unreachable):
        await client.delete(NAMESPACES, namespace)


async def _run_dag(
    options: DemoOptions,
    console: Console,
    client: Client,
    home: Path,
    namespace: str,
    host: str,
    kubeconfig: Path | None,
) -> int:
    bind = host if options.context is None else "0.0.0.0"  # noqa: S104 - pods of a real cluster come from outside
    port = free_port(host if options.context is None else "127.0.0.1")
    environment = airflow_environment(home, options.example.dags_folder(), host, port)
    image = options.image or f"apache/airflow:{version('apache-airflow')}"
    environment |= _executor_environment(options, home, namespace, kubeconfig, image)
    pull_policy = "IfNotPresent"
    files = {mount.name: mount.contents() for mount in options.example.mounts}
    url = environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    template = manifests.worker_template(image, pull_policy, url, files)
    (home / "pod_template.yaml").write_text(yaml.safe_dump(template, sort_keys=False))
    console.print(f"Starting Airflow {version('apache-airflow')} with {EXECUTORS[options.executor]} …")
    dag_id = options.example.dag_id
    async with Airflow(home, environment, bind, port) as airflow, AirflowApi(f"http://{host}:{port}", dag_id) as api:
        await airflow.migrate()
        await airflow.start()
        run = _Run()
        stall = await _follow(options, console, client, namespace, airflow, api, run)
        code = await _report(options, console, api, run, stall)
        if options.keep:
            console.print(f"\nAirflow's UI: {airflow.url}  Ctrl-C ends it.")
            await _until_interrupted(airflow)
        return code


async def _follow(
    options: DemoOptions,
    console: Console,
    client: Client,
    namespace: str,
    airflow: Airflow,
    api: AirflowApi,
    run: _Run,
) -> Stall | None:
    """Watch and show until the run is over; what fails a watcher ends the demo."""
    try:
        async with asyncio.TaskGroup() as group:
            watchers = [
                group.create_task(_watch_pods(client, namespace, run)),
                group.create_task(_watch_tasks(airflow, api, run)),
            ]
            try:
                return await _show(options, console, run)
            finally:
                for watcher in watchers:
                    watcher.cancel()
    except BaseExceptionGroup as problems:
        raise problems.exceptions[0] from None


def _executor_environment(
    options: DemoOptions, home: Path, namespace: str, kubeconfig: Path | None, image: str
) -> dict[str, str]:
    """Airflow's configuration of the executor: the same section for stock and for ours."""
    repository, _, tag = image.rpartition(":")
    section = {
        "CLUSTER_CONTEXT": options.context or "",
        "CONFIG_FILE": str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG", ""),
        "IN_CLUSTER": "False",
        "NAMESPACE": namespace,
        "POD_TEMPLATE_FILE": str(home / "pod_template.yaml"),
        "WORKER_CONTAINER_REPOSITORY": repository,
        "WORKER_CONTAINER_TAG": tag,
    }
    return {
        "AIRFLOW__CORE__EXECUTOR": EXECUTORS[options.executor],
        "AIRFLOW__CORE__PARALLELISM": str(options.parallelism),
        **{f"AIRFLOW__KUBERNETES_EXECUTOR__{key}": value for key, value in section.items() if value},
    }


async def _watch_pods(client: Client, namespace: str, run: _Run) -> None:
    """Follow every pod of the namespace; a closed watch is opened again where it ended."""
    position = (await client.list(PODS, namespace=namespace)).version
    while True:
        async for event in client.watch(PODS, namespace=namespace, version=position, timeout=300):
            pod = event["object"]
            position = pod["metadata"]["resourceVersion"]
            if event["type"] != "BOOKMARK":
                before, run.pods = run.pods, advance(run.pods, event["type"], pod, run.now)
                run.changed = run.now if run.pods != before else run.changed


async def _watch_tasks(airflow: Airflow, api: AirflowApi, run: _Run) -> None:
    """Ask Airflow for the state of the DAG, twice a second."""
    while True:
        airflow.check()
        if errors := await api.import_errors():
            raise CrosswindError(f"the DAG file cannot be parsed:\n{errors[0]}")
        dag_run, tasks = await api.dag_run(), await api.task_instances()
        if [task["state"] for task in tasks] != [task["state"] for task in run.tasks]:
            run.changed = run.now
        run.dag_run, run.tasks = dag_run, tasks
        await asyncio.sleep(POLL_S)


async def _show(options: DemoOptions, console: Console, run: _Run) -> Stall | None:
    """Show the run until it is over, stands still or takes too long; return the stall, if it is one."""
    lines = screen.PlainLines()
    with (
        Live(console=console, auto_refresh=False, transient=False)
        if console.is_terminal
        else contextlib.nullcontext() as live
    ):
        while run.now < options.time_limit:
            if live is not None:
                note = "" if run.pods else "   (Airflow is starting)"
                live.update(screen.pod_table(run.pods.values(), run.tasks, run.now, note), refresh=True)
            else:
                for line in lines.news(run.pods.values(), run.now):
                    console.print(line, highlight=False)
            if run.over and (_all_gone(run) or run.now - run.changed > PODS_GONE_S):
                return None
            silent = run.now - run.changed
            if silent > options.stall_limit and (stall := find_stall(run.tasks, run.pods.values(), silent)):
                return stall
            await asyncio.sleep(0.25)
    raise CrosswindError(
        f"the DAG was not finished after {options.time_limit:.0f} s; its tasks: "
        + ", ".join(f"{task['task_id']} {task['state']}" for task in run.tasks)
    )


def _all_gone(run: _Run) -> bool:
    return all(pod.gone is not None for pod in run.pods.values())


async def _report(options: DemoOptions, console: Console, api: AirflowApi, run: _Run, stall: Stall | None) -> int:
    """Print the result of the DAG and the summary; return the exit code."""
    state = run.dag_run["state"] if run.dag_run else "never started"
    if stall:
        console.print()
        console.print(screen.stall_text(stall, options.parallelism, run.now), highlight=False)
    elif run.dag_run and (rows := await options.example.results(api, run.dag_run["dag_run_id"], run.tasks)):
        console.print("\nWhat the DAG found out:")
        console.print(screen.result_table(options.example.columns, rows))
    summary = summarise(state, run.tasks, run.pods.values(), run.now)
    console.print()
    console.print(screen.summary_table(summary))
    return 0 if _succeeded(summary) else 1


def _succeeded(summary: Summary) -> bool:
    return summary.dag_state == "success" and not summary.leaked


async def _until_interrupted(airflow: Airflow) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            airflow.check()
            await asyncio.sleep(1)
