"""The node lifecycle controller: handles nodes whose kubelet no longer reports, or reports that it is not ready.

As ``pkg/controller/nodelifecycle``: after the grace period the node's condition Ready turns Unknown. A node whose Ready
is Unknown or False gets the taints ``unreachable`` or ``not-ready``, by which the scheduler avoids it and the taint
eviction controller deletes its pods; and the pods' own Ready turns False. Kubelets of this process write no leases:
they say here when they stop.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

from kubelocal.change_loop import failures_logged, follow
from kubelocal.codec.status_errors import StatusError
from kubelocal.controllers.disruptions import written_now
from kubelocal.interfaces import Change, Registry
from kubelocal.types import Json, Manifest

__all__ = ["NodeLifecycleController", "set_ready", "tainted"]

MONITOR_GRACE_PERIOD_S, MONITOR_PERIOD_S = 50.0, 5.0
"""The defaults of kube-controller-manager's --node-monitor-grace-period and --node-monitor-period."""

_NAME = "node-controller"
_TERMINAL = ("Succeeded", "Failed")
_TAINTS = {"False": "node.kubernetes.io/not-ready", "Unknown": "node.kubernetes.io/unreachable"}


class NodeLifecycleController:
    """``time_scale`` multiplies the grace period (50 s) and the period of the controller's loop (5 s)."""

    def __init__(self, registry: Registry, time_scale: float = 1.0) -> None:
        self._registry, self._time_scale = registry, time_scale
        self._silent: dict[str, asyncio.TimerHandle] = {}

    async def run(self) -> None:
        """Keep the taints of all nodes as their conditions are, until cancelled."""
        try:
            await follow(self._registry, "Node", self._take_node, _NAME)
        finally:
            for timer in self._silent.values():
                timer.cancel()

    def _take_node(self, change: Change) -> None:
        if change.type != "DELETED":
            self._taint(change.object)

    def heartbeats_stop(self, node: str) -> None:
        """A kubelet reports nothing any longer: its node turns Unknown when the grace period and a loop are over."""
        seconds = MONITOR_GRACE_PERIOD_S + random.uniform(0, MONITOR_PERIOD_S)  # noqa: S311 - no secret
        self.heartbeats_resume(node)
        loop = asyncio.get_running_loop()
        self._silent[node] = loop.call_later(seconds * self._time_scale, self._mark_unknown, node)

    def heartbeats_resume(self, node: str) -> None:
        """The kubelet reports again; it writes its node's condition itself."""
        if timer := self._silent.pop(node, None):
            timer.cancel()

    def _mark_unknown(self, name: str) -> None:
        del self._silent[name]
        set_ready(self._registry, name, "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
        with suppress(StatusError):
            node = self._registry.get("Node", "", name)
            self._registry.record(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady", component=_NAME)

    def _mark_pods_not_ready(self, node: str) -> None:
        """Set Ready of a node's pods to False and leave everything else as the kubelet wrote it."""
        now = written_now()
        for pod in self._registry.list("Pod"):
            with failures_logged(_NAME, pod):
                if pod["spec"].get("nodeName") == node and pod.get("status", {}).get("phase") not in _TERMINAL:
                    self._mark_pod_not_ready(pod, now)

    def _mark_pod_not_ready(self, pod: Manifest, now: str) -> None:
        def change(current: Manifest) -> None:
            for condition in current.get("status", {}).get("conditions") or ():
                if condition["type"] == "Ready" and condition["status"] == "True":
                    condition |= {"status": "False", "lastTransitionTime": now}

        with suppress(StatusError):
            metadata = pod["metadata"]
            self._registry.update("Pod", metadata["namespace"], metadata["name"], change, subresource="status")
            self._registry.record(pod, "NodeNotReady", "Node is not ready", warning=True, component=_NAME)

    def _taint(self, node: Manifest) -> None:
        taints = (node.get("spec") or {}).get("taints") or []
        desired_taints = tainted(taints, _ready_status(node), written_now())
        if desired_taints == taints:
            return
        name = node["metadata"]["name"]
        if len(desired_taints) > len(taints):  # it was ready until now
            self._mark_pods_not_ready(name)
        with suppress(StatusError):
            self._registry.update("Node", "", name, lambda current: _set_taints(current, desired_taints))


def tainted(taints: Sequence[Json], ready: str, now: str) -> list[Json]:
    """Return a node's taints with those that its condition Ready asks for. ``ready``: "" for a node without one."""
    key = _TAINTS.get(ready)
    kept = [taint for taint in taints if taint["key"] not in _TAINTS.values() or taint["key"] == key]
    present = {taint["effect"] for taint in kept if taint["key"] == key}
    if key and "NoSchedule" not in present:
        kept.append({"key": key, "effect": "NoSchedule"})
    if key and "NoExecute" not in present:
        kept.append({"key": key, "effect": "NoExecute", "timeAdded": now})
    return kept


def _ready_status(node: Manifest) -> str:
    conditions = node.get("status", {}).get("conditions") or ()
    return next((str(condition["status"]) for condition in conditions if condition["type"] == "Ready"), "")


def _set_taints(node: Manifest, taints: list[Json]) -> None:
    spec = node.setdefault("spec", {})
    spec.pop("taints", None)
    if taints:
        spec["taints"] = taints


def set_ready(registry: Registry, name: str, status: str, reason: str, message: str) -> None:
    """Write the condition Ready of a node; one that is gone is left alone."""

    def change(node: Manifest) -> None:
        for condition in node.get("status", {}).get("conditions") or ():
            if condition["type"] == "Ready":
                if condition["status"] != status:
                    condition["lastTransitionTime"] = written_now()
                condition |= {"status": status, "reason": reason, "message": message}

    with suppress(StatusError):
        registry.update("Node", "", name, change, subresource="status")
