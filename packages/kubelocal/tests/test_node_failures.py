"""Nodes that fail, with processes and simulated, in a whole cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest

from deadlines import scaled
from kubelocal.cluster import LocalCluster
from kubelocal.registry.deletion import DeleteOptions
from kubelocal.settings import LocalSettings
from processes import come, running
from rest_client import CORE, Refused, RestClient

FAST = 0.01
"""50 s until a node is unreachable take half a second, five minutes of toleration three seconds."""

SIMULATED_NODE = "simulate.crosswind/node"


def pod(name: str, script: str = "sleep 1000", **spec: Any) -> dict[str, Any]:
    container = {"name": "base", "image": "busybox", "command": ["sh", "-c", script]}
    usual = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    return {"metadata": {"name": name}, "spec": {**usual, "containers": [container], **spec}}


async def until(cluster: LocalCluster, kind: str, name: str, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    changes = cluster.registry.watch(kind)
    try:
        async with asyncio.timeout(scaled(10)):
            async for change in changes:
                if change.object["metadata"]["name"] == name and holds(change.object):
                    return change.object
    finally:
        changes.close()
    raise AssertionError("the watch ended")


def phase(*phases: str) -> Callable[[dict[str, Any]], bool]:
    return lambda pod: pod["status"].get("phase") in phases


def disruption(pod: dict[str, Any]) -> str:
    conditions = pod["status"].get("conditions") or ()
    return next((str(one["reason"]) for one in conditions if one["type"] == "DisruptionTarget"), "")


def is_deleting(pod: dict[str, Any]) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def ready(node: dict[str, Any]) -> str:
    return next(str(one["status"]) for one in node["status"]["conditions"] if one["type"] == "Ready")


def taints(node: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["key"], one["effect"]) for one in (node.get("spec") or {}).get("taints") or ()}


@pytest.mark.parametrize("settings", [{"nodes": 1}, {"simulate": 1, "simulated_run": None}], ids=["real", "simulated"])
async def test_a_dead_node_turns_unreachable_and_its_pods_are_marked_but_never_deleted(
    settings: dict[str, Any],
) -> None:
    async with LocalCluster(LocalSettings(node_loss_time_scale=FAST, **settings)) as cluster:
        cluster.registry.create("Pod", "default", pod("p"))
        bound = await until(cluster, "Pod", "p", phase("Running"))
        name = bound["spec"]["nodeName"]
        cluster.lose_node(name)
        node = await until(cluster, "Node", name, taints)
        assert ready(node) == "Unknown"
        assert {key for key, _ in taints(node)} == {"node.kubernetes.io/unreachable"}
        lost = await until(cluster, "Pod", "p", is_deleting)
        assert (disruption(lost), lost["status"]["phase"]) == ("DeletionByTaintManager", "Running")
        assert "running" in lost["status"]["containerStatuses"][0]["state"]
        cluster.recover_node(name)
        await until(cluster, "Node", name, lambda node: not taints(node) and ready(node) == "True")
        changes = cluster.registry.watch("Pod")
        async with asyncio.timeout(scaled(10)):
            while cluster.registry.store.get("Pod", "default", "p"):
                await anext(aiter(changes))


@pytest.mark.parametrize("settings", [{"nodes": 1}, {"simulate": 1, "simulated_run": None}], ids=["real", "simulated"])
async def test_a_node_that_is_back_before_its_pods_are_marked_reports_ends_that_nobody_saw(
    settings: dict[str, Any],
) -> None:
    async with LocalCluster(LocalSettings(**settings)) as cluster:
        cluster.registry.create("Pod", "default", pod("p"))
        bound = await until(cluster, "Pod", "p", phase("Running"))
        cluster.lose_node(bound["spec"]["nodeName"])
        cluster.recover_node(bound["spec"]["nodeName"])
        failed = await until(cluster, "Pod", "p", phase("Failed"))
        terminated = failed["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (terminated["exitCode"], terminated["reason"], disruption(failed)) == (255, "Unknown", "")


async def test_a_simulated_pod_keeps_the_mark_of_its_disruption_when_its_containers_have_ended() -> None:
    async with LocalCluster(LocalSettings(simulate=1, simulated_run=None)) as cluster:
        cluster.registry.create("Pod", "default", pod("p"))
        await until(cluster, "Pod", "p", phase("Running"))
        cluster.registry.evict("default", "p", DeleteOptions())
        ended = await until(cluster, "Pod", "p", phase("Failed"))
        assert disruption(ended) == "EvictionByEvictionAPI"


async def test_a_partitioned_node_keeps_its_processes_and_ends_them_when_it_is_back() -> None:
    async with LocalCluster(LocalSettings(node_loss_time_scale=FAST)) as cluster:
        seconds = f"4444.{os.getpid()}"
        cluster.registry.create("Pod", "default", pod("p", f"sleep {seconds}"))
        await come("sleep", seconds)
        await until(cluster, "Pod", "p", phase("Running"))  # before, the log answers that the container waits
        cluster.lose_node(dead=False)
        async with RestClient(cluster.kubeconfig) as client:
            with pytest.raises(Refused, match="i/o timeout") as refused:
                await client.get(f"{CORE}/namespaces/default/pods/p/log")
        assert refused.value.code == 500
        await until(cluster, "Pod", "p", is_deleting)
        assert running("sleep", seconds)
        cluster.recover_node()
        changes = cluster.registry.watch("Pod")
        async with asyncio.timeout(scaled(10)):
            while cluster.registry.store.get("Pod", "default", "p"):
                await anext(aiter(changes))
        assert not running("sleep", seconds)


async def test_a_node_that_is_shut_down_fails_its_pods_and_others_take_their_place() -> None:
    async with LocalCluster(LocalSettings(nodes=2, node_loss_time_scale=FAST)) as cluster:
        cluster.registry.create("Pod", "default", pod("p", "trap 'exit 3' TERM; while true; do sleep 0.1; done"))
        name = (await until(cluster, "Pod", "p", phase("Running")))["spec"]["nodeName"]
        await cluster.shut_down_node(name)
        ended = cluster.registry.get("Pod", "default", "p")
        assert (ended["status"]["phase"], ended["status"]["reason"]) == ("Failed", "Terminated")
        assert disruption(ended) == "TerminationByKubelet"
        await until(cluster, "Node", name, lambda node: ready(node) == "Unknown" and taints(node))
        cluster.registry.create("Pod", "default", pod("next", "exit 0"))
        other = await until(cluster, "Pod", "next", phase("Succeeded"))
        assert other["spec"]["nodeName"] != name


async def test_pods_run_on_real_and_simulated_nodes_of_one_cluster() -> None:
    settings = LocalSettings(nodes=1, simulate=2, simulated_start=0, simulated_run=0)
    async with LocalCluster(settings) as cluster:
        cluster.registry.create("Pod", "default", pod("played", "exit 5", nodeSelector={SIMULATED_NODE: "true"}))
        term = {"matchExpressions": [{"key": SIMULATED_NODE, "operator": "DoesNotExist"}]}
        affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
        cluster.registry.create("Pod", "default", pod("real", "exit 5", affinity=affinity))
        assert (await until(cluster, "Pod", "played", phase("Succeeded", "Failed")))["status"]["phase"] == "Succeeded"
        real = await until(cluster, "Pod", "real", phase("Succeeded", "Failed"))
        assert real["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 5


async def test_a_pod_of_higher_priority_takes_the_place_of_a_lower_one() -> None:
    async with LocalCluster(LocalSettings(node_cpu="1")) as cluster:
        cluster.registry.create("PriorityClass", "", {"metadata": {"name": "high"}, "value": 100})
        for name, priority in (("low", {}), ("high", {"priorityClassName": "high"})):
            manifest = pod(name, **priority)
            manifest["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1"}}
            cluster.registry.create("Pod", "default", manifest)
            if name == "low":
                await until(cluster, "Pod", "low", phase("Running"))
        victim = await until(cluster, "Pod", "low", is_deleting)
        assert disruption(victim) == "PreemptionByScheduler"
        waiting = await until(cluster, "Pod", "high", lambda pod: pod["status"].get("nominatedNodeName"))
        assert waiting["status"]["nominatedNodeName"] == "crosswind-local"
        await until(cluster, "Pod", "high", phase("Running"))


async def test_an_unknown_node_cannot_be_lost() -> None:
    async with LocalCluster() as cluster:
        with pytest.raises(LookupError, match="no node nowhere"):
            cluster.lose_node("nowhere")
