"""The scheduler: binds pods to nodes, or says why not, and tries again when something changes.

It keeps what each node has used as counters, and pods that wait in groups of equal asks: when room appears, one look
per group tells whether any of its pods fits. Nodes are tried in turn, so that pods spread; there is no scoring and no
preemption.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import closing

from crosswind.local.placing import Ask, NodeRoom, Refusal, ask_of, claim_missing, refusal, room_of, unschedulable
from crosswind.local.seams import Change, Registry
from crosswind.local.statuses import StatusError
from crosswind.types import Manifest

__all__ = ["Scheduler"]

NAME = "default-scheduler"
GATED = "Scheduling is blocked due to non-empty scheduling gates"


class Scheduler:
    """The default scheduler of one cluster."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._rooms: dict[str, NodeRoom] = {}
        self._turn = 0
        self._bound: dict[str, tuple[str, Mapping[str, int]]] = {}
        self._waiting: dict[bytes, tuple[Ask, dict[str, Manifest]]] = {}
        self._keys: dict[str, bytes] = {}

    async def run(self) -> None:
        """Schedule until cancelled."""
        for node in self._registry.list("Node"):
            self.take_node(Change("ADDED", node))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow("Node", self.take_node))
            group.create_task(self._follow("Pod", self.take_pod))
            group.create_task(self._follow("PersistentVolumeClaim", self.take_claim))

    async def _follow(self, kind: str, take: Callable[[Change], None]) -> None:
        with closing(self._registry.watch(kind)) as changes:
            async for change in changes:
                take(change)

    def take_node(self, change: Change) -> None:
        """Note a node's change; what it offers may have grown."""
        name = change.object["metadata"]["name"]
        if change.type == "DELETED":
            self._rooms.pop(name, None)
            return
        room, known = room_of(change.object), self._rooms.get(name)
        if known:
            room.used = known.used
        else:
            for node, demand in self._bound.values():
                if node == name:
                    room.used.update(demand)
        self._rooms[name] = room
        if room != known:
            self._retry()

    def take_claim(self, change: Change) -> None:
        """A claim that pods wait for may have come."""
        if change.type == "ADDED":
            self._retry()

    def take_pod(self, change: Change) -> None:
        """Note a pod's change: bind it, count it or give its room back."""
        pod = change.object
        uid, spec = pod["metadata"]["uid"], pod["spec"]
        if change.type == "DELETED" or pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            self._forget(uid)
            self._release(uid)
        elif spec.get("nodeName"):
            self._forget(uid)
            self._count(uid, spec["nodeName"], ask_of(pod).demand if uid not in self._bound else {})
        elif spec.get("schedulerName") == NAME and "deletionTimestamp" not in pod["metadata"]:
            self._consider(pod)

    def _count(self, uid: str, node: str, demand: Mapping[str, int]) -> None:
        if uid not in self._bound:
            self._bound[uid] = (node, demand)
            if node in self._rooms:
                self._rooms[node].used.update(demand)

    def _release(self, uid: str) -> None:
        node, demand = self._bound.pop(uid, ("", {}))
        if node in self._rooms:
            self._rooms[node].used.subtract(demand)
        if node:
            self._retry()

    def _forget(self, uid: str) -> None:
        key = self._keys.pop(uid, None)
        if key is not None:
            _, pods = self._waiting[key]
            del pods[uid]
            if not pods:
                del self._waiting[key]

    def _consider(self, pod: Manifest) -> None:
        """Place a pod that is new or changed; our own word on it comes back here too and changes nothing."""
        if pod["spec"].get("schedulingGates"):
            self._say(pod, "SchedulingGated", GATED)
            return
        uid, ask = pod["metadata"]["uid"], ask_of(pod)
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
        """Bind what fits now, by priority, then by age of the group; tell the first that does not why."""
        for ask, pods in sorted(self._waiting.values(), key=lambda group: -group[0].priority):
            for pod in list(pods.values()):
                if not self._bind(pod, ask):
                    self._refuse(pod, ask)
                    break

    def _bind(self, pod: Manifest, ask: Ask) -> bool:
        """Bind a pod to the next node that takes it; True also when the pod has meanwhile gone."""
        room = None if self._missing_claim(ask) else self._next_room(ask)
        if room is None:
            return False
        namespace, name, uid = (pod["metadata"][field] for field in ("namespace", "name", "uid"))
        try:
            bound = self._registry.update("Pod", namespace, name, lambda found: _assign(found, uid, room.name))
        except StatusError:
            bound = {}
        self._forget(uid)
        if bound and bound["metadata"]["uid"] == uid and bound["spec"].get("nodeName") == room.name:
            self._count(uid, room.name, ask.demand)
            message = f"Successfully assigned {namespace}/{name} to {room.name}"
            self._registry.record(bound, "Scheduled", message, component=NAME)
        return True

    def _next_room(self, ask: Ask) -> NodeRoom | None:
        rooms = list(self._rooms.values())
        for offset in range(len(rooms)):
            room = rooms[(self._turn + offset) % len(rooms)]
            if refusal(ask, room) is None:
                self._turn = (self._turn + offset + 1) % len(rooms)
                return room
        return None

    def _refuse(self, pod: Manifest, ask: Ask) -> None:
        if claim := self._missing_claim(ask):
            self._say(pod, "Unschedulable", claim_missing(claim, len(self._rooms)))
            return
        found: list[Refusal | None] = [refusal(ask, room) for room in self._rooms.values()]
        self._say(pod, "Unschedulable", unschedulable([one for one in found if one]))

    def _missing_claim(self, ask: Ask) -> str:
        for namespace, name in ask.claims:
            try:
                self._registry.get("PersistentVolumeClaim", namespace, name)
            except StatusError:
                return name
        return ""

    def _say(self, pod: Manifest, reason: str, message: str) -> None:
        """Write why a pod waits into its status, and an Event, when that is news."""
        metadata = pod["metadata"]
        if _scheduled(pod).get("message") == message:
            return

        def write(found: Manifest) -> None:
            if found["metadata"]["uid"] == metadata["uid"] and not found["spec"].get("nodeName"):
                _set_condition(found, {"status": "False", "reason": reason, "message": message})

        try:
            told = self._registry.update("Pod", metadata["namespace"], metadata["name"], write)
        except StatusError:
            return  # gone; its DELETED is on the way
        if reason == "Unschedulable":
            self._registry.record(told, "FailedScheduling", message, warning=True, component=NAME)


def _scheduled(pod: Manifest) -> Manifest:
    conditions = pod.get("status", {}).get("conditions", ())
    return next((one for one in conditions if one["type"] == "PodScheduled"), {})


def _set_condition(pod: Manifest, said: Manifest) -> None:
    """Set PodScheduled; its time moves only with its status."""
    old = _scheduled(pod)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    since = old["lastTransitionTime"] if old.get("status") == said["status"] else now
    new = {"type": "PodScheduled", "lastProbeTime": None, "lastTransitionTime": since, **said}
    status = pod.setdefault("status", {})
    status["conditions"] = [one for one in status.get("conditions", ()) if one is not old] + [new]


def _assign(pod: Manifest, uid: str, node: str) -> None:
    """Do what a binding does, unless the pod is another one, bound or on its way out."""
    metadata, spec = pod["metadata"], pod["spec"]
    if metadata["uid"] == uid and not spec.get("nodeName") and "deletionTimestamp" not in metadata:
        spec["nodeName"] = node
        _set_condition(pod, {"status": "True"})
