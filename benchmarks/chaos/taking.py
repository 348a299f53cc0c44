"""Takes worker pods from their tasks, in every way in which a cluster does it.

``PodTaker`` acts on a one-machine cluster in another thread. Those ways that take a whole node bring it back once its
pods' tasks have other tries.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from benchmarks.chaos.pod_records import PodRecord, PodRecords

from kubelocal.cluster import LocalCluster
from kubelocal.codec.status_errors import StatusError
from kubelocal.controllers.disruptions import disrupt, written_now
from kubelocal.registry.deletion import DeleteOptions
from kubelocal.simulation.node_simulator import SIMULATED
from kubelocal.types import Manifest

__all__ = ["NODE_KINDS", "POD_KINDS", "PREEMPTOR_CLASS", "PodTaker", "on_simulated_nodes", "template"]

PREEMPTOR_CLASS = "chaos-urgent"
POD_KINDS = ("eviction", "node pressure", "Kueue")
NODE_KINDS = ("taint", "preemption", "shutdown", "death", "partition", "node deleted")
_TAINT = {"key": "chaos", "effect": "NoExecute"}
_PRESSURE = "The node was low on resource: memory."
_NODE_LIMIT_S = 60.0
"""How long a node stays away at most, if its tasks are not replaced before."""


def on_simulated_nodes(pod_spec: Manifest, *, simulated: bool) -> Manifest:
    """Return a pod's spec that runs on simulated nodes alone, or on none of them."""
    if simulated:
        return {**pod_spec, "nodeSelector": {SIMULATED: "true"}}
    term = {"matchExpressions": [{"key": SIMULATED, "operator": "DoesNotExist"}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {**pod_spec, "affinity": {"nodeAffinity": required}}


def template(base: Manifest, *, simulated: bool, **more: Any) -> Manifest:
    """Return a pod template with one container."""
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 10, "containers": [{"name": "base", **base}]}
    spec = on_simulated_nodes({**spec, **more}, simulated=simulated)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "worker"}, "spec": spec}


