"""Pods on nodes with NoExecute taints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deadlines import scaled
from kubelocal.controllers.taint_eviction_controller import TaintEvictionController, tolerated_seconds
from kubelocal.registry.deletion import DeleteOptions
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.storage.store import Store

TAINT = {"key": "gone", "effect": "NoExecute"}
OTHER = {"key": "slow", "value": "yes", "effect": "NoExecute"}


@pytest.mark.parametrize(
    ("tolerations", "seconds"),
    [
        ([], 0),
        ([{"key": "gone", "operator": "Exists"}], 0),
        ([{"operator": "Exists"}], None),
        ([{"operator": "Exists", "tolerationSeconds": 30}], 30),
        ([{"operator": "Exists", "tolerationSeconds": -5}], 0),
        ([{"key": "gone", "operator": "Exists", "tolerationSeconds": 300}, {"key": "slow", "value": "yes"}], 300),
        (
            [
                {"key": "gone", "operator": "Exists", "tolerationSeconds": 300},
                {"key": "slow", "value": "yes", "tolerationSeconds": 7},
            ],
            7,
        ),
    ],
)
def test_a_pod_may_stay_for_its_shortest_toleration(tolerations: list[dict[str, Any]], seconds: float | None) -> None:
    assert tolerated_seconds([TAINT, OTHER], tolerations) == seconds


@pytest.fixture
async def cluster() -> AsyncIterator[ClusterRegistry]:
    registry = ClusterRegistry(Store())
    registry.create("Namespace", "", {"metadata": {"name": "ns"}})
    registry.create("Node", "", {"metadata": {"name": "n"}})
    running = asyncio.create_task(TaintEvictionController(registry, time_scale=0.01).run())
    yield registry
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def add_pod(cluster: ClusterRegistry, name: str, **toleration: Any) -> None:
    tolerations = [{"key": "gone", "operator": "Exists", "effect": "NoExecute", **toleration}] if toleration else []
    spec = {"nodeName": "n", "containers": [{"name": "base", "image": "x"}], "tolerations": tolerations}
    cluster.create("Pod", "ns", {"metadata": {"name": name}, "spec": spec})


def taint(cluster: ClusterRegistry, *taints: dict[str, Any]) -> None:
    cluster.update("Node", "", "n", lambda node: node.update(spec={"taints": list(taints)}))


async def changes_until_deleted(cluster: ClusterRegistry, name: str) -> list[tuple[str, bool]]:
    """Return what each change of a pod shows: the reason of its condition, and whether it is being deleted."""
    seen = []
    changes = cluster.watch("Pod")
    try:
        async with asyncio.timeout(scaled(5)):
            async for change in changes:
                pod = change.object
                if pod["metadata"]["name"] != name:
                    continue
                conditions = pod["status"].get("conditions") or ()
                reason = next((one["reason"] for one in conditions if one["type"] == "DisruptionTarget"), "")
                seen.append((reason, "deletionTimestamp" in pod["metadata"]))
                if seen[-1][1]:
                    return seen
    finally:
        changes.close()
    return seen


async def test_an_intolerant_pod_gets_its_condition_and_then_its_deletion(cluster: ClusterRegistry) -> None:
    add_pod(cluster, "p")
    taint(cluster, TAINT)
    seen = await changes_until_deleted(cluster, "p")
    assert seen[-2:] == [("DeletionByTaintManager", False), ("DeletionByTaintManager", True)]
    events = [one["message"] for one in cluster.list("Event") if one["reason"] == "TaintManagerEviction"]
    assert events == ["Marking for deletion Pod ns/p"]


async def test_tolerant_pods_leave_in_the_order_of_their_seconds(cluster: ClusterRegistry) -> None:
    add_pod(cluster, "stays", tolerationSeconds=100_000)
    add_pod(cluster, "later", tolerationSeconds=20)
    add_pod(cluster, "now")
    taint(cluster, TAINT)
    await changes_until_deleted(cluster, "now")
    assert "deletionTimestamp" not in cluster.get("Pod", "ns", "later")["metadata"]
    await changes_until_deleted(cluster, "later")
    assert "deletionTimestamp" not in cluster.get("Pod", "ns", "stays")["metadata"]


async def test_a_taint_that_goes_in_time_cancels_the_deletion(cluster: ClusterRegistry) -> None:
    add_pod(cluster, "p", tolerationSeconds=100_000)
    taint(cluster, TAINT)
    add_pod(cluster, "witness")
    await changes_until_deleted(cluster, "witness")
    taint(cluster)
    changes = cluster.watch("Event")
    try:
        async with asyncio.timeout(scaled(5)):
            async for change in changes:
                if change.object["message"] == "Cancelling deletion of Pod ns/p":
                    break
    finally:
        changes.close()
    assert "deletionTimestamp" not in cluster.get("Pod", "ns", "p")["metadata"]


async def test_a_pod_that_comes_to_a_tainted_node_is_deleted_too(cluster: ClusterRegistry) -> None:
    taint(cluster, TAINT)
    add_pod(cluster, "p")
    assert (await changes_until_deleted(cluster, "p"))[-1] == ("DeletionByTaintManager", True)


async def test_the_reason_of_an_evicted_pod_becomes_the_taint_managers(cluster: ClusterRegistry) -> None:
    add_pod(cluster, "p")
    cluster.evict("ns", "p", DeleteOptions())
    taint(cluster, TAINT)
    changes = cluster.watch("Pod")
    try:
        async with asyncio.timeout(scaled(5)):
            async for change in changes:
                marks = [one for one in change.object["status"]["conditions"] if one["type"] == "DisruptionTarget"]
                if [one["reason"] for one in marks] == ["DeletionByTaintManager"]:
                    break
    finally:
        changes.close()
    assert "deletionTimestamp" in cluster.get("Pod", "ns", "p")["metadata"]
