"""The taint eviction controller: deletes pods from nodes whose NoExecute taints they do not tolerate.

It acts as ``pkg/controller/tainteviction``: at once without a toleration, else after the shortest ``tolerationSeconds``
of the tolerations that apply, never if none of them has any.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from kubelocal.change_loop import follow
from kubelocal.codec.status_errors import StatusError
from kubelocal.controllers.disruptions import disrupt
from kubelocal.controllers.scheduler_filters import tolerates
from kubelocal.interfaces import Change, Registry
from kubelocal.types import Json, Manifest

__all__ = ["TaintEvictionController", "tolerated_seconds"]

NAME = "taint-eviction-controller"
REASON, MESSAGE = "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"


def tolerated_seconds(taints: Sequence[Json], tolerations: Sequence[Json]) -> float | None:
    """Return for how long a pod may stay on a node with these NoExecute taints; None: for ever."""
    seconds: list[float] = []
    for taint in taints:
        toleration = next((each for each in tolerations if tolerates(each, taint)), None)
        if toleration is None:
            return 0.0
        if (limit := toleration.get("tolerationSeconds")) is not None:
            seconds.append(max(0.0, float(limit)))
    return min(seconds, default=None)


@dataclass(frozen=True, slots=True)
class _NodePod:
    """The data kept for a pod on a node; the whole objects of thousands of pods would take much memory."""

    namespace: str
    name: str
    uid: str
    tolerations: tuple[Json, ...]


@dataclass(frozen=True, slots=True)
class _PlannedDeletion:
    since: float
    timer: asyncio.TimerHandle


class TaintEvictionController:
    """Owns one timer for each pod that may stay on a tainted node for a while; ``run`` ends them all.

    ``time_scale``: multiplies ``tolerationSeconds``.
    """

    def __init__(self, registry: Registry, time_scale: float = 1.0) -> None:
        self._registry, self._time_scale = registry, time_scale
        self._taints: dict[str, list[Json]] = {}
        self._pods: dict[str, dict[str, _NodePod]] = {}  # by node and uid
        self._planned: dict[str, _PlannedDeletion] = {}

    async def run(self) -> None:
        """Reconcile until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(follow(self._registry, "Node", self.take_node, NAME))
                tasks.create_task(follow(self._registry, "Pod", self.take_pod, NAME))
        finally:
            for planned in self._planned.values():
                planned.timer.cancel()

    def take_node(self, change: Change) -> None:
        """Note a node's taints."""
        name = change.object["metadata"]["name"]
        every = (change.object.get("spec") or {}).get("taints") or ()
        taints = [] if change.type == "DELETED" else [taint for taint in every if taint["effect"] == "NoExecute"]
        if taints != self._taints.get(name, []):
            self._taints[name] = taints
            for pod in list(self._pods.get(name, {}).values()):
                self._consider(pod, taints)

    def take_pod(self, change: Change) -> None:
        """Note a pod's node and tolerations."""
        metadata, spec = change.object["metadata"], change.object["spec"]
        node = spec.get("nodeName")
        if not node:
            return
        if change.type == "DELETED":
            self._pods.get(node, {}).pop(metadata["uid"], None)
            self._forget(metadata["uid"])
            return
        tolerations = tuple(spec.get("tolerations") or ())
        pods = self._pods.setdefault(node, {})
        known = pods.get(metadata["uid"])
        if known is None or known.tolerations != tolerations:
            pod = _NodePod(metadata["namespace"], metadata["name"], metadata["uid"], tolerations)
            pods[pod.uid] = pod
            if taints := self._taints.get(node):
                self._consider(pod, taints)

    def _consider(self, pod: _NodePod, taints: Sequence[Json]) -> None:
        """Plan a pod's deletion, or cancel it. A later look keeps the moment since which the pod is tolerated."""
        seconds = tolerated_seconds(taints, pod.tolerations)
        if seconds is None:
            if self._forget(pod.uid):
                self._record(pod, "Cancelling deletion of Pod")
            return
        loop = asyncio.get_running_loop()
        planned = self._planned.get(pod.uid)
        since = planned.since if planned else loop.time()
        if planned:
            planned.timer.cancel()
        timer = loop.call_at(since + seconds * self._time_scale, self._delete, pod)
        self._planned[pod.uid] = _PlannedDeletion(since, timer)

    def _forget(self, uid: str) -> bool:
        planned = self._planned.pop(uid, None)
        if planned:
            planned.timer.cancel()
        return planned is not None

    def _delete(self, pod: _NodePod) -> None:
        del self._planned[pod.uid]
        if current := self._record(pod, "Marking for deletion Pod"):
            disrupt(self._registry, current, REASON, MESSAGE)

    def _record(self, pod: _NodePod, action: str) -> Manifest | None:
        """Write an event about a pod; return the pod, None when it is gone."""
        try:
            current = self._registry.get("Pod", pod.namespace, pod.name)
        except StatusError:
            return None
        if current["metadata"]["uid"] != pod.uid:
            return None
        message = f"{action} {pod.namespace}/{pod.name}"
        self._registry.record(current, "TaintManagerEviction", message, component=NAME)
        return current
