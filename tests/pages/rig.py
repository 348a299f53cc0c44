"""A real API server of Airflow with Crosswind's plug-in, on the rows of ``example_rows``. No scheduler runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from crosswind.demo.processes import airflow_environment, die_with_parent, free_port

__all__ = ["RUN", "PagesServer", "of_task"]

HERE = Path(__file__).parent
DEADLINE = 30.0 * float(os.environ.get("TEST_TIME_SCALE") or 4)
"""Seconds for anything: benchmarks and pictures use this module too, so that it has no part of pytest."""
RUN = "manual__2026-11-29"
PASSWORDS = {"admin": "a", "reader": "r"}

DAG = """
from airflow.sdk import DAG, task

with DAG("orders", schedule=None):
    def work():
        pass

    tasks = {name: task(task_id=name)(work)() for name in ("extract", "clean", "join_all", "load", "report", "publish")}

    @task
    def partition(number):
        pass

    partition.expand(number=[0, 1, 2, 3])
    tasks["extract"] >> tasks["clean"] >> tasks["join_all"]

with DAG("secret_plans", schedule=None):
    task(task_id="hidden")(work)()
"""

TEMPLATE = """
apiVersion: v1
kind: Pod
metadata: {name: worker}
spec:
  restartPolicy: Never
  containers:
    - name: base
      image: registry.example/airflow:3.3.2
      env: [{name: WAREHOUSE_PASSWORD, value: hunter2}]
      resources: {requests: {cpu: 500m, memory: 512Mi}, limits: {memory: 1Gi}}
"""


class PagesServer:
    """Runs while the ``with`` block lasts.

    ``dags``, ``pods``, ``past``: how many DAGs and pods in flight, and pods of the last day, the fleet has.
    """

    def __init__(
        self, home: Path, *, dags: int = 3, pods: int = 40, past: int = 60, database: str = "", **settings: str
    ) -> None:
        self._home, self._sizes = home, (dags, pods, past)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        (home / "dags").mkdir(parents=True)
        (home / "dags" / "orders.py").write_text(DAG)
        (home / "template.yaml").write_text(TEMPLATE)
        (home / "passwords.json").write_text(json.dumps(PASSWORDS))
        self.environment = airflow_environment(home, home / "dags", "127.0.0.1", port) | {
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__CORE__EXECUTOR": "crosswind.executor.KubernetesExecutor",
            "AIRFLOW__KUBERNETES_EXECUTOR__POD_TEMPLATE_FILE": str(home / "template.yaml"),
            "AIRFLOW__CORE__AUTH_MANAGER": "one_dag_auth_manager.OneDagAuthManager",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin,reader:viewer",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
            "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            **({"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database} if database else {}),
            **settings,
        }

    def __enter__(self) -> Self:
        self._run("-m", "airflow", "db", "migrate")
        self._run(str(HERE / "example_rows.py"), *map(str, self._sizes))
        command = ["-m", "airflow", "api-server", "-H", "127.0.0.1", "-p", str(self._port), "-w", "1", "--apps", "core"]
        self._log = (self._home / "api-server.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, *command],
            env=self.environment,
            cwd=self._home,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        end = time.monotonic() + DEADLINE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.__exit__(None, None, None)
                raise AssertionError((self._home / "api-server.log").read_text()[-3000:])
            time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(DEADLINE)
        self._log.close()

    def _run(self, *command: str) -> None:
        done = subprocess.run(
            [sys.executable, *command],
            env=self.environment,
            cwd=self._home,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"{' '.join(command)} failed:\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/api/v2/version", timeout=5):
                return True
        except OSError:
            return False

    def token(self, user: str = "admin") -> str:
        """Log in as ``admin`` or ``reader``; return the token."""
        body = json.dumps({"username": user, "password": PASSWORDS[user]}).encode()
        request = urllib.request.Request(f"{self.url}/auth/token", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            return str(json.loads(answer.read())["access_token"])

    def get(self, path: str, token: str = "", **query: str) -> tuple[int, str]:
        """Return the status and the body of an answer below ``/crosswind/``."""
        url = f"{self.url}/crosswind/{path}?{urllib.parse.urlencode(query)}"
        headers: Mapping[str, str] = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(url, headers=dict(headers))
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def json(self, path: str, token: str, **query: str) -> Any:
        """Return an answer of 200 as JSON."""
        status, body = self.get(path, token, **query)
        assert status == 200, (status, body)
        return json.loads(body)


def of_task(task_id: str, map_index: int = -1, run_id: str = RUN) -> dict[str, str]:
    """Return the query that names a task instance of the DAG ``orders``."""
    return {"dag_id": "orders", "run_id": run_id, "task_id": task_id, "map_index": str(map_index)}
