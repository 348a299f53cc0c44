"""What a CronJob wants next, as a pure function of it, its Jobs and the time.

Source: ``pkg/controller/cronjob`` of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from croniter import CroniterError, croniter

from crosswind.local.job_plans import Happening
from crosswind.local.replica_plans import owned
from crosswind.types import Manifest

__all__ = ["CronPlan", "decide_cron_job", "schedule_problem", "zone_problem"]

SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
NICKNAMES = frozenset({"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"})
LONGEST_WAIT_S = 3600.0  # a clock that is set or a night's sleep of the machine are noticed within the hour


@dataclass(frozen=True, slots=True)
class CronPlan:
    """What to do for a CronJob now.

    ``create``: the Job whose time has come. ``delete``: names of Jobs. ``wait``: seconds until the next time.
    """

    status: Manifest
    create: Manifest | None = None
    delete: tuple[str, ...] = ()
    happenings: tuple[Happening, ...] = ()
    wait: float | None = None


def schedule_problem(schedule: str) -> str:
    """Return what is wrong with a schedule, "" for nothing."""
    if "TZ" in schedule:
        return "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
    if not schedule.startswith("@"):
        if (count := len(schedule.split())) != 5:
            return f"expected exactly 5 fields, found {count}: [{' '.join(schedule.split())}]"
    elif schedule not in NICKNAMES:
        return f"unrecognized descriptor: {schedule}"
    try:
        croniter(schedule, datetime(2026, 1, 1, tzinfo=UTC))
    except (CroniterError, ValueError, KeyError, OverflowError) as problem:
        return str(problem)
    return ""


def zone_problem(zone: str) -> str:
    """Return what is wrong with the name of a time zone, "" for nothing."""
    if zone.lower() == "local":
        return "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
    try:
        ZoneInfo(zone)
    except (LookupError, ValueError, OSError):
        return f"unknown time zone {zone}"
    return ""


def decide_cron_job(cron_job: Manifest, jobs: list[Manifest], now: datetime) -> CronPlan:
    """Make the Job whose time has come, as its concurrency policy allows, and tidy those that ended."""
    status = dict(cron_job.get("status") or {})
    active = [job for job in jobs if not _ended(job)]
    happenings = _note_ended(status, jobs)
    status["active"] = [_reference(job) for job in active]
    delete = tuple(_surplus(cron_job, jobs))
    if "deletionTimestamp" in cron_job["metadata"] or cron_job["spec"].get("suspend"):
        return CronPlan(status, delete=delete, happenings=happenings)
    try:
        due, following = _times(cron_job, now)
    except CroniterError:  # such as the 31st of February
        return CronPlan(status, delete=delete, happenings=happenings)
    plan = CronPlan(status, None, delete, happenings, min((following - now).total_seconds(), LONGEST_WAIT_S))
    return _started(cron_job, plan, active, due, now) if due else plan


def _started(cron_job: Manifest, plan: CronPlan, active: list[Manifest], due: datetime, now: datetime) -> CronPlan:
    """Add to a plan the Job of a time that has come, unless it is too late or others stand against it."""
    spec = cron_job["spec"]
    status, happenings, delete = plan.status, plan.happenings, plan.delete
    deadline, policy = spec.get("startingDeadlineSeconds"), spec.get("concurrencyPolicy")
    if deadline is not None and due + timedelta(seconds=deadline) < now:
        told = f"Missed scheduled time to start a job: {due.strftime('%a, %d %b %Y %H:%M:%S +0000')}"
        return CronPlan(status, None, delete, (*happenings, Happening("MissSchedule", told, warning=True)), plan.wait)
    made = _job(cron_job, due)
    if made["metadata"]["name"] in {job["metadata"]["name"] for job in active}:
        return plan
    if policy == "Forbid" and active:
        told = "Not starting job because prior execution is running and concurrency policy is Forbid"
        return CronPlan(status, None, delete, (*happenings, Happening("JobAlreadyActive", told)), plan.wait)
    replaced = tuple(job["metadata"]["name"] for job in active) if policy == "Replace" else ()
    status = {**status, "lastScheduleTime": _stamp(due)}
    return CronPlan(status, made, (*delete, *replaced), happenings, plan.wait)


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
        (one["type"] for one in conditions if one["type"] in ("Complete", "Failed") and one["status"] == "True"), ""
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


def _note_ended(status: Manifest, jobs: Iterable[Manifest]) -> tuple[Happening, ...]:
    """Tell of the Jobs that ended since the last look, and note when one last succeeded."""
    known = {reference.get("uid") for reference in status.get("active") or ()}
    happenings = []
    for job in jobs:
        how = _ended(job)
        if how and job["metadata"]["uid"] in known:
            told = f"Saw completed job: {job['metadata']['name']}, condition: {how}"
            happenings.append(Happening("SawCompletedJob", told))
        at = job.get("status", {}).get("completionTime", "")
        if how == "Complete" and at > status.get("lastSuccessfulTime", ""):
            status["lastSuccessfulTime"] = at
    return tuple(happenings)


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
