"""Commands for live pods with a real Airflow API server beside the cluster."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.task_pods import task_pod
from tests.cli.test_live_pods import call

from crosswind.kube.client import Client
from crosswind.kube.resources import PODS
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an Airflow in which every user is an admin."""
    folder = tmp_path_factory.mktemp("airflow")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = os.environ | {
        "AIRFLOW_HOME": str(folder),
        "AIRFLOW__CORE__EXECUTOR": "crosswind.executor.KubernetesExecutor",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
    }
    command = [sys.executable, str(Path(__file__).parent / "core_api.py"), str(folder), str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        assert any(line.strip() == "ready" for line in server.stdout)
        yield f"http://127.0.0.1:{port}"
        server.terminate()


@pytest.fixture
def pod(cluster: Cluster, namespace: str) -> str:
    """The name of a pod of the task's second try."""

    async def create() -> str:
        async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
            pod = task_pod(0xA5, "billing", "month_end", run_id="manual__1", try_number=2)
            metadata = {name: pod["metadata"][name] for name in ("name", "labels", "annotations")}
            pod["spec"] |= {"nodeSelector": {"no": "node"}, "nodeName": None}
            await client.create(PODS, {**pod, "metadata": metadata, "status": {}}, namespace=namespace)
            return str(metadata["name"])

    return asyncio.run(create())


def test_a_description_has_the_tasks_state_and_every_try(
    cluster: Cluster, namespace: str, airflow: str, pod: str
) -> None:
    text = call(cluster, "describe", pod, "-n", namespace, "--airflow-url", airflow).stdout
    assert "Airflow     running, 2 tries of at most 3" in text
    assert "failed, no record of its pod" in text
    described = json.loads(
        call(cluster, "describe", pod, "-n", namespace, "--airflow-url", airflow, "-o", "json").stdout
    )
    assert [item["state"] for item in described["airflow"]["tries"]] == ["failed", "running"]
    assert described["airflow"]["tries"][0]["host"] == "billing-month-end-1"


def test_a_task_whose_pod_is_gone_is_described_from_airflows_records(
    cluster: Cluster, namespace: str, airflow: str
) -> None:
    task = ("--dag", "billing", "--run", "manual__1", "--task", "month_end", "-n", namespace)
    text = call(cluster, "describe", *task, "--airflow-url", airflow).stdout
    assert "Task        billing.month_end" in text
    assert "Pods of all tries" in text
    assert "failed, no record of its pod" in text
    unknown = call(cluster, "describe", *task, "--map-index", "7", "--airflow-url", airflow)
    assert (unknown.exit_code, "does not know the task (404)" in unknown.stderr) == (1, True), unknown.output


@pytest.mark.parametrize("number", [("--try", "1"), ()])
def test_the_log_that_airflow_keeps_stands_in_for_a_pod_that_is_gone(
    cluster: Cluster, namespace: str, airflow: str, number: tuple[str, ...]
) -> None:
    task = ("--dag", "billing", "--run", "manual__1", "--task", "month_end")
    command = [sys.executable, "-m", "crosswind", "pods", "logs", "-n", namespace, *task, *number]
    options = ["--airflow-url", airflow, "--kubeconfig", str(cluster.kubeconfig)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "this is the log that Airflow keeps" in done.stderr
    if number:
        assert "2026-11-29T11:40:01Z info a line that Airflow keeps" in done.stdout


def test_a_token_that_airflow_refuses_is_named(
    cluster: Cluster, namespace: str, airflow: str, pod: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSWIND_AIRFLOW_TOKEN", "wrong")
    result = call(cluster, "describe", pod, "-n", namespace, "--airflow-url", airflow)
    assert result.exit_code == 0
    words = " ".join(result.stdout.split())
    assert "denied the request (403, Invalid JWT token): check CROSSWIND_AIRFLOW_TOKEN" in words
