"""The contract of an executor, with a real Airflow and each worker in a real pod. Takes about a minute."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml
from airflow_with_teams import TEAMS, AirflowWithTeams

from crosswind.event_loop import run_in_own_loop
from crosswind.kube.client import Client
from crosswind.kube.resources import NAMESPACES, SERVICE_ACCOUNTS
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster
from deadlines import scaled

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

    run_in_own_loop(lambda: each(create), scaled(20))
    yield names
    run_in_own_loop(lambda: each(lambda client, name: client.delete(NAMESPACES, name)), scaled(20))


@pytest.fixture(scope="module")
def airflow(
    cluster: Cluster, namespaces: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowWithTeams]:
    if not cluster.host:
        pytest.skip("pods must reach the API server on this machine: name its address by --cluster-host")
    with AirflowWithTeams(cluster, tmp_path_factory.mktemp("airflow"), namespaces) as airflow:
        yield airflow


def result(airflow: AirflowWithTeams, owner: str) -> Any:
    """Return the value that the DAG's task returned; raise if it failed."""
    dag = f"/api/v2/dags/{owner}_dag/dagRuns/~/taskInstances"
    ti, *_ = (airflow.get(dag) or {}).get("task_instances") or [{"state": None}]
    assert ti["state"] != "failed", airflow.rows(f"select event, extra from log where dag_id = '{owner}_dag'")
    if ti["state"] != "success":
        return None
    path = f"/api/v2/dags/{owner}_dag/dagRuns/{ti['dag_run_id']}/taskInstances/where/xcomEntries/return_value"
    return airflow.get(path, deserialize="true")["value"]


def test_each_team_runs_its_tasks_under_its_own_configuration(
    airflow: AirflowWithTeams, namespaces: dict[str, str]
) -> None:
    for team in TEAMS:
        assert airflow.until(lambda team=team: result(airflow, team)) == [team, namespaces[team]]


def page(airflow: AirflowWithTeams, task_id: str = "where", **query: str) -> httpx.Response:
    ((run_id,),) = airflow.rows("select run_id from dag_run where dag_id = 'blue_dag'")
    asked = {"dag_id": "blue_dag", "run_id": run_id, "task_id": task_id, "map_index": "{MAP_INDEX}", **query}
    return airflow.api.get("/crosswind/pod", params=asked)


def test_the_ui_shows_the_pod_of_a_task_as_its_teams_executor_builds_it(
    airflow: AirflowWithTeams, namespaces: dict[str, str]
) -> None:
    apps = airflow.get("/api/v2/plugins")["plugins"][0]["react_apps"]
    assert {app["destination"]: app["name"] for app in apps}["task_instance"] == "Pod"
    airflow.until(lambda: result(airflow, "blue"))  # the pod's name has the id that the scheduler gives a queued task
    pod = yaml.safe_load(page(airflow, format="yaml").text)
    ((ti_id, unique),) = airflow.rows("select id, external_executor_id from task_instance where dag_id = 'blue_dag'")
    assert pod["metadata"]["namespace"] == namespaces["blue"]
    assert pod["metadata"]["name"] == f"blue-dag-where-{unique}"
    assert pod["metadata"]["annotations"]["task_instance_id"].replace("-", "") == ti_id.replace("-", "")
    environment = {one["name"]: one.get("value") for one in pod["spec"]["containers"][0]["env"]}
    assert environment["TEAM"] == "blue"
    assert environment["WAREHOUSE_PASSWORD"] == "***"


def test_the_page_is_plain_html_with_what_happened_to_the_pod(airflow: AirflowWithTeams) -> None:
    airflow.until(lambda: "Succeeded after" in page(airflow).text)
    airflow.database(
        "insert into log (dttm, dag_id, task_id, run_id, map_index, try_number, event, extra)"
        " select '2026-01-02 03:04:05', dag_id, task_id, run_id, -1, try_number, 'pod waits', 'no <node>'"
        " from task_instance where dag_id = 'blue_dag'"
    )
    answer = page(airflow)
    assert answer.headers["content-type"].startswith("text/html")
    assert "<td>2026-01-02 03:04:05</td><td>pod waits</td><td>no &lt;node&gt;</td>" in answer.text
    assert "kind: Pod" in answer.text
    assert "hunter2" not in answer.text
    assert "<script" not in answer.text


def test_the_page_requires_the_permission_to_read_the_dag(airflow: AirflowWithTeams) -> None:
    stranger = {"Authorization": "Bearer nobody"}
    assert httpx.get(page(airflow).request.url, headers=stranger, timeout=scaled(20)).status_code == 403
    assert page(airflow, "nothing").status_code == 404


def test_a_deadlines_callback_runs_in_a_pod_of_its_team(airflow: AirflowWithTeams) -> None:
    state = airflow.until(lambda: [row for row in airflow.rows("select state from callback") if row[0] in OVER])
    assert state == [("success",)]


OVER = ("success", "failed")


def test_connections_are_tested_in_pods(airflow: AirflowWithTeams) -> None:
    def ask(path: str) -> str:
        body = {"connection_id": path.strip("/").replace("/", "_"), "conn_type": "fs", "team_name": "red"}
        said = airflow.api.post("/api/v2/connections/enqueue-test", json={**body, "extra": f'{{"path": "{path}"}}'})
        return str(said.json()["token"])

    def outcome(token: str) -> Any:
        headers = {"Airflow-Connection-Test-Token": token}
        said = airflow.api.get("/api/v2/connections/enqueue-test", headers=headers).json()
        return (said["state"], said["result_message"]) if said.get("state") in OVER else None

    good, bad = ask("/opt/airflow"), ask("/nope")
    assert airflow.until(lambda: outcome(good)) == ("success", "Path /opt/airflow is existing.")
    assert airflow.until(lambda: outcome(bad)) == ("failed", "Path /nope does not exist.")


def test_dag_test_runs_its_tasks_in_pods(airflow: AirflowWithTeams) -> None:
    file = f"{airflow.environment['AIRFLOW__CORE__DAGS_FOLDER']}/everybody_dag.py"
    ran = subprocess.run(
        [sys.executable, file],
        env=airflow.environment,
        capture_output=True,
        text=True,
        timeout=scaled(120),
        check=False,
    )
    assert "the run ended with success" in ran.stdout, ran.stdout[-3000:] + ran.stderr[-3000:]
