"""What Airflow 3.3 asks of an executor, asked by a real Airflow; each worker in a real pod. Takes about a minute."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from airflow_with_teams import TEAMS, AirflowWithTeams

from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES, SERVICE_ACCOUNTS
from crosswind.runs.threads import run_apart
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def namespaces(cluster: Cluster) -> Iterator[dict[str, str]]:
    names = {owner: f"{owner}-{uuid.uuid4().hex[:8]}" for owner in ("everybody", *TEAMS)}

    async def each(work: Any) -> None:
        async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
            await asyncio.gather(*(work(client, name) for name in names.values()))

    async def create(client: Client, name: str) -> None:
        await client.create(NAMESPACES, {"metadata": {"name": name}})
        await client.list(SERVICE_ACCOUNTS, namespace=name)

    run_apart(lambda: each(create), 20)
    yield names
    run_apart(lambda: each(lambda client, name: client.delete(NAMESPACES, name)), 20)


@pytest.fixture(scope="module")
def airflow(
    cluster: Cluster, namespaces: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowWithTeams]:
    if not cluster.local:
        pytest.skip("pods of a real cluster do not see this machine's DAG files")
    with AirflowWithTeams(cluster, tmp_path_factory.mktemp("airflow"), namespaces) as airflow:
        yield airflow


def result(airflow: AirflowWithTeams, owner: str) -> Any:
    """Return what the DAG's task returned; fails when it failed."""
    dag = f"/api/v2/dags/{owner}_dag/dagRuns/~/taskInstances"
    (ti,) = (airflow.get(dag) or {}).get("task_instances") or [{"state": None}]
    assert ti["state"] not in ("failed", "upstream_failed"), airflow.get("/api/v2/eventLogs", dag_id=f"{owner}_dag")
    if ti["state"] != "success":
        return None
    path = f"/api/v2/dags/{owner}_dag/dagRuns/{ti['dag_run_id']}/taskInstances/where/xcomEntries/return_value"
    return airflow.get(path, deserialize="true")["value"]


def test_each_team_runs_its_tasks_under_its_own_configuration(
    airflow: AirflowWithTeams, namespaces: dict[str, str]
) -> None:
    found = {owner: airflow.until(lambda owner=owner: result(airflow, owner)) for owner in namespaces}
    assert found == {owner: [owner, name] for owner, name in namespaces.items()}


def test_a_deadlines_callback_runs_in_a_pod_of_its_team(airflow: AirflowWithTeams) -> None:
    state = airflow.until(lambda: [row for row in airflow.rows("select state from callback") if row[0] in OVER])
    assert state == [("success",)]


OVER = ("success", "failed")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/opt/airflow", ("success", "Path /opt/airflow is existing.")),
        ("/nope", ("failed", "Path /nope does not exist.")),
    ],
)
def test_a_connection_is_tested_in_a_pod(airflow: AirflowWithTeams, path: str, expected: tuple[str, str]) -> None:
    body = {"connection_id": f"c{path.count('t')}", "conn_type": "fs", "extra": f'{{"path": "{path}"}}'}
    token = airflow.api.post("/api/v2/connections/enqueue-test", json={**body, "team_name": "red"}).json()["token"]

    def outcome() -> Any:
        headers = {"Airflow-Connection-Test-Token": token}
        said = airflow.api.get("/api/v2/connections/enqueue-test", headers=headers).json()
        return (said["state"], said["result_message"]) if said.get("state") in OVER else None

    assert airflow.until(outcome) == expected


def test_dag_test_runs_its_tasks_in_pods(airflow: AirflowWithTeams) -> None:
    file = f"{airflow.environment['AIRFLOW__CORE__DAGS_FOLDER']}/everybody_dag.py"
    ran = subprocess.run(
        [sys.executable, file], env=airflow.environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert "the run ended with success" in ran.stdout, ran.stdout[-3000:] + ran.stderr[-3000:]
