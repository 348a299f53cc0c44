"""Objects that a part of the cluster cannot handle: the part, and with it the cluster, goes on."""

from __future__ import annotations

import asyncio
import logging
from contextlib import nullcontext
from typing import Any

import pytest

from kubelocal.change_loop import follow
from kubelocal.cluster import LocalCluster
from kubelocal.codec.kinds import KINDS
from kubelocal.interfaces import Change
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.settings import LocalSettings
from kubelocal.storage.store import Store
from rest_client import CORE, Refused, RestClient, pods

NODE = f"{CORE}/nodes/crosswind-local"
BOX = {"name": "base", "image": "busybox", "command": ["true"]}
SPEC = {"containers": [BOX]}


async def test_an_object_that_fails_is_logged_and_the_next_one_is_handled(caplog: pytest.LogCaptureFixture) -> None:
    registry = ClusterRegistry(Store())
    for name in ("bad", "good"):
        registry.create("Node", "", {"metadata": {"name": name}})
    handled = asyncio.Event()

    def take(change: Change) -> None:
        if change.object["metadata"]["name"] == "bad":
            raise KeyError("effect")
        handled.set()

    following = asyncio.create_task(follow(registry, "Node", take, "some-controller"))
    await handled.wait()
    following.cancel()
    await asyncio.wait((following,))
    assert [record.getMessage() for record in caplog.records] == ["some-controller: Node bad"]


async def succeeds(cluster: LocalCluster, name: str) -> None:
    """Wait until a new pod has succeeded; raise the error of a part that ends before."""
    spec = {"restartPolicy": "Never", **SPEC}
    cluster.registry.create("Pod", "default", {"metadata": {"name": name}, "spec": spec})
    ending = asyncio.create_task(cluster.serve_until(asyncio.Event()))
    running = asyncio.create_task(end_of_pod(cluster, name))
    await asyncio.wait((ending, running), return_when=asyncio.FIRST_COMPLETED)
    for task in (ending, running):
        if task.done():
            task.result()
        task.cancel()


async def end_of_pod(cluster: LocalCluster, name: str) -> None:
    async for change in cluster.registry.watch("Pod", "default"):
        if change.object["metadata"]["name"] == name and change.object["status"]["phase"] == "Succeeded":
            return


async def test_objects_without_content_end_no_part_of_the_cluster() -> None:
    """As a kept state of a former version, or a controller's own mistake, may leave them."""
    async with LocalCluster(LocalSettings(simulate=1, simulated_start=0, simulated_run=0)) as cluster:
        registry = cluster.registry
        registry.create("Namespace", "", {"metadata": {"name": "other"}})
        for kind in KINDS.values():
            if kind.stored:
                namespace = "other" if kind.namespaced else ""
                owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "bare", "uid": "u", "controller": True}
                metadata = {"name": "bare", "uid": f"u-{kind.kind}", "ownerReferences": [owner]}
                bare = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}
                metadata |= {"namespace": namespace} if namespace else {}
                registry.store.put(kind.kind, namespace, "bare", bare)
        await succeeds(cluster, "box")


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("PATCH", NODE, {"spec": {"taints": [{"key": "dedicated", "value": "x"}]}}, 422),
        ("PATCH", NODE, {"spec": {"taints": [{"effect": "NoExecute"}]}}, 422),
        ("PATCH", f"{NODE}/status", {"status": {"conditions": [{"message": "neither type nor status"}]}}, 200),
        ("PATCH", f"{pods('default', 'first')}/status", {"status": {"conditions": [{"message": "x"}]}}, 200),
        (
            "POST",
            f"{CORE}/namespaces/default/resourcequotas",
            {
                "metadata": {"name": "q"},
                "spec": {"hard": {"pods": "9"}, "scopeSelector": {"matchExpressions": [{}]}},
            },
            422,
        ),
        (
            "POST",
            "/apis/scheduling.k8s.io/v1/priorityclasses",
            {"metadata": {"name": "usual"}, "globalDefault": True},
            201,
        ),
    ],
)
async def test_malformed_objects_of_clients_end_no_part_of_the_cluster(
    method: str, path: str, body: dict[str, Any], code: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with LocalCluster() as cluster, RestClient(cluster.kubeconfig) as client:
        cluster.registry.create("Pod", "default", {"metadata": {"name": "first"}, "spec": SPEC})
        media = "application/merge-patch+json" if method == "PATCH" else "application/json"
        refusal = pytest.raises(Refused) if code >= 400 else nullcontext()
        with refusal as refused:
            await client.call(method, path, body, media)
        assert refused is None or refused.value.code == code
        await succeeds(cluster, "box")
    # Of kubelocal alone: asyncio may report, at this moment, a task that another test's loop has left.
    records = [record for record in caplog.records if record.name.startswith("kubelocal")]
    assert not [record.getMessage() for record in records if record.levelno >= logging.ERROR]


async def test_a_namespace_with_a_pod_of_an_endless_grace_period_is_deleted_in_the_end() -> None:
    async with LocalCluster() as cluster, RestClient(cluster.kubeconfig) as client:
        await client.create(f"{CORE}/namespaces", {"metadata": {"name": "ns"}})
        spec = {**SPEC, "terminationGracePeriodSeconds": 10**12}
        spec["containers"] = [{**BOX, "command": ["sleep", "600"]}]
        await client.create(pods("ns"), {"metadata": {"name": "long"}, "spec": spec})
        changes = aiter(cluster.registry.watch("Pod", "ns"))
        while (await anext(changes)).object["status"]["phase"] != "Running":
            pass
        await client.call("DELETE", f"{CORE}/namespaces/ns")
        while "deletionTimestamp" not in (metadata := (await anext(changes)).object["metadata"]):
            pass
        assert metadata["deletionTimestamp"].startswith("9999-12-31T23:59:")
        await client.call("DELETE", pods("ns", "long"), gracePeriodSeconds="0")
        while (await anext(changes)).type != "DELETED":
            pass
        await succeeds(cluster, "box")
