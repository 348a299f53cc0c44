"""Jobs under a mesh whose sidecar does not end by itself: wrapped they complete, unwrapped they do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from crosswind.kube.client import Client
from crosswind.kube.resources import JOBS, PODS
from crosswind.settings import KubeSettings
from crosswind.sidecars.scripts import shell
from crosswind.sidecars.wrapper import WrapSettings
from crosswind.testing import Cluster
from crosswind.types import Manifest
from deadlines import scaled

pytestmark = pytest.mark.cluster

ISTIO = {"labels": {"sidecar.istio.io/inject": "true"}}
LINKERD = {"annotations": {"linkerd.io/inject": "enabled", "config.linkerd.io/proxy-admin-shutdown": "enabled"}}
VAULT = {
    "annotations": {"vault.hashicorp.com/agent-inject": "true", "vault.hashicorp.com/agent-enable-quit": "true"},
    "labels": {"sidecar.istio.io/inject": "true"},
}


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as made:
        yield made


def job(image: str, command: list[str], template: Manifest) -> Manifest:
    main = {"name": "migrate", "image": image, "command": command}
    spec = {"containers": [main], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "migrate"},
        "spec": {"backoffLimit": 0, "template": {"metadata": template, "spec": spec}},
    }


async def until(client: Client, namespace: str, condition: Callable[[Manifest], bool]) -> Manifest:
    """Return the Job's pod once the condition holds."""
    version = (await client.list(PODS, namespace=namespace)).version
    for pod in (await client.list(PODS, namespace=namespace)).items:
        if condition(pod):
            return pod
    async for event in client.watch(PODS, namespace=namespace, version=version, timeout=scaled(25)):
        if event["type"] != "BOOKMARK" and condition(event["object"]):
            return event["object"]
    raise AssertionError("it did not come so")


async def ended(client: Client, namespace: str) -> Manifest:
    """Return the Job once it has a final condition."""
    listing = await client.list(JOBS, namespace=namespace)
    if listing.items[0]["status"].get("conditions"):
        return listing.items[0]
    async for event in client.watch(JOBS, namespace=namespace, version=listing.version, timeout=scaled(20)):
        if event["object"].get("status", {}).get("conditions"):
            return event["object"]
    raise AssertionError("the Job did not end")


def over(pod: Manifest) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def codes(pod: Manifest) -> dict[str, int | None]:
    states = {status["name"]: status["state"] for status in pod["status"].get("containerStatuses", [])}
    return {name: state.get("terminated", {}).get("exitCode") for name, state in states.items()}


@pytest.mark.parametrize("template", [ISTIO, LINKERD, VAULT], ids=["istio", "linkerd", "vault and istio"])
@pytest.mark.parametrize("code", [0, 3])
async def test_a_wrapped_job_ends_as_its_command(
    client: Client, cluster: Cluster, namespace: str, template: Manifest, code: int
) -> None:
    command = ["crosswind", "wrap", "--", "sh", "-c", f"exit {code}"]
    await client.create(JOBS, job(cluster.airflow_image, command, template), namespace=namespace)
    pod = await until(client, namespace, over)
    assert set(codes(pod).values()) == {0, code}
    assert codes(pod)["migrate"] == code
    assert pod["status"]["phase"] == ("Failed" if code else "Succeeded")
    conditions = (await ended(client, namespace))["status"]["conditions"]
    assert {condition["type"] for condition in conditions} & {"Complete", "Failed"} == {
        "Failed" if code else "Complete"
    }


@pytest.mark.parametrize("code", [0, 3])
async def test_beside_a_native_proxy_a_wrapped_job_ends_as_its_command_too(
    client: Client, cluster: Cluster, namespace: str, code: int
) -> None:
    template = ISTIO | {"annotations": {"sidecar.istio.io/nativeSidecar": "true"}}
    command = ["crosswind", "wrap", "--", "sh", "-c", f"exit {code}"]
    await client.create(JOBS, job(cluster.airflow_image, command, template), namespace=namespace)
    pod = await until(client, namespace, over)
    assert codes(pod) == {"migrate": code}
    conditions = (await ended(client, namespace))["status"]["conditions"]
    assert {condition["type"] for condition in conditions} & {"Complete", "Failed"} == {
        "Failed" if code else "Complete"
    }


async def test_a_job_wrapped_by_the_script_completes_without_python(
    client: Client, cluster: Cluster, namespace: str
) -> None:
    command = ["sh", "-c", shell(WrapSettings(("istio",))), "wrap", "sh", "-c", "exit 0"]
    manifest = job(cluster.image, command, ISTIO)
    if cluster.host.startswith("127."):
        # Without network namespaces 127.0.0.1 is the machine's, and curl resolves localhost itself.
        address = {"name": "WRAP_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
        manifest["spec"]["template"]["spec"]["containers"][0]["env"] = [address]
    await client.create(JOBS, manifest, namespace=namespace)
    pod = await until(client, namespace, over)
    assert codes(pod) == {"migrate": 0, "istio-proxy": 0}


async def test_unwrapped_it_does_not_complete(client: Client, cluster: Cluster, namespace: str) -> None:
    await client.create(JOBS, job(cluster.image, ["true"], ISTIO), namespace=namespace)
    pod = await until(client, namespace, lambda pod: codes(pod).get("migrate") == 0 if "status" in pod else False)
    assert not over(pod)
    pod = await until(
        client,
        namespace,
        lambda pod: any(status["name"] == "istio-proxy" and status["ready"] for status in statuses(pod)),
    )
    assert not over(pod), "the proxy is up, and stays"


def statuses(pod: Manifest) -> list[Manifest]:
    container_statuses: list[Manifest] = pod.get("status", {}).get("containerStatuses", [])
    return container_statuses


async def test_process_1_passes_signals_on_and_reaps(client: Client, cluster: Cluster, namespace: str) -> None:
    script = "trap 'exit 9' TERM; sh -c 'sleep 0.1 & true'; sleep 0.5; echo zombies: $(ps -ef | grep -c '[d]efunct'); "
    command = ["crosswind", "wrap", "--mesh", "none", "--", "sh", "-c", script + "while :; do sleep 0.05; done"]
    manifest = job(cluster.airflow_image, command, {})["spec"]["template"]
    manifest["spec"]["terminationGracePeriodSeconds"] = 20
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        **manifest,
        "metadata": {"name": "one", "finalizers": ["test.crosswind/kept"]},
    }
    await client.create(PODS, body, namespace=namespace)
    await until(client, namespace, lambda pod: any("running" in status["state"] for status in statuses(pod)))
    log = b""
    async with asyncio.timeout(scaled(20)):
        async for chunk in client.follow_log("one", namespace=namespace):
            log += chunk
            if b"\n" in log:
                break
    assert log == b"zombies: 0\n"
    await client.delete(PODS, "one", namespace=namespace)
    pod = await until(client, namespace, lambda pod: bool(codes(pod).get("migrate")))
    assert codes(pod) == {"migrate": 9}
    await client.patch(PODS, "one", {"metadata": {"finalizers": None}}, namespace=namespace)
