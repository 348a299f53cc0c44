from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from deadlines import scaled
from kubelocal.controllers.scheduler import Scheduler
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.settings import LocalSettings
from kubelocal.simulation.node_simulator import Simulator
from kubelocal.storage.store import Store

SIMULATE = "simulate.crosswind/"


@contextlib.asynccontextmanager
async def simulated(**settings: Any) -> AsyncIterator[ClusterRegistry]:
    chosen = LocalSettings(**{"simulate": 1, "simulated_start": 0.0, "simulated_run": 0.0} | settings)
    registry = ClusterRegistry(Store())
    registry.create("Namespace", "", {"metadata": {"name": "ns"}})
    parts = [asyncio.create_task(part.run()) for part in (Simulator(registry, chosen), Scheduler(registry))]
    try:
        yield registry
    finally:
        for part in parts:
            part.cancel()
        assert all(
            isinstance(outcome, asyncio.CancelledError)
            for outcome in await asyncio.gather(*parts, return_exceptions=True)
        )


def add(registry: ClusterRegistry, name: str, **said: str) -> None:
    annotations = {f"{SIMULATE}{key.replace('_', '-')}": value for key, value in said.items()}
    containers = [{"name": "base", "image": "x"}, {"name": "proxy", "image": "x"}]
    spec = {"containers": containers, "restartPolicy": "Never"}
    registry.create("Pod", "ns", {"metadata": {"name": name, "annotations": annotations}, "spec": spec})


async def until(registry: ClusterRegistry, kind: str, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    changes = registry.watch(kind)
    try:
        async with asyncio.timeout(scaled(5)):
            async for change in changes:
                if holds(change.object):
                    return change.object
    finally:
        changes.close()
    raise AssertionError("the watch ended")


async def life(registry: ClusterRegistry, name: str, last: str) -> list[str]:
    """Return the steps of a pod's life up to ``last``: phases, and DELETED."""
    seen: list[str] = []
    changes = registry.watch("Pod")
    try:
        async with asyncio.timeout(scaled(10)):
            async for change in changes:
                if change.object["metadata"]["name"] == name:
                    step = "DELETED" if change.type == "DELETED" else change.object["status"]["phase"]
                    seen += [] if seen[-1:] == [step] else [step]
                    if step == last:
                        return seen
    finally:
        changes.close()
    raise AssertionError("the watch ended")


async def test_pods_live_and_go_without_processes() -> None:
    async with simulated() as registry:
        add(registry, "a")
        assert await life(registry, "a", "Succeeded") == ["Pending", "Running", "Succeeded"]
        registry.delete("Pod", "ns", "a")
        assert registry.list("Pod") == []


async def test_annotations_make_a_pod_fail_or_wait() -> None:
    async with simulated() as registry:
        add(registry, "fails", exit_code="3")
        add(registry, "stays", run_seconds="1000")
        assert await life(registry, "fails", "Failed") == ["Pending", "Running", "Failed"]
        assert await life(registry, "stays", "Running")
        registry.delete("Pod", "ns", "stays")
        assert await life(registry, "stays", "DELETED") == ["Running", "Failed", "DELETED"]


async def test_a_pod_that_is_deleted_before_its_start_and_held_by_a_finalizer_has_a_final_phase() -> None:
    async with simulated(simulated_start=60.0) as registry:
        add(registry, "a")
        await until(registry, "Pod", lambda pod: pod["spec"].get("nodeName"))
        registry.update("Pod", "ns", "a", lambda pod: pod["metadata"].update(finalizers=["example.com/x"]))
        registry.delete("Pod", "ns", "a")
        assert await life(registry, "a", "Failed") == ["Pending", "Failed"]


async def test_a_wrong_annotation_is_told_by_an_event() -> None:
    async with simulated() as registry:
        add(registry, "a", run_seconds="soon")
        await life(registry, "a", "Running")
        event = await until(registry, "Event", lambda event: event["reason"] == "InvalidDelay")
        assert "simulate.crosswind/run-seconds: could not convert string to float: 'soon'" in event["message"]


async def test_nodes_are_ready_and_named() -> None:
    async with simulated(simulate=3, node_name="fake", node_pods=5) as registry:
        await until(registry, "Node", lambda _: all("status" in node for node in registry.list("Node")))
        nodes = {node["metadata"]["name"]: node["status"]["allocatable"]["pods"] for node in registry.list("Node")}
        assert nodes == {"fake-0": "5", "fake-1": "5", "fake-2": "5"}


STAGES = """
stages:
- name: ready
  kind: Node
  when: {status.allocatable: false}
  status: {allocatable: {pods: '9', cpu: '1', memory: 1Gi}}
- name: stuck
  kind: Pod
  when: {spec.nodeName: true, status.reason: false}
  status: {phase: Pending, reason: Stuck}
  event: {reason: Stuck, message: '${metadata.name} is stuck', warning: true}
"""


async def test_users_play_their_own_stages(tmp_path: Path) -> None:
    file = tmp_path / "stages.yaml"
    file.write_text(STAGES)
    async with simulated(stages=file) as registry:
        add(registry, "a")
        event = await until(registry, "Event", lambda event: event["reason"] == "Stuck")
        assert (event["message"], event["type"]) == ("a is stuck", "Warning")
        assert registry.get("Pod", "ns", "a")["status"]["reason"] == "Stuck"


async def test_a_thousand_pods_live_at_once() -> None:
    async with simulated(simulate=10) as registry:
        for number in range(1000):
            add(registry, f"p{number}")
        for number in range(1000):
            await life(registry, f"p{number}", "Succeeded")
        assert {pod["status"]["phase"] for pod in registry.list("Pod")} == {"Succeeded"}
