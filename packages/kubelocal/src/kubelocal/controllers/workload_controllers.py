"""The controllers of Deployments, ReplicaSets, StatefulSets and DaemonSets: they carry out what the plans decide."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from kubelocal.change_loop import failures_logged, follow
from kubelocal.codec.status_errors import StatusError
from kubelocal.codec.wire_fields import omits_zero
from kubelocal.controllers.daemon_set_sync import decide_daemon_set
from kubelocal.controllers.deployment_sync import decide_deployment
from kubelocal.controllers.job_sync import EventRecord, earliest
from kubelocal.controllers.replica_set_sync import WorkloadPlan, decide_replica_set, decide_stateful_set
from kubelocal.interfaces import Change, Registry
from kubelocal.registry.patches import merge_patch
from kubelocal.types import Manifest

__all__ = ["ReplicaController"]

_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class _Kind:
    """The controller of a kind: its name, the kind that it creates, and its decision function."""

    component: str
    makes: str
    decide: Callable[[Manifest, list[Manifest], datetime, Sequence[Manifest]], WorkloadPlan]


def _without_nodes(
    decide: Callable[[Manifest, list[Manifest], datetime], WorkloadPlan],
) -> Callable[[Manifest, list[Manifest], datetime, Sequence[Manifest]], WorkloadPlan]:
    return lambda owner, children, now, _: decide(owner, children, now)


_KINDS: Mapping[str, _Kind] = {
    "Deployment": _Kind("deployment-controller", "ReplicaSet", _without_nodes(decide_deployment)),
    "ReplicaSet": _Kind("replicaset-controller", "Pod", _without_nodes(decide_replica_set)),
    "StatefulSet": _Kind("statefulset-controller", "Pod", _without_nodes(decide_stateful_set)),
    "DaemonSet": _Kind("daemonset-controller", "Pod", decide_daemon_set),
}


class ReplicaController:
    """Looks at an object whenever it or something that it made changes, or a time has come."""

    def __init__(self, registry: Registry, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._registry = registry
        self._now = now
        self._timers: dict[tuple[str, str, str], asyncio.TimerHandle] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for kind in (*_KINDS, "Pod", "Node"):
                    group.create_task(follow(self._registry, kind, self._take, "workload controllers"))
        finally:
            for timer in self._timers.values():
                timer.cancel()

    def _take(self, change: Change) -> None:
        kind, metadata = change.object["kind"], change.object["metadata"]
        for owner in metadata.get("ownerReferences", ()):
            if owner.get("controller") and owner["kind"] in _KINDS:
                self._sync(owner["kind"], metadata["namespace"], owner["name"])
        if kind in _KINDS:
            self._sync(kind, metadata["namespace"], metadata["name"])
        if kind == "Node":
            for daemon_set in self._registry.list("DaemonSet"):
                self._sync("DaemonSet", daemon_set["metadata"]["namespace"], daemon_set["metadata"]["name"])

    def _sync(self, kind: str, namespace: str, name: str) -> None:
        if timer := self._timers.pop((kind, namespace, name), None):
            timer.cancel()
        try:
            owner = self._registry.get(kind, namespace, name)
        except StatusError:
            return
        children = [
            child
            for child in self._registry.list(_KINDS[kind].makes, namespace)
            if any(
                reference["uid"] == owner["metadata"]["uid"]
                for reference in child["metadata"].get("ownerReferences", ())
            )
        ]
        wait = None
        with failures_logged(_KINDS[kind].component, owner):  # here, because a timer calls this too
            nodes = self._registry.list("Node") if kind == "DaemonSet" else ()
            wait = self._carry_out(owner, _KINDS[kind].decide(owner, children, self._now(), nodes))
        if wait is not None:
            loop = asyncio.get_running_loop()
            self._timers[kind, namespace, name] = loop.call_later(wait, self._sync, kind, namespace, name)

    def _carry_out(self, owner: Manifest, plan: WorkloadPlan) -> float | None:
        """Carry out the planned actions; return the seconds until the next sync."""
        kind, metadata = owner["kind"], owner["metadata"]
        makes, namespace = _KINDS[kind].makes, metadata["namespace"]
        own: Manifest = {"status": _without_zeros(kind, plan.status)}
        if plan.annotations:
            own["metadata"] = {"annotations": dict(plan.annotations)}
        self._patch(kind, namespace, metadata["name"], own)
        for event in plan.events:
            self._record_event(owner, event)
        for name, patch in plan.patch.items():
            self._patch(makes, namespace, name, patch)
        for name in plan.delete:
            with suppress(StatusError):
                self._registry.delete(makes, namespace, name)
            if makes == "Pod":
                self._record_event(owner, EventRecord("SuccessfulDelete", f"Deleted pod: {name}"))
        refused = [new_child for new_child in plan.create if not self._create(owner, new_child)]
        return earliest(_RETRY_S if refused else None, plan.wait)

    def _patch(self, kind: str, namespace: str, name: str, patch: Manifest) -> None:
        with suppress(StatusError):
            self._registry.update(kind, namespace, name, lambda current: current.update(merge_patch(current, patch)))

    def _create(self, owner: Manifest, manifest: Manifest) -> bool:
        kind, namespace = manifest["kind"], owner["metadata"]["namespace"]
        try:
            created = self._registry.create(kind, namespace, manifest)
        except StatusError as problem:
            if kind == "PersistentVolumeClaim" and problem.reason == "AlreadyExists":
                return True
            self._record_event(owner, EventRecord("FailedCreate", f"Error creating: {problem}", warning=True))
            return False
        if kind == "Pod":
            self._record_event(owner, EventRecord("SuccessfulCreate", f"Created pod: {created['metadata']['name']}"))
        return True

    def _record_event(self, owner: Manifest, event: EventRecord) -> None:
        component = _KINDS[owner["kind"]].component
        self._registry.record(owner, event.reason, event.message, warning=event.warning, component=component)


def _without_zeros(kind: str, status: Manifest) -> Manifest:
    """Return the merge patch that leaves out of a status what Kubernetes leaves out when it is zero."""
    omitted = omits_zero(f"V1{kind}Status")
    return {field: None if field in omitted and not value else value for field, value in status.items()}
