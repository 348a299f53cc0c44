"""The reaper on the local cluster: Jobs with injected sidecars, fail-over, and starting again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from crosswind.kube.client import Client
from crosswind.kube.resources import EVENTS, JOBS, NAMESPACES, PODS
from crosswind.runs.reaping import Reaper
from crosswind.settings import KubeSettings, ReapSettings
from crosswind.testing import Cluster
from crosswind.types import Manifest

pytestmark = pytest.mark.cluster

JOBS_PODS = "batch.kubernetes.io/job-name"
PROXY: Manifest = {
    "name": "istio-proxy",
    "image": "istio/proxyv2:1.26.4-distroless",
    "args": ["proxy", "sidecar"],
    "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
}


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    if not cluster.local:
        pytest.skip("only the local cluster plays sidecars")
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as made:
        yield made


def shell(name: str, script: str) -> Manifest:
    return {"name": name, "image": "busybox", "command": ["sh", "-c", script]}


def pod(name: str, *containers: Manifest, policy: str = "Never", **metadata: Any) -> Manifest:
    spec = {"containers": list(containers), "restartPolicy": policy, "terminationGracePeriodSeconds": 1}
    labels = {"app": "job"} | metadata.pop("labels", {})
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels, **metadata}, "spec": spec}


def job(name: str, script: str) -> Manifest:
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [shell("work", script)]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": spec}, "backoffLimit": 0},
    }


async def until(client: Client, resource: Any, namespace: str, holds: Callable[[Manifest], Any]) -> Manifest:
    """Return the first object that is as wanted, now or as soon as there is one."""
    listing = await client.list(resource, namespace=namespace)
    if found := next(filter(holds, listing.items), None):
        return found
    watch = client.watch(resource, namespace=namespace, version=listing.version, timeout=25)
    async with contextlib.aclosing(watch):
        async for event in watch:
            if event["type"] != "BOOKMARK" and holds(event["object"]):
                return event["object"]
    raise AssertionError("it did not come so")


def is_over(name: str) -> Callable[[Manifest], bool]:
    def over(found: Manifest) -> bool:
        statuses = found.get("status", {}).get("containerStatuses", [])
        return any(one["name"] == name and "terminated" in one["state"] for one in statuses)

    return over


async def told(client: Client, namespace: str) -> list[tuple[str, str]]:
    """Return pod and reason of our Events."""
    events = (await client.list(EVENTS, namespace=namespace)).items
    ours = [one for one in events if one.get("source", {}).get("component") == "crosswind"]
    ours.sort(key=lambda one: int(one["metadata"]["resourceVersion"]))
    return [(one["involvedObject"]["name"], one["reason"]) for one in ours]


@contextlib.asynccontextmanager
async def at_work(reaper: Reaper) -> AsyncIterator[Reaper]:
    task = asyncio.create_task(reaper.run())
    try:
        yield reaper
    finally:
        task.cancel()
        await asyncio.wait([task])


def reaper(client: Client, namespace: str, selector: str = JOBS_PODS, **settings: Any) -> Reaper:
    return Reaper(client, ReapSettings((namespace,), selector, rate=100.0, **settings))


async def test_a_meshed_job_completes_with_the_reaper_and_not_without(client: Client, namespace: str) -> None:
    await client.patch(NAMESPACES, namespace, {"metadata": {"labels": {"istio-injection": "enabled"}}})
    await client.create(JOBS, job("etl", "exit 0"), namespace=namespace)
    await until(client, PODS, namespace, is_over("work"))
    assert not (await client.get(JOBS, "etl", namespace=namespace))["status"].get("succeeded")
    async with at_work(reaper(client, namespace)):
        done = await until(client, JOBS, namespace, lambda found: found["status"].get("succeeded"))
    assert done["metadata"]["name"] == "etl"
    assert [reason for _, reason in await told(client, namespace)] == ["EndingSidecar", "SidecarEnded"]
