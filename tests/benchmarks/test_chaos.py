"""Each fault in its short form: the same scenarios as ``make chaos``, with the same figures and goals."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from benchmarks.chaos.databases import postgresql
from benchmarks.chaos.families import FAMILIES, scenarios
from benchmarks.chaos.scenario import Row, Scenario, Size, report

ELSEWHERE = {"restarts"}
"""With real schedulers: tests/executor/test_restarts.py."""
SCENARIOS = [scenario for family in FAMILIES if family not in ELSEWHERE for scenario in scenarios(family)]


@pytest.fixture(scope="module", autouse=True)
def database() -> Iterator[None]:
    """One PostgreSQL for all."""
    with postgresql():
        yield


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_nothing_is_lost(scenario: Scenario) -> None:
    outcome = report(scenario, Size(short=True))
    assert outcome.problem == ""
    assert [row for row in outcome.rows if not row.held] == []
    assert outcome.held


def test_a_scenario_that_fails_to_run_is_not_held() -> None:
    def fail(size: Size) -> list[Row]:
        raise OSError("no room")

    outcome = report(Scenario("full-disk", "none", "", fail), Size())
    assert (outcome.held, outcome.problem) == (False, "OSError: no room")


def test_a_scenario_without_figures_is_not_held() -> None:
    assert not report(Scenario("empty", "none", "", lambda size: []), Size()).held


def test_names_are_unique() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert sorted(set(names)) == sorted(names)
