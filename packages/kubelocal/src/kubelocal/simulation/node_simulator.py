"""Simulated nodes: pods pass through the stages of their lives without processes, thousands at a time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from kubelocal.change_loop import failures_logged, follow
from kubelocal.codec.status_errors import StatusError
from kubelocal.controllers.disruptions import SHUTDOWN_MESSAGE, SHUTDOWN_REASON, UNSEEN_END_CODE, UNSEEN_END_REASON
from kubelocal.controllers.node_lifecycle_controller import set_ready
from kubelocal.interfaces import Change, Registry
from kubelocal.settings import LocalSettings
from kubelocal.simulation.stages import Stage, delay_of, load_stages, next_stage, scope_of
from kubelocal.types import Manifest

__all__ = ["SIMULATED", "Simulator"]

NAME = "simulator"
SIMULATED = "simulate.crosswind/node"
"""The label of simulated nodes."""

AT_ONCE = 32
"""Stages played before other work gets its turn: some milliseconds."""


@dataclass(frozen=True, slots=True, order=True)
class Due:
    """A stage that an object waits for; ``moment`` on the loop's clock."""

    moment: float
    number: int
    uid: str
    stage: Stage
    namespace: str
    name: str

    @property
    def reference(self) -> Manifest:
        """The kind, namespace and name of the object, as an object has them."""
        return {"kind": self.stage.kind, "metadata": {"namespace": self.namespace, "name": self.name}}


