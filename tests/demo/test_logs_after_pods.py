"""A real Airflow without log volume and remote logging: what its REST API says of tasks whose pods are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from crosswind.demo import manifests
from crosswind.demo.processes import Airflow, airflow_environment, free_port
from crosswind.kube.client import Client
from crosswind.kube.resources import CONFIG_MAPS, NAMESPACES, PERSISTENT_VOLUME_CLAIMS, PODS
from crosswind.settings import KubeSettings
from deadlines import scaled
from kubelocal.cluster import LocalCluster
from kubelocal.settings import LocalSettings

DAG = """
import logging
from datetime import timedelta

from airflow.sdk import dag, task


@dag(schedule="@once", catchup=False)
def talking():
    @task
    def works():
        logging.getLogger("mine").warning("heard by all")
        print("a line on stdout")

    @task(retries=1, retry_delay=timedelta(seconds=0))
    def works_later(ti=None):
        print(f"this is try {ti.try_number}")
        assert ti.try_number == 2

    works()
    works_later()


talking()
"""


@dataclass
class Place:
    """Where the test's Airflow runs."""

    client: Client
    namespace: str
    airflow: Airflow

    async def pods(self) -> list[Any]:
        return (await self.client.list(PODS, namespace=self.namespace)).items


@asynccontextmanager
async def running_airflow(home: Path) -> AsyncIterator[Place]:
    (home / "dags").mkdir()
    (home / "dags" / "talking.py").write_text(DAG)
    async with (
        LocalCluster(LocalSettings(kubeconfig=home / "kubeconfig")) as cluster,
        await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client,
    ):
        host = cluster.host_address
        port = free_port(host)
        environment = airflow_environment(home, home / "dags", host, port)
        url = environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"]
        files = {"dags": {"talking.py": DAG}}
        template = manifests.worker_template("apache/airflow:local", "IfNotPresent", url, files)
        (home / "pod_template.yaml").write_text(yaml.safe_dump(template))
        environment |= {
            "AIRFLOW__CORE__EXECUTOR": "crosswind.executor.KubernetesExecutor",
            "AIRFLOW__KUBERNETES_EXECUTOR__CONFIG_FILE": str(cluster.kubeconfig),
            "AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER": "False",
            "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE": "tasks",
            "AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE": str(home / "pod_template.yaml"),
            "AIRFLOW__KUBERNETES_EXECUTOR__DELETE_WORKER_PODS_ON_FAILURE": "True",
        }
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tasks"}})
        await client.create(CONFIG_MAPS, manifests.files("dags", files["dags"]), namespace="tasks")
        await client.create(PERSISTENT_VOLUME_CLAIMS, manifests.output_claim(), namespace="tasks")
        async with Airflow(home, environment, host, port) as airflow:
            await airflow.migrate()
            await airflow.start()
            yield Place(client, "tasks", airflow)


async def ask(session: aiohttp.ClientSession, path: str) -> Any:
    """Return what the REST API answers, None while it is not up."""
    try:
        if "Authorization" not in session.headers:
            async with session.get("/auth/token") as answer:
                token = (await answer.json())["access_token"]
                session.headers["Authorization"] = f"Bearer {token}"
        async with session.get(f"/api/v2/dags/talking{path}") as answer:
            return await answer.json() if answer.status == 200 else None
    except aiohttp.ClientError:
        return None


async def until(condition: Any, place: Place) -> Any:
    async with asyncio.timeout(scaled(150)):
        while not (outcome := await condition()):
            place.airflow.check()
            await asyncio.sleep(0.3)
    return outcome


async def read(session: aiohttp.ClientSession, run: str, task: str, number: int) -> list[dict[str, Any]]:
    answer = await ask(session, f"/dagRuns/{run}/taskInstances/{task}/logs/{number}")
    lines: list[dict[str, Any]] = answer["content"]
    return lines


@pytest.mark.timeout(200)
async def test_logs_of_every_try_are_there_line_by_line_when_the_pods_are_gone(tmp_path: Path) -> None:
    async with running_airflow(tmp_path) as place, aiohttp.ClientSession(place.airflow.url) as session:

        async def ended() -> tuple[str, str] | None:
            runs = (await ask(session, "/dagRuns") or {}).get("dag_runs", [])
            newest = (runs[0]["dag_run_id"], runs[0]["state"]) if runs else ("", "")
            return newest if newest[1] in ("success", "failed") else None

        async def gone() -> bool:
            return not await place.pods()

        run, state = await until(ended, place)
        await until(gone, place)
        works = await read(session, run, "works", 1)
        first, second = [await read(session, run, "works_later", number) for number in (1, 2)]
    assert state == "success", works + second
    assert {"event": "heard by all", "level": "warning", "logger": "mine"}.items() <= line(works, "heard").items()
    assert line(works, "a line on stdout")["timestamp"] is not None
    assert any("kept in the metadata database" in entry["event"] for entry in works)
    assert line(first, "this is try")["event"] == "this is try 1"
    assert line(first, "Task failed with exception")["error_detail"]
    assert line(second, "this is try")["event"] == "this is try 2"


def line(lines: list[dict[str, Any]], text: str) -> dict[str, Any]:
    matches = [entry for entry in lines if text in entry["event"]]
    assert len(matches) == 1, lines
    return matches[0]
