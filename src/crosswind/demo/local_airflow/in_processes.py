"""Runs Airflow's components as processes of this machine; only tasks run in pods."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import yaml

from crosswind.demo.local_airflow import deployment
from crosswind.demo.local_airflow.deployment import SharedFolders
from crosswind.demo.local_airflow.postgresql import LocalDatabase
from crosswind.demo.processes import Airflow, airflow_environment
from crosswind.kube.client import Client

__all__ = ["airflow_in_processes"]


@contextlib.asynccontextmanager
async def airflow_in_processes(
    client: Client,
    home: Path,
    kubeconfig: Path,
    database: LocalDatabase,
    folders: SharedFolders,
    image: str,
    address: tuple[str, int],
    config: Mapping[str, Mapping[str, str | int | bool]],
) -> AsyncIterator[Airflow]:
    """Start Airflow with its API server at ``address``, which pods reach. Does not wait until it is ready."""
    host, port = address
    environment = airflow_environment(home / "airflow", folders.dags, host, port)
    template = home / "pod_template.yaml"
    url = environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
    template.write_text(yaml.safe_dump(deployment.worker_template(image, folders, url), sort_keys=False))
    repository, _, tag = image.rpartition(":")
    environment |= _variables(config) | {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database.url,
        "AIRFLOW__CORE__EXECUTOR": "crosswind.executor.KubernetesExecutor",
        "AIRFLOW__KUBERNETES_EXECUTOR__CONFIG_FILE": str(kubeconfig),
        "AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER": "False",
        "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE": deployment.WORKERS,
        "AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE": str(template),
        "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_REPOSITORY": repository,
        "AIRFLOW__KUBERNETES_EXECUTOR__WORKER_CONTAINER_TAG": tag,
    }
    async with Airflow(home / "airflow", environment, host, port) as airflow:
        await airflow.migrate()
        await airflow.start()
        await airflow.start_triggerer()
        yield airflow


def _variables(config: Mapping[str, Mapping[str, str | int | bool]]) -> dict[str, str]:
    return {
        f"AIRFLOW__{section.upper()}__{option.upper()}": str(value)
        for section, options in config.items()
        for option, value in options.items()
    }