class Simulator:
    """Makes ``settings.simulate`` nodes and plays all pods and nodes of the cluster.

    Raises ``SettingError`` on construction if the file of stages is wrong. One heap of timers serves all objects.
    ``others``: nodes whose pods are real processes, which are left alone.
    """

    def __init__(self, registry: Registry, settings: LocalSettings, others: Collection[str] = ()) -> None:
        self._registry = registry
        self._others = frozenset(others)
        self._lost: set[str] = set()
        self._settings = settings
        self._said = asdict(settings)
        self._stages = load_stages(settings.stages)
        self._due: dict[str, Due] = {}
        self._heap: list[Due] = []
        self._earlier = asyncio.Event()
        self._numbers = itertools.count(1)

    async def run(self) -> None:
        """Play until cancelled."""
        self._make_nodes()
        async with asyncio.TaskGroup() as group:
            for kind in ("Node", "Pod"):
                group.create_task(follow(self._registry, kind, partial(self.take, kind), NAME))
            group.create_task(self._play_what_is_due())

    def _make_nodes(self) -> None:
        known = {node["metadata"]["name"] for node in self._registry.list("Node")}
        for number in range(self._settings.simulate):
            name = f"{self._settings.node_name}-{number}"
            if name not in known:
                labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
                labels[SIMULATED] = "true"
                self._registry.create("Node", "", {"metadata": {"name": name, "labels": labels}})

    def take(self, kind: str, change: Change) -> None:
        """Note an object's change: which stage it waits for now; one that it waits for already keeps its moment."""
        thing = change.object
        metadata = thing["metadata"]
        known = self._due.get(metadata["uid"])
        if change.type == "DELETED":
            self._due.pop(metadata["uid"], None)
            return
        if self._is_foreign(thing):
            self._due.pop(metadata["uid"], None)
            return
        scope = scope_of(thing, self._said)
        stage = next_stage(self._stages, kind, scope)
        if known and known.stage is stage:
            return
        self._due.pop(metadata["uid"], None)
        delay = self._delay(stage, scope, thing) if stage else None
        if stage and delay is not None:
            moment = asyncio.get_running_loop().time() + delay
            due = Due(
                moment, next(self._numbers), metadata["uid"], stage, metadata.get("namespace", ""), metadata["name"]
            )
            self._due[due.uid] = due
            heapq.heappush(self._heap, due)
            if self._heap[0] is due:
                self._earlier.set()

    def _is_foreign(self, thing: Manifest) -> bool:
        """Whether an object is not to be played: another node's, or one of a node that is lost."""
        node = thing["spec"].get("nodeName") if "containers" in (thing.get("spec") or {}) else thing["metadata"]["name"]
        return node in self._others or node in self._lost

    # nodes that fail

    def lose(self, node: str) -> None:
        """Stop simulating a node: it neither reports nor acts on changes."""
        self._lost.add(node)
        for pod in self._pods(node):
            self._due.pop(pod["metadata"]["uid"], None)

    def find(self, node: str, *, dead: bool) -> None:
        """Play a node again. ``dead``: the containers that ran when it was lost have ended."""
        self._lost.discard(node)
        set_ready(self._registry, node, "True", "KubeletReady", "simulated")
        for pod in self._pods(node):
            if dead and pod.get("status", {}).get("phase") == "Running":
                self._fail(pod, {}, unseen=True)
            else:
                self.take("Pod", Change("MODIFIED", pod))

    def shut_down(self, node: str) -> None:
        """End the pods of a node as its kubelet does before the machine stops."""
        set_ready(self._registry, node, "False", "KubeletNotReady", "node is shutting down")
        for pod in self._pods(node):
            if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
                self._fail(pod, {"reason": SHUTDOWN_REASON, "message": SHUTDOWN_MESSAGE})

    def _pods(self, node: str) -> list[Manifest]:
        return [pod for pod in self._registry.list("Pod") if pod["spec"].get("nodeName") == node]

    def _fail(self, pod: Manifest, detail: Mapping[str, str], *, unseen: bool = False) -> None:
        """Have all containers of a pod killed, as the stage ``pod-killed`` describes it.

        ``unseen``: nobody saw them end; containerd then reports exit code 255, reason Unknown.
        """
        stage = next((stage for stage in self._stages if stage.name == "pod-killed" and stage.status), None)
        if stage is None or stage.status is None:
            return
        metadata, now = pod["metadata"], time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        status = {**stage.status(scope_of(pod, self._said, now=now)), **detail}
        for container in status.get("containerStatuses") or () if unseen else ():
            terminated = container.get("state", {}).get("terminated") or {}
            container["state"] = {
                "terminated": {**terminated, "exitCode": UNSEEN_END_CODE, "reason": UNSEEN_END_REASON}
            }
        if detail:
            disruption = {"reason": "TerminationByKubelet", "message": detail["message"], "lastTransitionTime": now}
            condition = {"type": "DisruptionTarget", "status": "True", "lastProbeTime": None, **disruption}
            status["conditions"] = [*status.get("conditions", ()), condition]
        with suppress(StatusError):
            self._registry.update(
                "Pod",
                metadata["namespace"],
                metadata["name"],
                lambda current: current.update(status={**current.get("status", {}), **status}),
                subresource="status",
            )

    def _delay(self, stage: Stage, scope: Any, thing: Manifest) -> float | None:
        try:
            return delay_of(stage, scope, random.random)
        except ValueError as error:
            message = f"stage {stage.name}: {stage.annotation}: {error}"
            self._registry.record(thing, "InvalidDelay", message, warning=True, component=NAME)
            return None

    async def _play_what_is_due(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._earlier.clear()
            wait = self._heap[0].moment - loop.time() if self._heap else None
            if wait is None or wait > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._earlier.wait()
                continue
            for _ in range(min(AT_ONCE, len(self._heap))):
                if self._heap[0].moment > loop.time():
                    break
                due = heapq.heappop(self._heap)
                if self._due.get(due.uid) is due:
                    del self._due[due.uid]
                    with failures_logged(NAME, due.reference):
                        self._play(due)
            await asyncio.sleep(0)

    def _play(self, due: Due) -> None:
        """Apply a stage, unless the object has been deleted or changed in the meantime."""
        kind = due.stage.kind
        try:
            if due.stage.remove:
                self._registry.remove(kind, due.namespace, due.name, uid=due.uid)
                return
            new = self._registry.update(
                kind, due.namespace, due.name, lambda thing: self._advance(thing, due), subresource="status"
            )
        except StatusError:
            return
        if due.stage.event:
            event = due.stage.event(scope_of(new, self._said))
            reason, message = event.get("reason", due.stage.name), event.get("message", "")
            self._registry.record(new, reason, message, warning=event.get("warning", False))

    def _advance(self, thing: Manifest, due: Due) -> None:
        if thing["metadata"]["uid"] != due.uid or not due.stage.status:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        scope = scope_of(thing, self._said, now=now, address=_address(due.number))
        if due.stage.matches(scope):
            thing["status"] = {**(thing.get("status") or {}), **due.stage.status(scope)}


def _address(number: int) -> str:
    """Return an unused address of 10.0.0.0/8, so that simulated pods have an IP like real ones."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
