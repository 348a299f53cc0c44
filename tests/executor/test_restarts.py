"""Real schedulers that are killed, on PostgreSQL: ``make chaos`` does the same with 200 tasks and three kills."""

from __future__ import annotations

import asyncio

import pytest
from benchmarks.chaos.restarts import killed, lab, two
from benchmarks.chaos.scenario import Row
from tests.databases import skip_without_postgresql


async def both() -> tuple[list[Row], list[Row]]:
    """Kill a scheduler that is alone, then one of two, in the same Airflow."""
    async with lab(tasks=12) as place:
        return await killed(place, 1, early=False), await two(place)


@pytest.mark.timeout(300)
def test_every_task_runs_exactly_once_while_schedulers_are_killed() -> None:
    skip_without_postgresql()
    for rows in asyncio.run(both()):
        assert [row for row in rows if not row.held] == []
