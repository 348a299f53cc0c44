"""Runs the demo: opens a cluster, starts Airflow, shows the DAG run, and removes everything at the end.

``run_demo`` owns all of it by nested ``async with`` blocks; cancellation (Ctrl-C) leaves them in reverse order.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import yaml
from rich.console import Console

from crosswind.demo import manifests, screen
from crosswind.demo.airflow_api import AirflowApi
from crosswind.demo.examples import ORDERS, Example
from crosswind.demo.processes import Airflow, airflow_environment, free_port
from crosswind.demo.progress import RunProgress
from crosswind.demo.run_watcher import Limits, show_until_over
from crosswind.demo.summary import Stall, Summary, summarise
from crosswind.errors import ApiError, ConfigError, Unreachable
from crosswind.kube.client import Client
from crosswind.kube.resources import CONFIG_MAPS, NAMESPACES, PERSISTENT_VOLUME_CLAIMS
from crosswind.settings import KubeSettings
from kubelocal.cluster import LocalCluster
from kubelocal.kubelet.service_proxy import Relay
from kubelocal.owned_paths import temporary_folder
from kubelocal.settings import LocalSettings

__all__ = ["DemoOptions", "run_demo"]

EXECUTORS = {
    "crosswind": "crosswind.executor.KubernetesExecutor",
    "stock": "airflow.providers.cncf.kubernetes.executors.kubernetes_executor.KubernetesExecutor",
}
WARM = {"min": 2, "max": 4}
"""Pods that wait for tasks with ``--warm``: few, so that the first tasks of a run start cold beside them."""
HEALTH_POLL_S = 0.5
HEALTH_TIMEOUT_S = 120.0
CHECK_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The options of ``crosswind demo``. Times in seconds."""

    example: Example = ORDERS
    executor: str = "crosswind"
    parallelism: int = 4
    """Slots of the executor: few, so that a lost slot has an effect at once."""
    time_limit: float | None = None
    """None: no limit while the run makes progress."""
    stall_limit: float = 25.0
    """A run without a change for this time, in which sidecars keep finished pods alive, has stalled."""
    warm: bool = False
    """Whether pods wait for tasks."""
    keep: bool = False
    context: str | None = None
    image: str | None = None
    host: str | None = None
    """Address at which pods reach this machine; required with ``context``."""
    results: TextIO | None = None
    """Stream for the summary as JSON; None: no JSON."""
    local: LocalSettings = field(default_factory=LocalSettings)
    """Settings of the one-machine cluster, except its kubeconfig, which the demo sets."""


async def run_demo(options: DemoOptions, console: Console) -> int:
    """Run the demo; return the exit code: 0 when the DAG succeeded and no pod is left."""
    with temporary_folder("crosswind-demo-", "crosswind demo") as home:
        async with _cluster(options, home) as (client, host, kubeconfig):
            name = f"crosswind-demo-{os.urandom(3).hex()}" if options.context else "crosswind-demo"
            await _create_objects(client, options.example, name)
            try:
                return await _run_dag(options, console, client, home, name, host, kubeconfig)
            finally:
                await _remove(client, name)


@contextlib.asynccontextmanager
async def _cluster(options: DemoOptions, home: Path) -> AsyncIterator[tuple[Client, str, Path | None]]:
    """Yield a client of the cluster, this machine's address for its pods, and its kubeconfig if it is a local one."""
    if options.context:
        if not options.host or not options.image:
            raise ConfigError(
                "--context needs --image (an Airflow 3.3 image) and --host (this machine's address for pods)"
            )
        async with await Client.connect(KubeSettings(context=options.context)) as client:
            await client.version()
            yield client, options.host, None
        return
    async with (
        LocalCluster(replace(options.local, kubeconfig=home / "kubeconfig")) as cluster,
        await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client,
    ):
        yield client, cluster.host_address, cluster.kubeconfig


