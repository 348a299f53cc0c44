"""The next actions for a CronJob, as a pure function of the CronJob, its Jobs and the time.

Source: ``pkg/controller/cronjob`` of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from croniter import CroniterError, croniter

from kubelocal.controllers.job_sync import EventRecord
from kubelocal.controllers.replica_set_sync import owned
from kubelocal.types import Manifest

__all__ = ["CronPlan", "decide_cron_job"]

SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
MAX_WAIT_S = 3600.0  # a clock that is set or a night's sleep of the machine are noticed within the hour


@dataclass(frozen=True, slots=True)
class CronPlan:
    """What to do for a CronJob now.

    ``create``: the Job whose time has come. ``delete``: names of Jobs. ``wait``: seconds until the next time.
    """

    status: Manifest
    create: Manifest | None = None
    delete: tuple[str, ...] = ()
    events: tuple[EventRecord, ...] = ()
    wait: float | None = None


def decide_cron_job(cron_job: Manifest, jobs: list[Manifest], now: datetime) -> CronPlan:
    """Create the Job that is due, if its concurrency policy allows it, and delete old finished ones."""
    status = dict(cron_job.get("status") or {})
    active = [job for job in jobs if not _ended(job)]
    events = _note_ended(status, jobs)
    status["active"] = [_reference(job) for job in active]
    delete = tuple(_surplus(cron_job, jobs))
    if "deletionTimestamp" in cron_job["metadata"] or cron_job["spec"].get("suspend"):
        return CronPlan(status, delete=delete, events=events)
    try:
        due, following = _times(cron_job, now)
    except CroniterError:  # such as the 31st of February
        return CronPlan(status, delete=delete, events=events)
    plan = CronPlan(status, None, delete, events, min((following - now).total_seconds(), MAX_WAIT_S))
    return _started(cron_job, plan, active, due, now) if due else plan


def _started(cron_job: Manifest, plan: CronPlan, active: list[Manifest], due: datetime, now: datetime) -> CronPlan:
    """Add to a plan the Job of a time that has come, unless it is too late or its concurrency policy forbids it."""
    spec = cron_job["spec"]
    status, events, delete = plan.status, plan.events, plan.delete
    deadline, policy = spec.get("startingDeadlineSeconds"), spec.get("concurrencyPolicy")
    if deadline is not None and (now - due).total_seconds() > deadline:
        message = f"Missed scheduled time to start a job: {due.strftime('%a, %d %b %Y %H:%M:%S +0000')}"
        return CronPlan(status, None, delete, (*events, EventRecord("MissSchedule", message, warning=True)), plan.wait)
    new_job = _job(cron_job, due)
    if new_job["metadata"]["name"] in {job["metadata"]["name"] for job in active}:
        return plan
    if policy == "Forbid" and active:
        message = "Not starting job because prior execution is running and concurrency policy is Forbid"
        return CronPlan(status, None, delete, (*events, EventRecord("JobAlreadyActive", message)), plan.wait)
    replaced = tuple(job["metadata"]["name"] for job in active) if policy == "Replace" else ()
    status = {**status, "lastScheduleTime": _stamp(due)}
    return CronPlan(status, new_job, (*delete, *replaced), events, plan.wait)


def _times(cron_job: Manifest, now: datetime) -> tuple[datetime | None, datetime]:
    """Return the latest time that has come since the last Job, and the next one."""
    spec = cron_job["spec"]
    local = now.astimezone(ZoneInfo(spec.get("timeZone") or "UTC"))
    since = (cron_job.get("status") or {}).get("lastScheduleTime") or cron_job["metadata"]["creationTimestamp"]
    last = croniter(spec["schedule"], local + timedelta(microseconds=1)).get_prev(datetime)
    following = croniter(spec["schedule"], local).get_next(datetime)
    due = last if last > datetime.fromisoformat(since) else None
    return (due.astimezone(UTC) if due else None), following.astimezone(UTC)


def _job(cron_job: Manifest, due: datetime) -> Manifest:
    template, name = cron_job["spec"]["jobTemplate"], cron_job["metadata"]["name"]
    given = template.get("metadata") or {}
    metadata = {
        "name": f"{name}-{int(due.timestamp()) // 60}",
        "labels": dict(given.get("labels") or {}),
        "annotations": {**(given.get("annotations") or {}), SCHEDULED: _stamp(due)},
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": owned(cron_job, metadata), "spec": template["spec"]}


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ended(job: Manifest) -> str:
    """Return the type of the condition by which a Job ended, "" while it goes on."""
    conditions = job.get("status", {}).get("conditions") or ()
    return next(
        (
            condition["type"]
            for condition in conditions
            if condition["type"] in ("Complete", "Failed") and condition["status"] == "True"
        ),
        "",
    )


def _reference(job: Manifest) -> Manifest:
    metadata = job["metadata"]
    return {
        "kind": "Job",
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "apiVersion": "batch/v1",
        "resourceVersion": metadata.get("resourceVersion", ""),
    }


def _note_ended(status: Manifest, jobs: Iterable[Manifest]) -> tuple[EventRecord, ...]:
    """Record events for Jobs that finished since the last sync, and the time of the last success."""
    known = {reference.get("uid") for reference in status.get("active") or ()}
    events = []
    for job in jobs:
        how = _ended(job)
        if how and job["metadata"]["uid"] in known:
            message = f"Saw completed job: {job['metadata']['name']}, condition: {how}"
            events.append(EventRecord("SawCompletedJob", message))
        at = job.get("status", {}).get("completionTime", "")
        if how == "Complete" and at > status.get("lastSuccessfulTime", ""):
            status["lastSuccessfulTime"] = at
    return tuple(events)


def _surplus(cron_job: Manifest, jobs: list[Manifest]) -> list[str]:
    """Return the ended Jobs beyond those that are to be kept, the oldest of each outcome."""
    limits = (("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit"))
    names: list[str] = []
    for how, field in limits:
        limit = cron_job["spec"].get(field)
        ended = sorted((job for job in jobs if _ended(job) == how), key=_age)
        if limit is not None and len(ended) > limit:
            names += [job["metadata"]["name"] for job in ended[: len(ended) - limit]]
    return names


def _age(job: Manifest) -> tuple[str, str]:
    return job.get("status", {}).get("startTime", ""), job["metadata"]["name"]
