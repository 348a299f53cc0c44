"""The scheduler: binds pods to nodes, or reports why it cannot, and retries when something changes.

It keeps counters of what each node has allocated, and pending pods in groups of equal requests: when capacity appears,
one check per group decides whether any of its pods fits. Nodes are tried in turn, so that pods spread; there is no
scoring. Pods of lower priority give way to one that fits nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace

from kubelocal.change_loop import failures_logged, follow
from kubelocal.codec.status_errors import StatusError
from kubelocal.controllers.disruptions import disrupt
from kubelocal.controllers.preemption import BoundPod, Preemption, find_preemption, with_reserved
from kubelocal.controllers.scheduler_filters import (
    NodeCapacity,
    PodRequest,
    capacity_of,
    claim_missing,
    refusal,
    request_of,
    unschedulable,
)
from kubelocal.interfaces import Change, Registry
from kubelocal.types import Manifest

__all__ = ["Scheduler"]

NAME = "default-scheduler"
PREEMPTING = "preempting to accommodate a higher priority pod"
GATED = "Scheduling is blocked due to non-empty scheduling gates"


class Scheduler:
    """The default scheduler of one cluster."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._capacities: dict[str, NodeCapacity] = {}
        self._turn = 0
        self._bound: dict[str, BoundPod] = {}
        self._priorities: Counter[int] = Counter()  # of the bound pods: none is lower than that of most pods
        self._nominated: dict[
            str, tuple[PodRequest, str]
        ] = {}  # by uid: what others have been preempted for, and where
        self._waiting: dict[bytes, tuple[PodRequest, dict[str, Manifest]]] = {}
        self._keys: dict[str, bytes] = {}

    async def run(self) -> None:
        """Schedule until cancelled."""
        for node in self._registry.list("Node"):
            with failures_logged(NAME, node):
                self.take_node(Change("ADDED", node))
        takers = {"Node": self.take_node, "Pod": self.take_pod, "PersistentVolumeClaim": self.take_claim}
        async with asyncio.TaskGroup() as group:
            for kind, take in takers.items():
                group.create_task(follow(self._registry, kind, take, NAME))

    def take_node(self, change: Change) -> None:
        """Note a node's change; what it offers may have grown."""
        name = change.object["metadata"]["name"]
        if change.type == "DELETED":
            self._capacities.pop(name, None)
            return
        room, known = capacity_of(change.object), self._capacities.get(name)
        if known:
            room.used = known.used
        else:
            for pod in self._bound.values():
                if pod.node == name:
                    room.used.update(pod.demand)
        self._capacities[name] = room
        if room != known:
            self._retry()

    def take_claim(self, change: Change) -> None:
        """A claim that pods wait for may have come."""
        if change.type == "ADDED":
            self._retry()

    def take_pod(self, change: Change) -> None:
        """Handle a pod's change: bind it, count it, or release its capacity."""
        pod = change.object
        uid, spec = pod["metadata"]["uid"], pod["spec"]
        if change.type == "DELETED" or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            self._forget(uid)
            self._release(uid)
        elif spec.get("nodeName"):
            self._forget(uid)
            self._count(pod)
        elif spec.get("schedulerName") == NAME and "deletionTimestamp" not in pod["metadata"]:
            self._consider(pod)

    def _count(self, pod: Manifest, ask: PodRequest | None = None) -> None:
        metadata = pod["metadata"]
        known = self._bound.get(metadata["uid"])
        terminating = "deletionTimestamp" in metadata
        if known is not None:
            if terminating and not known.terminating:
                self._bound[known.uid] = replace(known, terminating=True)
            return
        ask = ask or request_of(pod)
        place = metadata["namespace"], metadata["name"], metadata["uid"], pod["spec"]["nodeName"]
        bound = self._bound[metadata["uid"]] = BoundPod(*place, ask.demand, ask.priority, terminating)
        self._priorities[ask.priority] += 1
        if bound.node in self._capacities:
            self._capacities[bound.node].used.update(bound.demand)

    def _release(self, uid: str) -> None:
        bound = self._bound.pop(uid, None)
        if bound is None:
            return
        self._priorities[bound.priority] -= 1
        if not self._priorities[bound.priority]:
            del self._priorities[bound.priority]
        if bound.node in self._capacities:
            self._capacities[bound.node].used.subtract(bound.demand)
        self._retry()

    def _forget(self, uid: str) -> None:
        self._nominated.pop(uid, None)
        key = self._keys.pop(uid, None)
        if key is not None:
            _, pods = self._waiting[key]
            del pods[uid]
            if not pods:
                del self._waiting[key]

    def _consider(self, pod: Manifest) -> None:
        """Place a pod that is new or changed; our own updates arrive here too and change nothing."""
        if pod["spec"].get("schedulingGates"):
            self._set_pod_scheduled(pod, "SchedulingGated", GATED)
            return
        uid, ask = pod["metadata"]["uid"], request_of(pod)
        if uid in self._bound:
            return
        key = ask.key()
        if self._keys.get(uid) == key:
            self._waiting[key][1][uid] = pod
            return
        self._forget(uid)
        if not self._bind(pod, ask):
            self._keys[uid] = key
            self._waiting.setdefault(key, (ask, {}))[1][uid] = pod
            self._refuse(pod, ask)

    def _retry(self) -> None:
        """Bind pods that fit, by priority and age of their group; report why the first other one does not fit."""
        for ask, pods in sorted(self._waiting.values(), key=lambda group: -group[0].priority):
            for pod in list(pods.values()):
                if not self._bind(pod, ask):
                    self._refuse(pod, ask)
                    break

    def _bind(self, pod: Manifest, ask: PodRequest) -> bool:
        """Bind a pod to the next node that takes it; True also when the pod has meanwhile gone."""
        room = None if self._missing_claim(ask) else self._next_room(ask, pod["metadata"]["uid"])
        if room is None:
            return False
        namespace, name, uid = (pod["metadata"][field] for field in ("namespace", "name", "uid"))
        try:
            bound = self._registry.update("Pod", namespace, name, lambda current: _assign(current, uid, room.name))
        except StatusError:
            bound = {}
        self._forget(uid)
        if bound and bound["metadata"]["uid"] == uid and bound["spec"].get("nodeName") == room.name:
            self._count(bound, ask)
            message = f"Successfully assigned {namespace}/{name} to {room.name}"
            self._registry.record(bound, "Scheduled", message, component=NAME)
        return True

    def _next_room(self, ask: PodRequest, uid: str) -> NodeCapacity | None:
        capacities = list(self._capacities.values())
        # Capacity freed by preemption is reserved; only a pod of higher priority than the preemptor may use it.
        reserved = self._reserved(ask, uid) if self._nominated else {}
        for offset in range(len(capacities)):
            room = capacities[(self._turn + offset) % len(capacities)]
            if refusal(ask, with_reserved(room, reserved.get(room.name))) is None:
                self._turn = (self._turn + offset + 1) % len(capacities)
                return room
        return None

    def _refuse(self, pod: Manifest, ask: PodRequest) -> None:
        if claim := self._missing_claim(ask):
            self._set_pod_scheduled(pod, "Unschedulable", claim_missing(claim, len(self._capacities)))
            return
        failures = [failure for room in self._capacities.values() if (failure := refusal(ask, room))]
        preemption = self._preempt(pod, ask) if any(failure.may_change for failure in failures) else ""
        self._set_pod_scheduled(
            pod, "Unschedulable", unschedulable(failures, preemption), self._nominated.get(pod["metadata"]["uid"])
        )

    def _preempt(self, pod: Manifest, ask: PodRequest) -> str:
        """End pods of lower priority for this one; return what the scheduler says of it, "" when there are none."""
        if pod["spec"].get("preemptionPolicy") == "Never":
            return "not eligible due to preemptionPolicy=Never."
        if min(self._priorities, default=ask.priority) >= ask.priority:
            return ""
        uid = pod["metadata"]["uid"]
        if uid in self._nominated and self._is_making_room(ask, self._nominated[uid][1]):
            return "not eligible due to a terminating pod on the nominated node."
        self._nominated.pop(uid, None)
        preemption = find_preemption(ask, self._capacities.values(), self._bound.values(), self._reserved(ask, uid))
        if preemption is None:
            return ""
        self._nominated[uid] = ask, preemption.node
        self._end_victims(preemption, uid)
        return "not eligible due to a terminating pod on the nominated node."

    def _is_making_room(self, ask: PodRequest, node: str) -> bool:
        return any(pod.terminating and pod.node == node and pod.priority < ask.priority for pod in self._bound.values())

    def _reserved(self, ask: PodRequest, uid: str) -> dict[str, Counter[str]]:
        """Return by node what other pods of at least this priority will take there once their victims have ended."""
        reserved: dict[str, Counter[str]] = {}
        for nominee, (other, node) in self._nominated.items():
            if other.priority >= ask.priority and nominee != uid:
                reserved.setdefault(node, Counter()).update(other.demand)
        return reserved

    def _end_victims(self, preemption: Preemption, uid: str) -> None:
        for victim in preemption.victims:
            self._bound[victim.uid] = replace(victim, terminating=True)
            with suppress(StatusError):  # already deleted; its DELETED event will follow
                pod = self._registry.get("Pod", victim.namespace, victim.name)
                message = f"Preempted by pod {uid} on node {preemption.node}"
                self._registry.record(pod, "Preempted", message, component=NAME)
                disrupt(self._registry, pod, "PreemptionByScheduler", f"{NAME}: {PREEMPTING}")

    def _missing_claim(self, ask: PodRequest) -> str:
        for namespace, name in ask.claims:
            try:
                self._registry.get("PersistentVolumeClaim", namespace, name)
            except StatusError:
                return name
        return ""

    def _set_pod_scheduled(
        self, pod: Manifest, reason: str, message: str, nominated: tuple[PodRequest, str] | None = None
    ) -> None:
        """Write why a pod waits into its status, and an Event, when that is news."""
        metadata = pod["metadata"]
        if _scheduled(pod).get("message") == message:
            return

        def write(current: Manifest) -> None:
            if current["metadata"]["uid"] == metadata["uid"] and not current["spec"].get("nodeName"):
                _set_condition(current, {"status": "False", "reason": reason, "message": message})
                if nominated:
                    current["status"]["nominatedNodeName"] = nominated[1]

        try:
            updated = self._registry.update("Pod", metadata["namespace"], metadata["name"], write)
        except StatusError:
            return  # gone; its DELETED is on the way
        if reason == "Unschedulable":
            self._registry.record(updated, "FailedScheduling", message, warning=True, component=NAME)


def _scheduled(pod: Manifest) -> Manifest:
    conditions = pod.get("status", {}).get("conditions", ())
    return next((condition for condition in conditions if condition["type"] == "PodScheduled"), {})


def _set_condition(pod: Manifest, condition: Manifest) -> None:
    """Set PodScheduled; its time moves only with its status."""
    old = _scheduled(pod)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    since = old["lastTransitionTime"] if old.get("status") == condition["status"] else now
    new = {"type": "PodScheduled", "lastProbeTime": None, "lastTransitionTime": since, **condition}
    status = pod.setdefault("status", {})
    status["conditions"] = [existing for existing in status.get("conditions", ()) if existing is not old] + [new]


def _assign(pod: Manifest, uid: str, node: str) -> None:
    """Do what a binding does, unless the pod is another one, bound or on its way out."""
    metadata, spec = pod["metadata"], pod["spec"]
    if metadata["uid"] == uid and not spec.get("nodeName") and "deletionTimestamp" not in metadata:
        spec["nodeName"] = node
        _set_condition(pod, {"status": "True"})
