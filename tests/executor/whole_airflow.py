"""A real Airflow with the executor: API server, scheduler, DAG processor, triggerer; workers in pods of the cluster."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import httpx
import yaml
from delivered_dags import deliver, volume
from sqlalchemy import Engine, text

from crosswind.demo.manifests import FOR_SLOW_MACHINES
from crosswind.demo.processes import Airflow, airflow_environment, free_port
from crosswind.event_loop import LoopThread
from crosswind.testing import Cluster
from deadlines import scaled

_WAIT = 120.0
"""Seconds for anything: a worker's imports alone take ten on a busy machine."""


class WholeAirflow:
    """Runs while the ``with`` block lasts. ``dags``: files by name."""

    def __init__(
        self,
        cluster: Cluster,
        home: Path,
        namespace: str,
        database: Engine,
        dags: Mapping[str, str],
        **options: str,
    ) -> None:
        self._cluster, self._home, self._namespace, self._database = cluster, home, namespace, database
        self._dags = dags
        port = free_port(cluster.host)
        self.folder = home / "dags"
        self.url = f"http://{cluster.host}:{port}"
        url = database.url.render_as_string(hide_password=False)
        self.environment = airflow_environment(home, self.folder, cluster.host, port) | {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
            "AIRFLOW__CORE__EXECUTOR": "crosswind.executor.KubernetesExecutor",
            "AIRFLOW__KUBERNETES_EXECUTOR__CONFIG_FILE": str(cluster.kubeconfig),
            "AIRFLOW__KUBERNETES_EXECUTOR__IN_CLUSTER": "False",
            "AIRFLOW__KUBERNETES_EXECUTOR__NAMESPACE": namespace,
            "AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE": str(home / "worker.yaml"),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": f"{scaled(5):.0f}",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
            **options,
        }
        self._airflow = Airflow(home, self.environment, cluster.host, port)
        self._thread = LoopThread("airflow", self._run)
        self._started = threading.Event()
        self._problem: BaseException | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        for name, content in self._dags.items():
            (self.folder / f"{name}.py").write_text(content)
        (self._home / "worker.yaml").write_text(self._template())
        self._thread.start()
        self._started.wait(scaled(180))
        if self._problem is not None:
            raise self._problem
        self.api = httpx.Client(base_url=self.url, timeout=scaled(30))
        self.api.headers["Authorization"] = f"Bearer {self.until(self._token)}"
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "api"):
            self.api.close()
        self._thread.stop(scaled(30))

    def _template(self) -> str:
        bundles = [
            {
                "name": "dags-folder",
                "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
                "kwargs": {"path": str(self.folder)},
            }
        ]
        env = {
            "AIRFLOW_HOME": "/opt/airflow",
            "PYTHONWARNINGS": "ignore",
            **FOR_SLOW_MACHINES,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
        }
        base = {
            "name": "base",
            "image": self._cluster.airflow_image,
            "imagePullPolicy": self._cluster.pull_policy,
            "env": [{"name": name, "value": value} for name, value in env.items()],
            "volumeMounts": [
                {"name": "dags", "mountPath": str(self.folder)},
                {"name": "home", "mountPath": "/opt/airflow"},
            ],
        }
        volumes = [volume("dags", [f"{name}.py" for name in self._dags]), {"name": "home", "emptyDir": {}}]
        spec = {"restartPolicy": "Never", "containers": [base], "volumes": volumes}
        return yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, "spec": spec})

    async def _run(self) -> None:
        try:
            async with self._airflow as airflow:
                texts = {f"{name}.py": text for name, text in self._dags.items()}
                await deliver(self._cluster, [self._namespace], texts)
                await airflow.migrate()
                await airflow.start()
                await airflow._start("triggerer", "triggerer")
                self._started.set()
                await asyncio.Event().wait()
        except Exception as problem:
            self._problem = problem
        finally:
            self._started.set()

    def kill_scheduler(self) -> None:
        """Kill the scheduler without a signal that it can handle, as the loss of a node does."""
        process = self._airflow._processes.pop("scheduler")
        os.killpg(process.pid, signal.SIGKILL)

    def start_scheduler(self) -> None:
        self._thread.call(self._airflow._start("scheduler", "scheduler"), scaled(30))

    def _token(self) -> str:
        try:
            return str(httpx.get(self.url + "/auth/token", timeout=scaled(5)).json()["access_token"])
        except (httpx.HTTPError, KeyError, ValueError):
            return ""

    def until(self, happened: Callable[[], Any], timeout: float = _WAIT) -> Any:
        """Wait until a condition holds; the error has the end of the scheduler's log."""
        end = time.monotonic() + scaled(timeout)
        while not (found := happened()):
            self._airflow.check()
            if time.monotonic() > end:
                raise AssertionError(f"not within {timeout:g} s\n{self._airflow.log_end('scheduler', 40)}")
            time.sleep(0.3)
        return found

    def rows(self, query: str, **values: Any) -> list[Any]:
        """Query the metadata database."""
        with self._database.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query), values)]

    # --- the REST API -------------------------------------------------------------------------------------------------

    def trigger(self, dag_id: str, run_id: str) -> None:
        def triggered() -> bool:
            body = {"logical_date": None, "dag_run_id": run_id}
            return self.api.post(f"/api/v2/dags/{dag_id}/dagRuns", json=body).status_code == 200

        self.until(triggered)

    def _send(self, method: str, path: str, **body: Any) -> None:
        """Send a change, again while the server fails: a busy scheduler locks SQLite longer than the server waits."""

        def answered() -> httpx.Response | None:
            response = self.api.request(method, path, **body)
            return response if response.status_code < 500 else None

        self.until(answered).raise_for_status()

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        body = {"dry_run": False, "only_failed": False, "dag_run_id": run_id, "task_ids": [task_id]}
        self._send("POST", f"/api/v2/dags/{dag_id}/clearTaskInstances", json=body)

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        self._send("PATCH", path, json={"new_state": state})

    def delete_run(self, dag_id: str, run_id: str) -> None:
        """Delete a run, which is not allowed while it runs.

        Airflow's scheduler dies of an ``ObjectDeletedError`` when a run that it examines is deleted and the database
        locks no rows, as SQLite (``_schedule_all_dag_runs`` reads the run's id after a rollback). It examines running
        runs only, so the deletion waits for the end of the round in which the run failed.
        """
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"
        self._send("PATCH", path, json={"state": "failed"})
        before = self.until(self._heartbeats)
        self.until(lambda: (now := self._heartbeats()) and now != before)
        self._send("DELETE", path)

    def _heartbeats(self) -> list[str]:
        """Return the last heartbeat of each scheduler that runs; it comes after the scheduling of each round."""
        answer = self.api.get("/api/v2/jobs", params={"job_type": "SchedulerJob", "job_state": "running"})
        return sorted(job["latest_heartbeat"] for job in answer.json()["jobs"]) if answer.status_code == 200 else []

    def delete_task(self, dag_id: str, run_id: str, task_id: str) -> None:
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        self._send("DELETE", path)

    def task(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """Return a task instance, {} if it does not exist."""
        try:
            answer = self.api.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}")
        except httpx.TimeoutException:
            return {}
        return answer.json() if answer.status_code == 200 else {}

    def state(self, dag_id: str, run_id: str, task_id: str, *states: str) -> dict[str, Any]:
        """Wait until a task instance is in one of these states; return it."""

        def there() -> Any:
            found = self.task(dag_id, run_id, task_id)
            return found if found.get("state") in states else None

        found: dict[str, Any] = self.until(there)
        return found

    def event_log(self, dag_id: str, event: str) -> list[dict[str, Any]]:
        query = {"dag_id": dag_id, "event": event}
        answer = self.api.get("/api/v2/eventLogs", params=query)
        found: list[dict[str, Any]] = answer.json()["event_logs"] if answer.status_code == 200 else []
        return found
