"""Checks of schedules that Airflow itself makes too late: when it stores a DAG, or when it schedules it. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache

__all__ = ["PRESETS", "check_schedule"]

PRESETS = {"@once", "@continuous", "@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly"}

_MAX_DESCRIPTION = 1000
"""Characters of Airflow's column ``dag.timetable_description``; PostgreSQL and MySQL refuse a longer text."""
_WORDS = (4, 7, 4, 11, 11)
"""Characters of one value in the description, by field: ``, 59``, ``, 23:00``, ``, 31``, ``, September``."""
_RANGE, _STEP = 25, 20
"""What a range (``through 59``) and a step (``every 15 minutes``) add at most."""

_RANDOM = re.compile(r"(?:^|[\s,])R", re.IGNORECASE)
"""The name of no month and of no day of the week begins with R."""


def check_schedule(text: str | None) -> str | None:
    """Return the schedule with single spaces, so that one schedule is one text: tasks are grouped by it.

    Raises ``ValueError`` for a text that is not a schedule.
    """
    text = None if text is None else " ".join(text.split())
    if text is not None and text not in PRESETS and (problem := _problem(text)):
        raise ValueError(problem)
    return text


@lru_cache(maxsize=1024)  # a schedule takes milliseconds, and many files have the same one
def _problem(text: str) -> str:
    """Return why a text is no cron expression that Airflow can store and run, or ""."""
    from croniter import (
        CroniterBadDateError,
        croniter,
    )  # slow to import; files without a cron expression do not need it

    if len(text.split()) != 5 or not croniter.is_valid(text):
        return "is neither a cron expression (five fields) nor a preset such as @daily"
    if _RANDOM.search(text):
        return "has R, a random value, which is another one in each process; write a number"
    try:
        croniter(text, datetime(2024, 1, 1)).get_next()
    except CroniterBadDateError:
        return "names a day that no month has, so that the task would never run"
    if _description_length(text) > _MAX_DESCRIPTION:
        return "has more values than Airflow can describe; write ranges and steps, such as 8-18 or */5"
    return ""


def _description_length(text: str) -> int:
    """Return how long Airflow's description of a cron expression is at most.

    Airflow describes an expression twice if it has days of the month and of the week, once with each.
    """
    fields = text.split()
    minute, hour, day, month, weekday = (_words(field, words) for field, words in zip(fields, _WORDS, strict=True))
    times = 1 if "*" in (fields[2], fields[4]) else 2
    return times * (100 + minute + hour + month) + day + weekday


def _words(field: str, words: int) -> int:
    return sum(words + _RANGE * ("-" in item) + _STEP * ("/" in item) for item in field.split(","))
