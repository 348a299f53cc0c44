"""A real Airflow on the one-machine cluster: scheduler, DAG processor, API server; a global executor and two teams."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import yaml
from delivered_dags import deliver, volume

from crosswind.demo.manifests import FOR_SLOW_MACHINES
from crosswind.demo.processes import Airflow, airflow_environment, free_port
from crosswind.event_loop import LoopThread
from crosswind.testing import Cluster
from deadlines import scaled

EXECUTOR = "crosswind.executor.KubernetesExecutor"
TEAMS = ("blue", "red")

DAG = """
import os
from datetime import timedelta
from airflow.sdk import DAG, task, DeadlineAlert, DeadlineReference, SyncCallback

def notify(team, context=None):
    if os.environ["TEAM"] != team:
        raise RuntimeError(f"this pod is of {{os.environ['TEAM']}}")

callback = SyncCallback(notify, {{"team": "{callback}"}})
late = DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, timedelta(seconds=1), callback)

with DAG("{dag_id}", schedule=None, deadline={deadline}) as dag:

    @task
    def where():
        return [os.environ["TEAM"], os.environ["POD_NAMESPACE"]]

    where()

if __name__ == "__main__":
    run = dag.test(use_executor=True)
    print("the run ended with", run.state)
"""


def template(cluster: Cluster, team: str, folder: Path, environment: Mapping[str, str]) -> str:
    """Return a pod template of a team, with the DAG files from a ConfigMap at the scheduler's path."""
    env = {**environment, "TEAM": team, "AIRFLOW_HOME": "/opt/airflow", "PYTHONWARNINGS": "ignore"}
    named: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in env.items()]
    named.append({"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}})
    base = {
        "name": "base",
        "image": cluster.airflow_image,
        "imagePullPolicy": cluster.pull_policy,
        "env": [*named, {"name": "WAREHOUSE_PASSWORD", "value": "<hunter2>"}],
        "volumeMounts": [{"name": "dags", "mountPath": str(folder)}, {"name": "home", "mountPath": "/opt/airflow"}],
    }
    files = volume("dags", [f"{owner}/{owner}_dag.py" for owner in ("everybody", *TEAMS)])
    volumes = [files, {"name": "home", "emptyDir": {}}]
    spec = {"restartPolicy": "Never", "containers": [base], "volumes": volumes}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, "spec": spec})


def bundle(name: str, folder: Path, **more: str) -> dict[str, Any]:
    kind = "airflow.dag_processing.bundles.local.LocalDagBundle"
    return {"name": name, "classpath": kind, "kwargs": {"path": str(folder)}, **more}


