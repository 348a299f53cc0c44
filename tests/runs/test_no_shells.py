"""No shell runs in a container of a pod unless a plan says so, behind asking and behind the sidecar's own client."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import crosswind
from crosswind.kube.client import Client
from crosswind.kube.connecting import load
from crosswind.kube.requests import Request
from crosswind.kube.resources import PODS
from crosswind.kube.transport import HttpTransport, Reply, Transport
from crosswind.pods.known_sidecars import KNOWN
from crosswind.pods.recognising import any_match
from crosswind.pods.stop_plans import SIGNAL_SCRIPT, Abilities, Way, plan_stop
from crosswind.runs.ending import Ender
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster

SOURCE = Path(crosswind.__file__).parent
SHELLS = ("sh", "/bin/sh", "bash", "/bin/bash", "ash", "dash", "busybox")


def execs(path: Path) -> list[str]:
    """Return which methods that exec a module calls: those called exec, and stock's."""
    text = path.read_text()
    stock = ("connect_get_namespaced_pod_exec", "extract_xcom", "kill_istio_sidecar", "execute_command")
    if not any(f"{name}(" in text for name in (".exec", *stock)):
        return []
    tree = ast.parse(text)
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = [one.attr for one in calls if isinstance(one, ast.Attribute)]
    return sorted({name for name in named if name == "exec" or name in stock})


def test_one_place_alone_execs_in_pods_and_another_on_request() -> None:
    found = {
        str(path.relative_to(SOURCE)): execs(path)
        for path in SOURCE.rglob("*.py")
        if path.relative_to(SOURCE).parts[0] not in ("local", "demo") and execs(path)
    }
    # the operator's is stock's way to XCom, which the task asks for by xcom_sidecar="stock"
    assert found == {"runs/ending.py": ["exec"], "operators.py": ["extract_xcom"]}


@pytest.mark.parametrize("row", KNOWN, ids=lambda row: row.name)
@pytest.mark.parametrize("abilities", [Abilities.NONE, Abilities.A, Abilities.B, Abilities.C], ids=str)
def test_a_plan_has_a_shell_in_signals_alone_and_never_before_what_is_milder(row: Any, abilities: Abilities) -> None:
    for image in row.images:
        container = {"name": row.containers[0].replace("*", "x"), "image": image.replace("*", "x.example/y")}
        pod = {"metadata": {}, "spec": {"containers": [{"name": "base"}, container]}}
        (target,) = plan_stop(pod, abilities=abilities).targets
        shells = [step for step in target.taken if set(step.command) & set(SHELLS)]
        assert all(step.way is Way.SIGNAL and SIGNAL_SCRIPT in step.command for step in shells)
        assert not shells or (Abilities.EXEC in abilities and any_match(container["image"], row.shells))
        ways = [step.way for step in target.taken]
        assert ways == sorted(ways, key=list(Way).index), "mildest first"


class Listening:
    """Carries requests and notes those that exec."""

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
    async for event in client.watch(PODS, namespace=namespace, version=version, timeout=25):
        states = {one["name"]: one["state"] for one in event["object"]["status"].get("containerStatuses", [])}
        if "terminated" in states.get("base", {}):
            break
    assert await Ender(client, allowed=Abilities.C).end(event["object"])
    await transport.close()
    assert listening.execs == []