async def _create_objects(client: Client, example: Example, namespace: str) -> None:
    """Create the namespace, and the ConfigMaps and the volume of the tasks."""
    await client.create(NAMESPACES, manifests.namespace(namespace))
    for example_files in example.mounts:
        await client.create(
            CONFIG_MAPS, manifests.files(example_files.name, example_files.contents()), namespace=namespace
        )
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
    bind = host if options.context is None else "0.0.0.0"  # noqa: S104 - pods of a real cluster connect from other machines
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
        run = RunProgress()
        limits = Limits(options.time_limit, options.stall_limit)
        stall = await show_until_over(limits, console, client, namespace, airflow, api, run)
        code = await _report(options, console, api, run, stall)
        if options.keep:
            with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C, as the output says; the demo has succeeded
                async with _ui_at_localhost(airflow) as url:
                    await _keep(console, airflow, api, url, kubeconfig)
        return code


def _executor_environment(
    options: DemoOptions, home: Path, namespace: str, kubeconfig: Path | None, image: str
) -> dict[str, str]:
    """Return the configuration of the executor: the same section for stock's and Crosswind's."""
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
        **({"AIRFLOW__CROSSWIND__WARM": json.dumps(WARM)} if options.warm else {}),
    }


async def _report(
    options: DemoOptions, console: Console, api: AirflowApi, run: RunProgress, stall: Stall | None
) -> int:
    """Print the result of the DAG and the summary; return the exit code."""
    state = run.dag_run["state"] if run.dag_run else "never started"
    if stall:
        console.print()
        console.print(screen.stall_text(stall, options.parallelism, run.now), highlight=False)
    elif run.dag_run and (rows := await options.example.results(api, run.dag_run["dag_run_id"], run.tasks)):
        console.print("\nThe result of the DAG:")
        console.print(screen.result_table(options.example.columns, rows))
    summary = summarise(state, run.tasks, run.pods.values(), run.now)
    console.print()
    console.print(screen.summary_table(summary))
    if options.results is not None:
        results = {**asdict(summary), "executor": options.executor, "task_instances": run.tasks}
        results["stall"] = _stall_as_json(stall) if stall else None
        options.results.write(json.dumps(results, indent=2, default=str) + "\n")
    return 0 if _succeeded(summary) else 1


def _stall_as_json(stall: Stall) -> dict[str, Any]:
    """Return a stall under the names that programs read since the first release."""
    facts = asdict(stall)
    facts["silent"] = facts.pop("unchanged_for")
    return facts


def _succeeded(summary: Summary) -> bool:
    return summary.dag_state == "success" and not summary.leaked


@contextlib.asynccontextmanager
async def _ui_at_localhost(airflow: Airflow) -> AsyncIterator[str]:
    """Forward a port of localhost to the UI, which otherwise is at the address that pods use."""
    if airflow.api_host in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 - compared, not bound
        yield f"http://localhost:{airflow.api_port}"
        return
    relay = Relay()
    relay.targets = [(airflow.api_host, airflow.api_port)]
    await relay.open("127.0.0.1", airflow.api_port, "TCP")
    try:
        yield f"http://localhost:{airflow.api_port}"
    finally:
        await relay.close()


async def _keep(console: Console, airflow: Airflow, api: AirflowApi, url: str, kubeconfig: Path | None) -> None:
    """Keep Airflow running until the demo is interrupted.

    Starts a triggerer, because without one the UI shows a component as failed.
    """
    await airflow.start_triggerer()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(HEALTH_TIMEOUT_S):
            while set((await api.health()).values()) != {"healthy"}:
                airflow.check()
                await asyncio.sleep(HEALTH_POLL_S)
    console.print(f"\nAirflow's UI: {url}", highlight=False, soft_wrap=True)
    if kubeconfig is not None:
        console.print(f"The cluster:  export KUBECONFIG={kubeconfig}", highlight=False, soft_wrap=True)
    console.print("Press Ctrl-C to stop everything.", highlight=False)
    while True:
        airflow.check()
        await asyncio.sleep(CHECK_INTERVAL_S)
