from __future__ import annotations

import json
import os
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from deployments import EXAMPLES

from crosswind.cli import main
from crosswind.testing import Cluster, serve_in_thread
from deadlines import scaled
from kubelocal.settings import LocalSettings

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="there is no kubectl on this machine")

VALUES = EXAMPLES / "minimal.yaml"
API_SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/execution/health" else 404)
        self.end_headers()
        self.wfile.write(b"{}")
http.server.HTTPServer(("", 8080), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with serve_in_thread(LocalSettings()) as cluster:
        yield cluster


def kubectl(cluster: Cluster, *arguments: object, text: str | None = None) -> None:
    environment = os.environ | {"KUBECONFIG": str(cluster.kubeconfig)}
    command = ["kubectl", *(str(argument) for argument in arguments)]
    subprocess.run(command, input=text, check=True, capture_output=True, text=True, timeout=scaled(25), env=environment)


def doctor(cluster: Cluster, *arguments: object) -> Result:
    command = ["doctor", "--kubeconfig", str(cluster.kubeconfig), *(str(argument) for argument in arguments)]
    return CliRunner().invoke(main, command)


def levels(ran: Result) -> dict[str, str]:
    findings: list[dict[str, Any]] = json.loads(ran.output)
    return {finding["check"]: finding["level"] for finding in findings}


@pytest.mark.parametrize("namespace", ["kube-system", "Not_A_Name"])
def test_a_namespace_that_cannot_be_airflows_is_a_wrong_use(namespace: str) -> None:
    ran = CliRunner().invoke(main, ["doctor", "-n", namespace])
    assert ran.exit_code == 2
    assert f"--namespace '{namespace}' cannot be Airflow's: " in ran.output


def test_before_and_after_the_deployment(cluster: Cluster, tmp_path: Path) -> None:
    before = doctor(cluster, "--values", VALUES, "--output", "json")
    assert before.exit_code == 1
    findings = levels(before)
    assert findings["server"] == "ok"
    assert findings["namespace airflow"] == "warn"
    assert findings["Secret airflow-database in airflow"] == "fail"

    CliRunner().invoke(main, ["render", str(VALUES), "-o", str(tmp_path)])
    for part in ("00-namespace-airflow.yaml", "00-namespace-airflow-workers.yaml", "rbac", "workers", "configmap.yaml"):
        kubectl(cluster, "apply", "-f", tmp_path / part, "--recursive")
    secret = ("-n", "airflow", "create", "secret", "generic")
    kubectl(cluster, *secret, "airflow-database", "--from-literal=connection=x")
    keys = ("fernet-key", "api-secret-key", "jwt-secret")
    kubectl(cluster, *secret, "airflow-secrets", *(f"--from-literal={key}=x" for key in keys))
    kubectl(cluster, "apply", "-f", "-", text=_pod())
    kubectl(
        cluster,
        "-n",
        "airflow",
        "wait",
        "--for=condition=Ready",
        f"--timeout={scaled(20):.0f}s",
        "pod/airflow-api-server-0",
    )

    after = doctor(cluster, "--values", VALUES, "--output", "json")
    assert (after.exit_code, set(levels(after).values())) == (0, {"ok"}), after.output
    assert {"permissions", "execution API", "workers in airflow-workers", "bytecode"} <= set(levels(after))

    kubectl(cluster, "-n", "airflow-workers", "delete", "rolebinding", "airflow-executor-scheduler")
    ran = doctor(cluster, "--values", VALUES)
    assert ran.exit_code == 1
    assert "airflow:airflow-scheduler may not create pods in airflow" in ran.output


def test_without_values_it_looks_at_the_cluster(cluster: Cluster) -> None:
    ran = doctor(cluster, "--namespace", "default", "--output", "json")
    assert ran.exit_code == 0
    assert levels(ran) == {"server": "ok", "namespace default": "ok"}


def test_a_server_that_does_not_answer_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(
        textwrap.dedent(
            """
            apiVersion: v1
            kind: Config
            current-context: a
            contexts: [{name: a, context: {cluster: a, user: a}}]
            clusters: [{name: a, cluster: {server: "http://127.0.0.1:1"}}]
            users: [{name: a, user: {}}]
            """
        )
    )
    ran = CliRunner().invoke(main, ["doctor", "--kubeconfig", str(file)])
    assert (ran.exit_code, len(ran.output.splitlines())) == (1, 1)


def _pod() -> str:
    labels = {"app.kubernetes.io/instance": "airflow", "app.kubernetes.io/component": "api-server"}
    container = {
        "name": "api-server",
        "image": "registry.example.com/airflow:2026.11",
        "command": ["python", "-c", API_SERVER],
        "readinessProbe": {"httpGet": {"path": "/execution/health", "port": 8080}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
            "runAsUser": 50000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    metadata = {"name": "airflow-api-server-0", "namespace": "airflow", "labels": labels}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}})


def test_keys_that_a_secret_of_any_manifest_lacks_are_found(cluster: Cluster, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(
        "name: flow\nnamespace: flow\nimage: example.org/airflow:3.3.2\n"
        "dags: {source: git-sync, repo: 'git@github.com:acme/dags.git', secret: flow-git}\n"
        "secrets: {store: {name: s}, jwtSecret: {name: j, key: k, remote: r}}\n"
    )
    kubectl(cluster, "create", "namespace", "flow")
    kubectl(cluster, "-n", "flow", "create", "secret", "generic", "flow-git", "--from-literal=ssh=x")
    ran = doctor(cluster, "--values", values, "--output", "json")
    findings = {finding["check"]: (finding["level"], finding["what"]) for finding in json.loads(ran.output)}
    assert findings["Secret flow-git in flow"] == ("fail", "has no key known_hosts")
