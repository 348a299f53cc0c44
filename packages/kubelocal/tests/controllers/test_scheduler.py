from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from deadlines import scaled
from kubelocal.controllers.scheduler import Scheduler
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.storage.store import Store

Cluster = ClusterRegistry


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    """A cluster with a scheduler and no node."""
    registry = ClusterRegistry(Store())
    registry.create("Namespace", "", {"metadata": {"name": "ns"}})
    running = asyncio.create_task(Scheduler(registry).run())
    yield registry
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def add_node(cluster: Cluster, name: str = "n1", cpu: str = "2", pods: str = "110", **spec: Any) -> None:
    status = {"allocatable": {"cpu": cpu, "memory": "4Gi", "pods": pods}}
    cluster.create("Node", "", {"metadata": {"name": name, "labels": {"name": name}}, "spec": spec, "status": status})


def add_pod(cluster: Cluster, name: str, cpu: str = "1", **spec: Any) -> None:
    container = {"name": "base", "image": "x", "resources": {"requests": {"cpu": cpu}}}
    cluster.create("Pod", "ns", {"metadata": {"name": name}, "spec": {"containers": [container], **spec}})


async def until(cluster: Cluster, name: str, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    changes = cluster.watch("Pod")
    try:
        async with asyncio.timeout(scaled(5)):
            async for change in changes:
                if change.object["metadata"]["name"] == name and holds(change.object):
                    return change.object
    finally:
        changes.close()
    raise AssertionError("the watch ended")


def is_bound(pod: dict[str, Any]) -> bool:
    return bool(pod["spec"].get("nodeName"))


def scheduled(pod: dict[str, Any]) -> dict[str, Any]:
    return next((one for one in pod["status"].get("conditions", ()) if one["type"] == "PodScheduled"), {})


def is_refused(pod: dict[str, Any]) -> bool:
    return scheduled(pod).get("status") == "False"


def events(cluster: Cluster, name: str) -> list[tuple[str, str]]:
    found = [one for one in cluster.list("Event") if one["involvedObject"]["name"] == name]
    return [(one["reason"], one["message"]) for one in found]


async def test_a_pod_is_bound_with_condition_and_event(cluster: Cluster) -> None:
    add_node(cluster)
    add_pod(cluster, "a")
    pod = await until(cluster, "a", is_bound)
    assert pod["spec"]["nodeName"] == "n1"
    assert scheduled(pod)["status"] == "True"
    assert events(cluster, "a") == [("Scheduled", "Successfully assigned ns/a to n1")]


async def test_a_pod_that_fits_nowhere_says_so_once(cluster: Cluster) -> None:
    add_node(cluster)
    add_pod(cluster, "a", cpu="100k")
    pod = await until(cluster, "a", is_refused)
    message = (
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: "
        "0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )
    assert scheduled(pod)["reason"] == "Unschedulable"
    assert scheduled(pod)["message"] == message
    add_pod(cluster, "b")
    await until(cluster, "b", is_bound)
    assert events(cluster, "a") == [("FailedScheduling", message)]


async def test_a_waiting_pod_is_bound_when_a_node_comes(cluster: Cluster) -> None:
    add_pod(cluster, "a")
    pod = await until(cluster, "a", is_refused)
    assert scheduled(pod)["message"] == "no nodes available to schedule pods"
    add_node(cluster)
    pod = await until(cluster, "a", is_bound)
    assert scheduled(pod) == {
        key: scheduled(pod)[key] for key in ("type", "status", "lastProbeTime", "lastTransitionTime")
    }


@pytest.mark.parametrize("how", ["succeeds", "is deleted"])
async def test_a_waiting_pod_is_bound_when_another_ends(cluster: Cluster, how: str) -> None:
    add_node(cluster)
    add_pod(cluster, "a", cpu="2")
    first = await until(cluster, "a", is_bound)
    add_pod(cluster, "b", cpu="2")
    await until(cluster, "b", is_refused)
    if how == "succeeds":
        cluster.update("Pod", "ns", "a", lambda pod: pod["status"].update(phase="Succeeded"), subresource="status")
    else:
        cluster.delete("Pod", "ns", "a", grace_period=0)
        if cluster.store.get("Pod", "ns", "a"):
            cluster.remove("Pod", "ns", "a", uid=first["metadata"]["uid"])
    assert (await until(cluster, "b", is_bound))["spec"]["nodeName"] == "n1"


async def test_room_that_is_made_by_preemption_is_kept_for_the_pod_that_it_is_made_for(cluster: Cluster) -> None:
    add_node(cluster, cpu="2")
    for name in ("a", "b"):
        add_pod(cluster, name, priority=1)
        await until(cluster, name, is_bound)
    add_pod(cluster, "urgent", cpu="2", priority=9)
    await until(cluster, "urgent", lambda pod: pod["status"].get("nominatedNodeName"))
    for name in ("a", "b"):  # the first one's room is free while the second one ends
        victim = await until(cluster, name, lambda pod: "deletionTimestamp" in pod["metadata"])
        add_pod(cluster, f"late-{name}", priority=1)
        cluster.remove("Pod", "ns", name, uid=victim["metadata"]["uid"])
        await until(cluster, f"late-{name}", is_refused)
    await until(cluster, "urgent", is_bound)
    assert not is_bound(cluster.get("Pod", "ns", "late-a"))


async def test_a_waiting_pod_is_bound_when_it_tolerates_more(cluster: Cluster) -> None:
    add_node(cluster, taints=[{"key": "gpu", "effect": "NoSchedule"}])
    add_pod(cluster, "a")
    await until(cluster, "a", is_refused)
    more = {"key": "gpu", "operator": "Exists"}
    cluster.update("Pod", "ns", "a", lambda pod: pod["spec"].setdefault("tolerations", []).append(more))
    await until(cluster, "a", is_bound)


async def test_a_pod_waits_for_its_claim(cluster: Cluster) -> None:
    add_node(cluster)
    add_pod(cluster, "a", volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "logs"}}])
    pod = await until(cluster, "a", is_refused)
    assert scheduled(pod)["message"] == (
        '0/1 nodes are available: persistentvolumeclaim "logs" not found. no new claims to deallocate, preemption: '
        "0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    )
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    cluster.create("PersistentVolumeClaim", "ns", {"metadata": {"name": "logs"}, "spec": spec})
    await until(cluster, "a", is_bound)


async def test_a_gated_pod_waits_for_its_gates(cluster: Cluster) -> None:
    add_node(cluster)
    add_pod(cluster, "a", schedulingGates=[{"name": "queue"}])
    pod = await until(cluster, "a", is_refused)
    assert scheduled(pod)["reason"] == "SchedulingGated"
    cluster.update("Pod", "ns", "a", lambda pod: pod["spec"].pop("schedulingGates"))
    await until(cluster, "a", is_bound)
    assert [reason for reason, _ in events(cluster, "a")] == ["Scheduled"]


async def test_pods_of_other_schedulers_are_left_alone_and_counted_once_bound(cluster: Cluster) -> None:
    add_node(cluster)
    add_pod(cluster, "other", cpu="2", schedulerName="nobody")
    add_pod(cluster, "a", cpu="1")
    await until(cluster, "a", is_bound)
    assert not is_bound(cluster.get("Pod", "ns", "other"))
    cluster.delete("Pod", "ns", "a", grace_period=0)
    if left := cluster.store.get("Pod", "ns", "a"):
        cluster.remove("Pod", "ns", "a", uid=left.object["metadata"]["uid"])
    cluster.bind("ns", "other", {"target": {"kind": "Node", "name": "n1"}})
    await until(cluster, "other", is_bound)
    add_pod(cluster, "b", cpu="1")
    await until(cluster, "b", is_refused)


async def test_pods_spread_over_nodes_up_to_what_these_take(cluster: Cluster) -> None:
    for name in ("n1", "n2", "n3"):
        add_node(cluster, name, cpu="2")
    for number in range(7):
        add_pod(cluster, f"p{number}")
    refused = await until(cluster, "p6", is_refused)
    assert scheduled(refused)["message"].startswith("0/3 nodes are available: 3 Insufficient cpu.")
    nodes = [pod["spec"].get("nodeName", "") for pod in cluster.list("Pod")]
    assert sorted(nodes) == ["", "n1", "n1", "n2", "n2", "n3", "n3"]


async def test_of_waiting_pods_the_most_important_comes_first(cluster: Cluster) -> None:
    add_pod(cluster, "low", cpu="2")
    add_pod(cluster, "high", cpu="2", priority=10)
    await until(cluster, "high", is_refused)
    add_node(cluster)
    await until(cluster, "high", is_bound)
    assert not is_bound(cluster.get("Pod", "ns", "low"))


async def test_a_thousand_pods_are_bound_fast(cluster: Cluster) -> None:
    for number in range(20):
        add_node(cluster, f"n{number}", cpu="1000")
    for number in range(1000):
        add_pod(cluster, f"p{number}")
    await until(cluster, "p999", is_bound)
    assert all(map(is_bound, cluster.list("Pod")))
