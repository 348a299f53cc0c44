"""Checks of a CronJob's schedule and time zone."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from croniter import CroniterError, croniter

__all__ = ["schedule_problem", "zone_problem"]

NICKNAMES = frozenset({"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"})


def schedule_problem(schedule: str) -> str:
    """Return why a schedule is invalid, "" for a valid one."""
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
    """Return why the name of a time zone is invalid, "" for a valid one."""
    if zone.lower() == "local":
        return "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
    try:
        ZoneInfo(zone)
    except (LookupError, ValueError, OSError):
        return f"unknown time zone {zone}"
    return ""
