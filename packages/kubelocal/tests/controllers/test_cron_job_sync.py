"""When a CronJob makes a Job, and what it makes of its Jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from kubelocal.controllers.cron_job_sync import CronPlan, decide_cron_job
from kubelocal.registry.cron_schedule import schedule_problem, zone_problem

NOW = datetime(2026, 3, 1, 12, 7, 30, tzinfo=UTC)
TEMPLATE = {"metadata": {"labels": {"app": "c"}, "annotations": {"a": "b"}}, "spec": {"template": {"spec": {}}}}


def cron(status: dict[str, Any] | None = None, made: str = "2026-03-01T12:00:00Z", **spec: Any) -> dict[str, Any]:
    metadata = {"name": "c", "namespace": "n", "uid": "u", "creationTimestamp": made}
    given = {"schedule": "*/5 * * * *", "concurrencyPolicy": "Allow", "jobTemplate": TEMPLATE, **spec}
    return {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": given, "status": status or {}}


def job(name: str, ended: str = "", start: str = "2026-03-01T12:00:00Z") -> dict[str, Any]:
    conditions = [{"type": ended, "status": "True"}] if ended else []
    status = {"conditions": conditions, "startTime": start, "completionTime": start}
    return {"metadata": {"name": name, "namespace": "n", "uid": f"uid-{name}"}, "status": status}


def decide(cron_job: dict[str, Any], *jobs: dict[str, Any], now: datetime = NOW) -> CronPlan:
    return decide_cron_job(cron_job, list(jobs), now)


def test_a_job_is_made_at_its_time_and_named_by_it() -> None:
    plan = decide(cron())
    assert plan.create is not None
    minutes = int(datetime(2026, 3, 1, 12, 5, tzinfo=UTC).timestamp()) // 60
    metadata = plan.create["metadata"]
    assert metadata["name"] == f"c-{minutes}"
    assert metadata["labels"] == {"app": "c"}
    assert metadata["annotations"] == {
        "a": "b",
        "batch.kubernetes.io/cronjob-scheduled-timestamp": "2026-03-01T12:05:00Z",
    }
    assert metadata["ownerReferences"][0]["uid"] == "u"
    assert plan.status["lastScheduleTime"] == "2026-03-01T12:05:00Z"
    assert plan.wait == 150


def test_no_job_is_made_twice_for_a_time_or_before_the_first() -> None:
    assert decide(cron({"lastScheduleTime": "2026-03-01T12:05:00Z"})).create is None
    assert decide(cron(made="2026-03-01T12:06:00Z")).create is None
    sharp = decide(cron(), now=datetime(2026, 3, 1, 12, 5, tzinfo=UTC))
    assert sharp.create is not None
    assert sharp.wait == 300


def test_of_many_missed_times_the_last_counts() -> None:
    plan = decide(cron(made="2026-02-01T00:00:00Z"))
    assert plan.status["lastScheduleTime"] == "2026-03-01T12:05:00Z"


def test_a_time_that_is_too_long_ago_is_missed() -> None:
    plan = decide(cron(startingDeadlineSeconds=60))
    assert (plan.create, plan.events[0].reason) == (None, "MissSchedule")
    assert decide(cron(startingDeadlineSeconds=200)).create is not None
    assert decide(cron(startingDeadlineSeconds=2**62)).create is not None


@pytest.mark.parametrize(
    ("policy", "makes", "deletes"), [("Allow", True, ()), ("Forbid", False, ()), ("Replace", True, ("before",))]
)
def test_the_concurrency_policy_holds(policy: str, makes: bool, deletes: tuple[str, ...]) -> None:
    plan = decide(cron(concurrencyPolicy=policy), job("before"))
    assert (plan.create is not None, plan.delete) == (makes, deletes)
    assert [one["name"] for one in plan.status["active"]] == ["before"]
    assert ("JobAlreadyActive" in [one.reason for one in plan.events]) is not makes


def test_suspended_and_deleted_ones_make_nothing() -> None:
    assert decide(cron(suspend=True)).create is None
    going = cron()
    going["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    assert decide(going).create is None


def test_ended_jobs_are_told_counted_and_tidied() -> None:
    known = {"active": [{"uid": "uid-c"}], "lastScheduleTime": "2026-03-01T12:05:00Z"}
    jobs = [job(name, "Complete", f"2026-03-01T1{i}:00:00Z") for i, name in enumerate("abc")]
    plan = decide(cron(known, successfulJobsHistoryLimit=2, failedJobsHistoryLimit=0), *jobs, job("f", "Failed"))
    assert plan.delete == ("a", "f")
    assert plan.status["lastSuccessfulTime"] == "2026-03-01T12:00:00Z"
    assert [one.message for one in plan.events] == ["Saw completed job: c, condition: Complete"]
    assert plan.status["active"] == []


def test_the_time_zone_is_the_schedules() -> None:
    plan = decide(cron(schedule="0 13 * * *", timeZone="Europe/Berlin"))
    assert plan.status["lastScheduleTime"] == "2026-03-01T12:00:00Z" if plan.create else plan.wait
    early = decide(cron(made="2026-03-01T00:00:00Z", schedule="0 13 * * *", timeZone="Europe/Berlin"))
    assert early.status["lastScheduleTime"] == "2026-03-01T12:00:00Z"


def test_a_date_that_never_comes_is_not_waited_for() -> None:
    plan = decide(cron(schedule="0 5 31 2 *"))
    assert (plan.create, plan.wait) == (None, None)


@pytest.mark.parametrize("schedule", ["*/5 * * * *", "0 0 * * MON-FRI", "@hourly", "@daily", "15,45 1-5 1 */2 *"])
def test_schedules_of_cron_are_read(schedule: str) -> None:
    assert schedule_problem(schedule) == ""


@pytest.mark.parametrize(
    "schedule", ["", "* * * *", "* * * * * *", "@never", "60 * * * *", "TZ=UTC * * * * *", "x", "9" * 5000]
)
def test_other_schedules_are_refused_with_a_reason(schedule: str) -> None:
    assert schedule_problem(schedule)


def test_a_wrong_schedule_is_named_as_kubernetes_names_it() -> None:
    assert schedule_problem("a b") == "expected exactly 5 fields, found 2: [a b]"


@pytest.mark.parametrize("zone", ["Europe/Berlin", "UTC", "Etc/UTC"])
def test_zones_are_known(zone: str) -> None:
    assert zone_problem(zone) == ""


@pytest.mark.parametrize("zone", ["Local", "Mars/Base", "../etc/passwd", "a\0b", "x" * 5000])
def test_unknown_zones_are_refused(zone: str) -> None:
    assert zone_problem(zone)
