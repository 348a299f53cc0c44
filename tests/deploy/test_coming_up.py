"""Airflow comes up from the rendered manifests, on the one-machine cluster, and runs a DAG in pods there."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from benchmarks.postgresql import start_server
from click.testing import CliRunner
from cryptography.fernet import Fernet
from deployments import EXAMPLES
from tests.databases import skip_without_postgresql

from crosswind.cli import main
from crosswind.testing import serve_in_thread
from deadlines import scaled
from kubelocal.settings import LocalImage, LocalSettings

pytestmark = [
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl on this machine"),
    # a migration and four of Airflow's programs start at once: some forty seconds of CPU
    pytest.mark.timeout(300),
]

VALUES = EXAMPLES / "laptop.yaml"
PROGRAMS = (
    "deployment/airflow-api-server",
    "deployment/airflow-dag-processor",
    "deployment/airflow-scheduler",
    "statefulset/airflow-triggerer",
)
DAG = """
import socket
from airflow.sdk import dag, task

@dag(schedule=None, is_paused_upon_creation=False)
def hello():
    @task
    def here():
        return socket.gethostname()

    @task
    def there(name):
        return [name, socket.gethostname()]

    there(here())

hello()
"""


@dataclass
class Deployed:
    """The cluster with Airflow in it, as a user has it: a kubeconfig and the address of the REST API."""

    kubeconfig: Path
    manifests: Path
    url: str = ""
    token: str = field(default="", repr=False)

    def kubectl(self, *arguments: object, timeout: float = 25) -> str:
        namespace = () if arguments[0] == "apply" else ("--namespace", "airflow")  # manifests name their own
        command = ["kubectl", *namespace, *(str(argument) for argument in arguments)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=scaled(timeout), env=self.environment)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"KUBECONFIG": str(self.kubeconfig)}

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, method=method, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=scaled(60)) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    stack, folder = ExitStack(), tmp_path_factory.mktemp("coming-up")
    (folder / "dags").mkdir()
    (folder / "dags" / "hello.py").write_text(DAG)
    # not below pytest's folder, which PostgreSQL's user may not enter
    database = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crosswind-database-"))) / "data"
    mounts = {"/opt/airflow/dags": str(folder / "dags"), "/var/run/postgresql": str(database)}
    image = LocalImage(like="apache/airflow", mounts=mounts)
    # room for what the manifests ask for, however small this machine is
    settings = LocalSettings(node_cpu="8", node_memory="32Gi", images={"apache/airflow*": image})
    bridges = _bridges()  # of other clusters of this process
    others = set(psutil.Process().children(recursive=True))  # such as the Airflow of another file's fixture
    with stack, _postgresql(database), serve_in_thread(settings) as cluster:
        deployed = Deployed(cluster.kubeconfig, folder / "manifests")
        _make_secrets(deployed)
        ran = CliRunner().invoke(main, ["render", str(VALUES), "-o", str(deployed.manifests)])
        assert ran.exit_code == 0, ran.output
        deployed.kubectl("apply", "-f", deployed.manifests, "--recursive")
        for program in PROGRAMS:
            deployed.kubectl("rollout", "status", program, f"--timeout={scaled(240):.0f}s", timeout=250)
        with _forwarded(deployed):
            yield deployed
        processes = [one for one in psutil.Process().children(recursive=True) if one not in others]
        assert any(_of_airflow(process) for process in processes)
    assert [process for process in processes if _of_airflow(process)] == []
    assert _bridges() <= bridges


def _bridges() -> set[str]:
    return {name for _, name in socket.if_nameindex() if name.startswith(f"cw{os.getpid()}x")}


def _of_airflow(process: psutil.Process) -> bool:
    try:
        return "airflow" in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@contextmanager
def _postgresql(folder: Path) -> Iterator[None]:
    skip_without_postgresql()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder.parent))
        server = start_server(folder)
        try:
            server.psql("CREATE DATABASE airflow;")
            folder.chmod(0o711)  # Airflow's user in the pods must get at the socket
            yield
        finally:
            server.cleanup()


def _make_secrets(deployed: Deployed) -> None:
    """Make what docs/guides/deploy.md has users make."""
    connection = "postgresql+psycopg2://postgres@/airflow?host=/var/run/postgresql"
    keys = {name: secrets.token_urlsafe(64) for name in ("api-secret-key", "jwt-secret")}
    keys["fernet-key"] = Fernet.generate_key().decode()
    deployed.kubectl("create", "namespace", "airflow")
    data_by_secret = {"airflow-database": {"connection": connection}, "airflow-secrets": keys}
    for name, data in data_by_secret.items():
        literals = [f"--from-literal={key}={value}" for key, value in data.items()]
        deployed.kubectl("create", "secret", "generic", name, *literals)


@contextmanager
def _forwarded(deployed: Deployed) -> Iterator[None]:
    """Reach the REST API as docs/guides/deploy.md says, and log in with the password that the API server made."""
    command = ["kubectl", "--namespace", "airflow", "port-forward", "service/airflow-api-server", ":8080"]
    passwords = json.loads(deployed.kubectl("exec", "deploy/airflow-api-server", "--", "cat", "/tmp/passwords.json"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=deployed.environment) as forwarding:
        try:
            assert forwarding.stdout is not None
            deployed.url = f"http://127.0.0.1:{forwarding.stdout.readline().split(':')[1].split()[0]}"
            user, password = next(iter(passwords.items()))
            body = {"username": user, "password": password}
            deployed.token = deployed.ask("POST", "/auth/token", body)["access_token"]
            yield
        finally:
            forwarding.terminate()


def test_all_programs_run(deployed: Deployed) -> None:
    pods = json.loads(deployed.kubectl("get", "pods", "-o", "json"))["items"]
    phases = {pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod["status"]["phase"] for pod in pods}
    running = dict.fromkeys(("api-server", "dag-processor", "scheduler", "triggerer"), "Running")
    assert phases == {**running, "migrations": "Succeeded"}


def test_applied_again_nothing_changes(deployed: Deployed) -> None:
    output = deployed.kubectl("apply", "-f", deployed.manifests, "--recursive")
    assert {line.split()[-1] for line in output.splitlines()} == {"unchanged"}


def test_doctor_finds_nothing_to_fix(deployed: Deployed) -> None:
    command = ["doctor", "--values", str(VALUES), "--kubeconfig", str(deployed.kubeconfig), "--output", "json"]
    ran = CliRunner().invoke(main, command)
    findings = {finding["check"]: finding["level"] for finding in json.loads(ran.output)}
    assert (ran.exit_code, set(findings.values())) == (0, {"ok"}), ran.output
    assert {"execution API", "permissions", "workers in airflow-workers"} <= findings.keys()


def test_dag_runs_each_task_in_a_pod_of_the_cluster(deployed: Deployed) -> None:
    path = "/api/v2/dags/hello/dagRuns"
    run = _until(lambda: _found(deployed, path), 60)
    ended = _until(lambda: _ended(deployed, f"{path}/{run}"), 120)
    assert ended == "success"
    value = f"{path}/{run}/taskInstances/there/xcomEntries/return_value?deserialize=true"
    here, there = deployed.ask("GET", value)["value"]
    assert (here.startswith("hello-here-"), there.startswith("hello-there-")) == (True, True)
    _until(lambda: not deployed.kubectl("get", "pods", "-l", "kubernetes_executor=True", "-o", "name"), 30)


def _found(deployed: Deployed, path: str) -> str:
    """Begin a run, as soon as the DAG file has been read."""
    try:
        return str(deployed.ask("POST", path, {"logical_date": None})["dag_run_id"])
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return ""


def _ended(deployed: Deployed, path: str) -> str:
    state = str(deployed.ask("GET", path)["state"])
    return state if state in ("success", "failed") else ""


def _until(look: Any, seconds: float) -> Any:
    """Poll, because a REST API has no event to wait for."""
    end = time.monotonic() + scaled(seconds)
    while not (answer := look()):
        assert time.monotonic() < end, f"nothing came in {seconds} s"
        time.sleep(0.5)
    return answer
