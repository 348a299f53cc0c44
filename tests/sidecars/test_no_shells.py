"""No shell runs in a container unless a plan has it, after the request and after the sidecar's own client."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import crosswind
from crosswind.kube.client import Client
from crosswind.kube.credentials import load
from crosswind.kube.requests import Request
from crosswind.kube.resources import PODS
from crosswind.kube.transport import HttpTransport, Reply, Transport
from crosswind.settings import KubeSettings
from crosswind.sidecars.catalog import KNOWN
from crosswind.sidecars.detection import any_match
from crosswind.sidecars.shutdown import SidecarShutdown
from crosswind.sidecars.shutdown_plan import SIGNAL_SCRIPT, Permissions, StepKind, plan_shutdown
from crosswind.testing import Cluster
from deadlines import scaled

SOURCE = Path(crosswind.__file__).parent
SHELLS = ("sh", "/bin/sh", "bash", "/bin/bash", "ash", "dash", "busybox")


def execs(path: Path) -> list[str]:
    """Return the methods that a module calls and that exec: those named exec, and stock's."""
    text = path.read_text()
    stock = ("connect_get_namespaced_pod_exec", "extract_xcom", "kill_istio_sidecar", "execute_command")
    if not any(f"{name}(" in text for name in (".exec", *stock)):
        return []
    tree = ast.parse(text)
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [call.attr for call in calls if isinstance(call, ast.Attribute)]
    return sorted({name for name in named if name == "exec" or name in stock})


def test_only_the_shutdown_execs_in_pods_and_two_places_on_request() -> None:
    callers = {
        str(path.relative_to(SOURCE)): execs(path)
        for path in SOURCE.rglob("*.py")
        if path.relative_to(SOURCE).parts[0] not in ("local", "demo") and execs(path)
    }
    assert callers == {
        "sidecars/shutdown.py": ["exec"],
        "operators.py": ["extract_xcom"],  # stock's XCom, which a task selects by xcom_sidecar="stock"
        "cli/cluster_inspection.py": ["exec"],  # crosswind doctor, which a person runs: Python, without a shell
    }


@pytest.mark.parametrize("row", KNOWN, ids=lambda row: row.name)
@pytest.mark.parametrize("permissions", [Permissions.NONE, Permissions.A, Permissions.B, Permissions.C], ids=str)
def test_a_plan_uses_a_shell_for_signals_alone_and_after_milder_steps(row: Any, permissions: Permissions) -> None:
    for image in row.images:
        container = {"name": row.containers[0].replace("*", "x"), "image": image.replace("*", "x.example/y")}
        pod = {"metadata": {}, "spec": {"containers": [{"name": "base"}, container]}}
        (target,) = plan_shutdown(pod, permissions=permissions).targets
        shells = [step for step in target.taken if set(step.command) & set(SHELLS)]
        assert all(step.way is StepKind.SIGNAL and SIGNAL_SCRIPT in step.command for step in shells)
        assert not shells or (Permissions.EXEC in permissions and any_match(container["image"], row.shells))
        ways = [step.way for step in target.taken]
        assert ways == sorted(ways, key=list(StepKind).index), "mildest first"


class Listening:
    """Forwards requests and records those that exec."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.execs: list[str] = []

    async def open(self, request: Request, authorization: str | None) -> Reply:
        if request.path.endswith("/exec"):
            self.execs.append(request.target)
        return await self._inner.open(request, authorization)


@pytest.mark.cluster
async def test_where_asking_works_nothing_is_run_in_the_pod(cluster: Cluster, namespace: str) -> None:
    server, credentials = await load(KubeSettings(kubeconfig=str(cluster.kubeconfig)))
    transport = HttpTransport(server)
    listening = Listening(transport)
    client = Client(listening, credentials)
    vault = "vault.hashicorp.com/agent-"
    manifest = {
        "metadata": {
            "name": "etl",
            "labels": {"sidecar.istio.io/inject": "true", "kuma.io/sidecar-injection": "enabled"},
            "annotations": {f"{vault}inject": "true", f"{vault}enable-quit": "true"},
        },
        "spec": {
            "containers": [{"name": "base", "image": "busybox", "command": ["true"]}],
            "restartPolicy": "Never",
        },
    }
    version = (await client.create(PODS, manifest, namespace=namespace))["metadata"]["resourceVersion"]
    async for event in client.watch(PODS, namespace=namespace, version=version, timeout=scaled(25)):
        states = {status["name"]: status["state"] for status in event["object"]["status"].get("containerStatuses", [])}
        if "terminated" in states.get("base", {}):
            break
    assert await SidecarShutdown(client, allowed=Permissions.C).end(event["object"])
    await transport.close()
    assert listening.execs == []