class PodTaker:
    """Takes pods, and brings nodes back.

    ``call``: runs a function with the cluster on its loop, and waits for what it returns. ``died``: called with the
    pods of a node that has died or is cut off, and whether their processes have ended. ``is_replaced``: whether a pod's
    task has another try, or ended.
    """

    def __init__(
        self,
        call: Callable[[Callable[[LocalCluster], Any]], Any],
        records: PodRecords,
        died: Callable[[Collection[PodRecord], bool], None],
        is_replaced: Callable[[PodRecord], bool],
    ) -> None:
        self._call_in_thread, self._records = call, records
        self._died, self._is_replaced = died, is_replaced
        self._random = random.Random(0)
        self._busy: set[str] = set()
        self._preemptors = 0

    async def _call(self, work: Callable[[LocalCluster], Any]) -> Any:
        return await asyncio.to_thread(self._call_in_thread, work)

    def candidates(self, nodes: Collection[str], tasks: str = "work_") -> list[PodRecord]:
        """Return the pods on some nodes that may be taken, of tasks whose id begins so."""
        return [
            record
            for record in self._records.all()
            if record.is_alive
            and record.node in nodes
            and record.node not in self._busy
            and record.task_id.startswith(tasks)
        ]

    # --- one pod --------------------------------------------------------------------------------------------------

    async def take_pod(self, kind: str, record: PodRecord) -> None:
        """Take one pod."""
        record.kind = kind
        ways = {"eviction": _evict, "node pressure": _press, "Kueue": _preempt_by_kueue}
        with contextlib.suppress(StatusError, LookupError):  # it has ended meanwhile
            await self._call(lambda cluster: ways[kind](cluster, record))

    # --- a node ---------------------------------------------------------------------------------------------------

    async def take_node(self, kind: str, node: str) -> None:
        """Take a node's pods, and bring the node back."""
        ways: dict[str, Callable[[str, list[PodRecord]], Awaitable[None]]] = {
            "taint": self._taint,
            "preemption": self._preempt,
            "shutdown": self._shut_down,
            "death": self._lose,
            "partition": self._cut_off,
            "node deleted": self._delete_node,
        }
        pods = self.candidates({node}, "")
        self._busy.add(node)
        try:
            await ways[kind](node, pods)
        finally:
            self._busy.discard(node)

    def idle(self, nodes: Collection[str]) -> list[str]:
        """Return the nodes that are not being taken and run pods that may be taken."""
        return [node for node in nodes if node not in self._busy and self.candidates({node})]

    def _name(self, pods: Collection[PodRecord], kind: str) -> None:
        for record in pods:
            record.kind = record.kind or kind  # the first one counts

    async def _replaced(self, pods: Collection[PodRecord]) -> None:
        """Wait until every task has another try or has ended."""
        end = time.monotonic() + _NODE_LIMIT_S
        while not all(self._is_replaced(record) for record in pods):
            if time.monotonic() > end:
                return
            await asyncio.sleep(0.1)

    async def _taint(self, node: str, pods: list[PodRecord]) -> None:
        self._name(pods, "taint")
        await self._call(lambda cluster: _set_taints(cluster, node, [_TAINT]))
        await self._replaced(pods)
        await self._call(lambda cluster: _set_taints(cluster, node, []))

    async def _preempt(self, node: str, pods: list[PodRecord]) -> None:
        """Have a pod of high priority take the room of some of the node's pods."""
        self._preemptors += 1
        name = f"urgent-{self._preemptors}"
        count = min(3, len(pods))
        await self._call(lambda cluster: _create_preemptor(cluster, name, node, pods, count))
        await self._until(lambda cluster: _has_node(cluster, name))
        self._name([record for record in pods if record.mark == "PreemptionByScheduler"], "preemption")
        await self._call(lambda cluster: cluster.registry.delete("Pod", "default", name, grace_period=1))
        await self._until(lambda cluster: cluster.registry.store.get("Pod", "default", name) is None)

    async def _until(self, holds: Callable[[LocalCluster], bool]) -> None:
        end = time.monotonic() + _NODE_LIMIT_S
        while not await self._call(holds):
            if time.monotonic() > end:
                return
            await asyncio.sleep(0.1)

    async def _shut_down(self, node: str, pods: list[PodRecord]) -> None:
        self._name(pods, "shutdown")

        async def shut_down(cluster: LocalCluster) -> list[PodRecord]:
            await cluster.shut_down_node(node, grace=8)
            return self._records.silence(node)

        self._died(await self._call(shut_down), True)  # those that had come meanwhile, or did not end in time
        await self._replaced(pods)
        await self._recover(node)

    async def _recover(self, node: str) -> None:
        def recover(cluster: LocalCluster) -> None:
            self._records.hear(node)
            cluster.recover_node(node)

        await self._call(recover)

    async def _lose(self, node: str, pods: list[PodRecord], kind: str = "death") -> None:
        is_dead = kind == "death"

        def lose(cluster: LocalCluster) -> list[PodRecord]:
            cluster.lose_node(node, dead=is_dead)
            return self._records.silence(node)

        lost = await self._call(lose)
        self._died(lost, is_dead)
        self._name(lost, kind)
        await self._replaced([*pods, *lost])
        await self._recover(node)

    async def _cut_off(self, node: str, pods: list[PodRecord]) -> None:
        await self._lose(node, pods, "partition")

    async def _delete_node(self, node: str, pods: list[PodRecord]) -> None:
        """Delete the node's object, and its pods as the garbage collector of pods does; then have a new node."""

        def delete(cluster: LocalCluster) -> list[PodRecord]:
            lost = self._records.living(node)
            _collect_pods(cluster, node, lost)
            return lost

        lost = await self._call(delete)
        self._died(lost, True)
        self._name(lost, "node deleted")
        await self._replaced([*pods, *lost])
        labels = {"kubernetes.io/hostname": node, SIMULATED: "true"}
        manifest: Manifest = {"metadata": {"name": node, "labels": labels}}
        await self._call(lambda cluster: cluster.registry.create("Node", "", manifest))