class AirflowWithTeams:
    """Runs while the ``with`` block lasts. ``namespaces``: of the global executor and of each team."""

    def __init__(self, cluster: Cluster, home: Path, namespaces: Mapping[str, str]) -> None:
        self._cluster, self._home, self._namespaces = cluster, home, namespaces
        self._dags = home / "dags"
        port = free_port(cluster.host)
        self.environment = airflow_environment(home, self._dags / "everybody", cluster.host, port)
        self.url = f"http://{cluster.host}:{port}"
        self._airflow = Airflow(home, self.environment, cluster.host, port)
        self._thread = LoopThread("airflow", self._run)
        self._started = threading.Event()
        self._problem: BaseException | None = None

    def __enter__(self) -> Self:
        self._write_dags()
        self._configure()
        self._airflow.environment = self.environment
        self._thread.start()
        self._started.wait(scaled(120))
        if self._problem is not None:
            raise self._problem
        token = self.until(self._token)
        self.api = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=scaled(20))
        for owner in TEAMS:
            self.until(lambda owner=owner: self._trigger(f"{owner}_dag"))  # type: ignore[misc]
        return self

    def __exit__(self, *_: object) -> None:
        self.api.close()
        self._thread.stop(scaled(20))

    async def _run(self) -> None:
        try:
            async with self._airflow as airflow:
                texts = {str(path.relative_to(self._dags)): path.read_text() for path in self._dags.rglob("*.py")}
                await deliver(self._cluster, self._namespaces.values(), texts)
                await airflow.migrate()
                with sqlite3.connect(self._home / "airflow.db") as connection:  # a command takes seconds for each
                    connection.executemany("insert into team values (?)", [(team,) for team in TEAMS])
                connection.close()
                await airflow.start()
                self._started.set()
                await asyncio.Event().wait()
        except Exception as problem:
            self._problem = problem
        finally:
            self._started.set()

    def _write_dags(self) -> None:
        for owner in ("everybody", *TEAMS):
            (self._dags / owner).mkdir(parents=True)
            late = "late" if owner == "blue" else "None"
            text = DAG.format(dag_id=f"{owner}_dag", deadline=late, callback=owner)
            (self._dags / owner / f"{owner}_dag.py").write_text(text)

    def _configure(self) -> None:
        folders = {owner: self._dags / owner for owner in ("everybody", *TEAMS)}
        names = {"everybody": "dags-folder"}
        owned = [bundle(team, folders[team], team_name=team) for team in TEAMS]
        bundles = [bundle("dags-folder", folders["everybody"]), *owned]
        plain = [bundle(names.get(owner, owner), folder) for owner, folder in folders.items()]
        worker = {
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(plain),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            **FOR_SLOW_MACHINES,
        }
        self.environment |= {
            "AIRFLOW__CORE__MULTI_TEAM": "True",
            "AIRFLOW__CORE__EXECUTOR": ";".join([EXECUTOR, *(f"{team}={EXECUTOR}" for team in TEAMS)]),
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        }
        for owner in folders:
            path = self._home / f"{owner}.yaml"
            path.write_text(template(self._cluster, owner, self._dags, worker))
            options = {
                "CONFIG_FILE": str(self._cluster.kubeconfig),
                "IN_CLUSTER": "False",
                "NAMESPACE": self._namespaces[owner],
                "POD_TEMPLATE_FILE": str(path),
            }
            team = "" if owner == "everybody" else f"{owner.upper()}___"
            self.environment |= {f"AIRFLOW__{team}KUBERNETES_EXECUTOR__{key}": value for key, value in options.items()}

    def _token(self) -> str:
        try:
            return str(httpx.get(self.url + "/auth/token", timeout=scaled(5)).json()["access_token"])
        except (httpx.HTTPError, KeyError, ValueError):
            return ""

    def _trigger(self, dag_id: str) -> bool:
        return self.api.post(f"/api/v2/dags/{dag_id}/dagRuns", json={"logical_date": None}).status_code == 200

    def get(self, path: str, **query: str) -> Any:
        """Return the answer of the REST API, None for an error or no answer."""
        try:
            answer = self.api.get(path, params=query)
        except httpx.TimeoutException:
            return None
        return answer.json() if answer.status_code == 200 else None

    def rows(self, query: str) -> list[Any]:
        """Query the metadata database."""
        with sqlite3.connect(f"file:{self._home}/airflow.db?mode=ro", uri=True, timeout=scaled(10)) as connection:
            found = connection.execute(query).fetchall()
        connection.close()
        return found

    def database(self, statement: str) -> None:
        """Change the metadata database."""
        with sqlite3.connect(f"{self._home}/airflow.db", timeout=scaled(10)) as connection:
            connection.execute(statement)
        connection.close()

    def until(self, happened: Callable[[], Any], timeout: float = 90.0) -> Any:
        """Wait until a condition holds; the error has the end of the logs."""
        end = time.monotonic() + scaled(timeout)
        while not (found := happened()):
            self._airflow.check()
            if time.monotonic() > end:
                raise AssertionError("\n".join(self._airflow.log_end(name, 25) for name in ("scheduler", "api-server")))
            time.sleep(0.2)
        return found
