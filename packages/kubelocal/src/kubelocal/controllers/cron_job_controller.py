"""The CronJob controller: does what ``cron_job_sync`` decides when a CronJob or Job changes or a time comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from kubelocal.change_loop import failures_logged, follow
from kubelocal.codec.status_errors import StatusError
from kubelocal.controllers.cron_job_sync import CronPlan, decide_cron_job
from kubelocal.controllers.job_sync import EventRecord, earliest
from kubelocal.interfaces import Change, Registry
from kubelocal.types import Manifest

__all__ = ["CronJobController"]

RETRY_S = 5.0
NAME = "cronjob-controller"


class CronJobController:
    """Looks at a CronJob whenever it or one of its Jobs changes, and when its next time has come."""

    def __init__(self, registry: Registry, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._registry = registry
        self._now = now
        self._timers: dict[tuple[str, str], asyncio.TimerHandle] = {}

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(follow(self._registry, "CronJob", self._take_cron_job, NAME))
                group.create_task(follow(self._registry, "Job", self._take_job, NAME))
        finally:
            for timer in self._timers.values():
                timer.cancel()

    def _take_cron_job(self, change: Change) -> None:
        self._sync(change.object["metadata"]["namespace"], change.object["metadata"]["name"])

    def _take_job(self, change: Change) -> None:
        metadata = change.object["metadata"]
        for owner in metadata.get("ownerReferences", ()):
            if owner.get("controller") and owner["kind"] == "CronJob":
                self._sync(metadata["namespace"], owner["name"])

    def _sync(self, namespace: str, name: str) -> None:
        if timer := self._timers.pop((namespace, name), None):
            timer.cancel()
        try:
            cron_job = self._registry.get("CronJob", namespace, name)
        except StatusError:
            return
        wait = None
        with failures_logged(NAME, cron_job):  # here, because a timer calls this too
            wait = self._carry_out(cron_job, decide_cron_job(cron_job, self._jobs(cron_job), self._now()))
        if wait is not None:
            loop = asyncio.get_running_loop()
            self._timers[namespace, name] = loop.call_later(max(wait, 0), self._sync, namespace, name)

    def _jobs(self, cron_job: Manifest) -> list[Manifest]:
        metadata = cron_job["metadata"]
        return [
            job
            for job in self._registry.list("Job", metadata["namespace"])
            if any(owner["uid"] == metadata["uid"] for owner in job["metadata"].get("ownerReferences", ()))
        ]

    def _carry_out(self, cron_job: Manifest, plan: CronPlan) -> float | None:
        """Carry out the planned actions; return the seconds until the next sync."""
        namespace, name = cron_job["metadata"]["namespace"], cron_job["metadata"]["name"]
        for event in plan.events:
            self._record_event(cron_job, event)
        for job in plan.delete:
            with suppress(StatusError):
                self._registry.delete("Job", namespace, job)
                self._record_event(cron_job, EventRecord("SuccessfulDelete", f"Deleted job {job}"))
        status, refused = plan.status, False
        if plan.create:
            # the schedule time stays due while the Job cannot be created, so that it is retried
            refused = not self._create(cron_job, plan.create)
            if refused:
                status = {**status, "lastScheduleTime": (cron_job.get("status") or {}).get("lastScheduleTime")}
        status = {field: value for field, value in status.items() if value}
        with suppress(StatusError):
            self._registry.update(
                "CronJob", namespace, name, lambda current: current.__setitem__("status", status), subresource="status"
            )
        return earliest(RETRY_S if refused else None, plan.wait)

    def _create(self, cron_job: Manifest, job: Manifest) -> bool:
        namespace, name = cron_job["metadata"]["namespace"], job["metadata"]["name"]
        try:
            self._registry.create("Job", namespace, job)
        except StatusError as problem:
            if problem.reason == "AlreadyExists":
                return True
            self._record_event(cron_job, EventRecord("FailedCreate", f"Error creating job: {problem}", warning=True))
            return False
        self._record_event(cron_job, EventRecord("SuccessfulCreate", f"Created job {name}"))
        return True

    def _record_event(self, cron_job: Manifest, event: EventRecord) -> None:
        self._registry.record(cron_job, event.reason, event.message, warning=event.warning, component=NAME)
