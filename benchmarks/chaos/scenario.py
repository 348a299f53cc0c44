"""A scenario of ``make chaos``, and its report. Values only.

A module with a family of scenarios lists them as ``SCENARIOS``; ``families.py`` names the modules. The same scenarios
run in full by ``make chaos`` and, shortened, as tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeVar

__all__ = ["Row", "Scenario", "ScenarioReport", "ScenarioSize", "at_least", "at_most", "exactly", "report"]

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class ScenarioSize:
    """The size of a run: full, or ``short`` for the tests, where a scenario takes a few seconds."""

    short: bool = False

    def of(self, full: Value, short: Value) -> Value:
        """Return the value for this size."""
        return short if self.short else full


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of a scenario, and whether it reaches its goal. ``goal`` as text: "0", "≤ 1 s"."""

    figure: str
    value: float | str
    goal: str
    held: bool


def exactly(figure: str, value: float, goal: float = 0) -> Row:
    """Return a figure that must equal the goal."""
    return Row(figure, value, f"{goal:,g}", value == goal)


def at_least(figure: str, value: float, goal: float) -> Row:
    """Return a figure that must not be smaller than the goal, such as the number of injected faults."""
    return Row(figure, value, f"≥ {goal:,g}", value >= goal)


def at_most(figure: str, value: float, goal: float) -> Row:
    """Return a figure that must not be larger than the goal."""
    return Row(figure, round(value, 3), f"≤ {goal:,g}", value <= goal)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A kind of fault, and tasks that must survive it.

    ``name``: lower case with hyphens, unique. ``family``: the name of the module, as on the command line. ``does``: one
    sentence for the table. ``run``: starts everything that it needs, limits each wait, removes everything, and returns
    the figures; an exception counts as missed.
    """

    name: str
    family: str
    does: str
    run: Callable[[ScenarioSize], Sequence[Row]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ScenarioReport:
    """The result of a scenario. ``problem``: the error that ended it, or ""."""

    scenario: Scenario
    rows: Sequence[Row]
    seconds: float
    problem: str = ""

    @property
    def held(self) -> bool:
        """Whether it ran, returned figures, and all of them reach their goals."""
        return not self.problem and bool(self.rows) and all(row.held for row in self.rows)

    def as_json(self) -> dict[str, object]:
        """Return it for programs."""
        description = {"name": self.scenario.name, "family": self.scenario.family, "does": self.scenario.does}
        rows = [asdict(row) for row in self.rows]
        return {
            **description,
            "held": self.held,
            "seconds": round(self.seconds, 1),
            "problem": self.problem,
            "rows": rows,
        }


def report(scenario: Scenario, size: ScenarioSize) -> ScenarioReport:
    """Run a scenario. One that fails to run also returns a report, which does not hold."""
    begun = time.perf_counter()
    try:
        rows, problem = tuple(scenario.run(size)), ""
    except Exception as error:
        rows, problem = (), f"{type(error).__name__}: {error}"
    return ScenarioReport(scenario, rows, time.perf_counter() - begun, problem)