def _evict(cluster: LocalCluster, record: PodRecord) -> None:
    cluster.registry.evict(record.namespace, record.name, DeleteOptions())


def _press(cluster: LocalCluster, record: PodRecord) -> None:
    """Evict a pod as its kubelet does under node pressure."""
    if kubelet := cluster.kubelets.get(record.node):
        kubelet.evict(record.namespace, record.name, _PRESSURE)
        return
    now = written_now()
    mark = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": _PRESSURE}

    def change(pod: Manifest) -> None:
        if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return
        status = pod.setdefault("status", {})
        killed = {"exitCode": 137, "reason": "Error", "startedAt": now, "finishedAt": now}
        for container in status.get("containerStatuses") or ():
            container |= {"ready": False, "started": False, "state": {"terminated": killed}}
        conditions = [*(status.get("conditions") or ()), {**mark, "lastTransitionTime": now}]
        status |= {"phase": "Failed", "reason": "Evicted", "message": _PRESSURE, "conditions": conditions}

    cluster.registry.update("Pod", record.namespace, record.name, change, subresource="status")


def _preempt_by_kueue(cluster: LocalCluster, record: PodRecord) -> None:
    mark = {"type": "TerminationTarget", "status": "True", "reason": "Preempted", "message": "Preempted by Kueue"}

    def change(pod: Manifest) -> None:
        status = pod.setdefault("status", {})
        status["conditions"] = [*(status.get("conditions") or ()), {**mark, "lastTransitionTime": written_now()}]

    cluster.registry.update("Pod", record.namespace, record.name, change, subresource="status")
    cluster.registry.delete("Pod", record.namespace, record.name)


def _set_taints(cluster: LocalCluster, node: str, taints: list[Manifest]) -> None:
    cluster.registry.update("Node", "", node, lambda found: found.setdefault("spec", {}).update(taints=taints))


def _create_preemptor(cluster: LocalCluster, name: str, node: str, pods: Collection[PodRecord], victims: int) -> None:
    """Create a pod that fits on the node when so many pods have gone."""
    registry = cluster.registry
    capacity = _milli(registry.get("Node", "", node)["status"]["allocatable"]["cpu"])
    bound = [pod for pod in registry.list("Pod") if pod["spec"].get("nodeName") == node]
    live = [pod for pod in bound if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]
    requests = [_milli(pod["spec"]["containers"][0]["resources"]["requests"]["cpu"]) for pod in live]
    cpu = capacity - sum(requests) + sum(sorted(requests)[:victims])
    container = {
        "name": "base",
        "image": "busybox",
        "command": ["sleep", "600"],
        "resources": {"requests": {"cpu": f"{cpu}m"}},
    }
    spec = {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "priorityClassName": PREEMPTOR_CLASS,
        "containers": [container],
        "terminationGracePeriodSeconds": 1,
    }
    registry.create("Pod", "default", {"metadata": {"name": name}, "spec": spec})


def _milli(quantity: str) -> int:
    text = str(quantity)
    return int(text.removesuffix("m")) if text.endswith("m") else int(float(text) * 1000)


def _has_node(cluster: LocalCluster, name: str) -> bool:
    return bool(cluster.registry.get("Pod", "default", name)["spec"].get("nodeName"))


def _collect_pods(cluster: LocalCluster, node: str, pods: Collection[PodRecord]) -> None:
    registry = cluster.registry
    registry.delete("Node", "", node)
    for record in pods:
        with contextlib.suppress(StatusError):
            pod = registry.get("Pod", record.namespace, record.name)
            disrupt(registry, pod, "DeletionByPodGC", "PodGC: node no longer exists")
            registry.delete("Pod", record.namespace, record.name, uid=record.uid, grace_period=0)
