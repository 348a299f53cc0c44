"""The Job controller: carries out ``job_sync``'s decisions when a Job or one of its pods changes, or a limit passes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from kubelocal.change_loop import failures_logged, follow
from kubelocal.codec.status_errors import StatusError
from kubelocal.controllers.job_sync import TRACKING, EventRecord, JobPlan, decide, earliest
from kubelocal.interfaces import Change, Registry
from kubelocal.types import Manifest

__all__ = ["JobController"]

OWN_NAME = "kubernetes.io/job-controller"
"""``spec.managedBy`` of the Jobs that are this controller's, where it is set (KEP-4368)."""

NAME = "job-controller"


class JobController:
    """Reconciles a Job whenever it or one of its pods changes, or a timer expires.

    A Job whose ``managedBy`` names another controller is left alone; the field never changes.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        backoff: float = 10.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._registry = registry
        self._backoff = backoff
        self._now = now
        self._pods: dict[str, set[str]] = defaultdict(set)
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        # a Job of a kept state must not be looked at before its pods are known
        for pod in self._registry.list("Pod"):
            with failures_logged(NAME, pod):
                self._know(pod)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(follow(self._registry, "Job", self._take_job, NAME))
                group.create_task(follow(self._registry, "Pod", self._take_pod, NAME))
        finally:
            for timer in self._timers.values():
                timer.cancel()

    def _take_job(self, change: Change) -> None:
        metadata = change.object["metadata"]
        if change.type == "DELETED" and (timer := self._timers.pop(metadata["uid"], None)):
            timer.cancel()
        self._sync(metadata["namespace"], metadata["name"], metadata["uid"])

    def _take_pod(self, change: Change) -> None:
        pod = change.object
        owner = self._know(pod)
        if owner is None:
            return
        if change.type == "DELETED":
            self._pods[owner["uid"]].discard(pod["metadata"]["name"])
        self._sync(pod["metadata"]["namespace"], owner["name"], owner["uid"])

    def _know(self, pod: Manifest) -> Manifest | None:
        """Remember a Job's pod; return the reference to the Job, None for any other pod."""
        for owner in pod["metadata"].get("ownerReferences", ()):
            if owner["kind"] == "Job" and owner.get("controller"):
                self._pods[owner["uid"]].add(pod["metadata"]["name"])
                return dict(owner)
        return None

    def _sync(self, namespace: str, name: str, uid: str) -> None:
        job = self._get("Job", namespace, name)
        if job is None or job["metadata"]["uid"] != uid:
            for pod_name in self._pods.pop(uid, set()):
                self._release(namespace, pod_name)
            return
        if job["spec"].get("managedBy") not in (None, "", OWN_NAME):
            return  # another controller's, such as Kueue's: its status, its pods, its finalizers
        pods = [pod for each in sorted(self._pods[uid]) if (pod := self._get("Pod", namespace, each))]
        plan = decide(job, pods, self._now(), self._backoff)
        wait = self._carry_out(job, plan)
        if timer := self._timers.pop(uid, None):
            timer.cancel()
        if wait is not None:
            loop = asyncio.get_running_loop()
            self._timers[uid] = loop.call_later(wait, self._sync, namespace, name, uid)

    def _get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        try:
            return self._registry.get(kind, namespace, name)
        except StatusError:
            return None

    def _carry_out(self, job: Manifest, plan: JobPlan) -> float | None:
        """Carry out the planned actions; return the seconds until the next sync."""
        namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
        self._registry.update(
            "Job", namespace, name, lambda j: j.__setitem__("status", plan.status), subresource="status"
        )
        for event in plan.events:
            self._record_event(job, event)
        for pod in plan.release:
            self._release(namespace, pod)
        for pod in plan.delete:
            with suppress(StatusError):
                self._registry.delete("Pod", namespace, pod)
            self._record_event(job, EventRecord("SuccessfulDelete", f"Deleted pod: {pod}"))
        if plan.remove:
            self._registry.delete("Job", namespace, name, uid=job["metadata"]["uid"])
            return None
        refused = sum(not self._create(job, pod) for pod in plan.create)
        return earliest(self._backoff if refused else None, plan.wait)

    def _create(self, job: Manifest, pod: Manifest) -> bool:
        try:
            created = self._registry.create("Pod", job["metadata"]["namespace"], pod)
        except StatusError as problem:
            self._record_event(job, EventRecord("FailedCreate", f"Error creating: {problem}", warning=True))
            return False
        self._pods[job["metadata"]["uid"]].add(created["metadata"]["name"])
        self._record_event(job, EventRecord("SuccessfulCreate", f"Created pod: {created['metadata']['name']}"))
        return True

    def _release(self, namespace: str, pod: str) -> None:
        def change(manifest: Manifest) -> None:
            left = [f for f in manifest["metadata"].get("finalizers", ()) if f != TRACKING]
            manifest["metadata"].pop("finalizers", None)
            if left:
                manifest["metadata"]["finalizers"] = left

        with suppress(StatusError):
            self._registry.update("Pod", namespace, pod, change)

    def _record_event(self, job: Manifest, event: EventRecord) -> None:
        self._registry.record(job, event.reason, event.message, warning=event.warning, component=NAME)
