"""What a scenario of ``make chaos`` is, and what it reports. Values only.

A module with a family of scenarios lists them as ``SCENARIOS``; ``families.py`` names the modules. The same scenarios
run in full by ``make chaos`` and, shortened, as tests.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TypeVar

__all__ = ["Report", "Row", "Scenario", "Size", "at_least", "at_most", "exactly", "report"]

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Size:
    """How much a run does: in full, or ``short`` for the tests, where a scenario takes a few seconds."""

    short: bool = False

    def of(self, full: Value, short: Value) -> Value:
        """Return the one that fits."""
        return short if self.short else full


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of a scenario, and whether it is as promised. ``goal`` in words: "0", "≤ 1 s"."""

    figure: str
    value: float | str
    goal: str
    held: bool


def exactly(figure: str, value: float, goal: float = 0) -> Row:
    """A figure that must be this one."""
    return Row(figure, value, f"{goal:,g}", value == goal)


def at_least(figure: str, value: float, goal: float) -> Row:
    """A figure that must not be smaller: faults that were injected, above all, or nothing was shown."""
    return Row(figure, value, f"≥ {goal:,g}", value >= goal)


def at_most(figure: str, value: float, goal: float) -> Row:
    """A figure that must not be larger."""
    return Row(figure, round(value, 3), f"≤ {goal:,g}", value <= goal)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A kind of fault, and tasks that live through it.

    ``name``: lower case with hyphens, unique. ``family``: the module's, as the command line names it. ``does``: one
    sentence for the table. ``run``: puts up all that it needs, bounds each wait, leaves nothing behind, and returns its
    figures; what it raises counts as missed.
    """

    name: str
    family: str
    does: str
    run: Callable[[Size], Sequence[Row]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Report:
    """What a scenario came to. ``problem``: why it did not come to its end, or ""."""

    scenario: Scenario
    rows: Sequence[Row]
    seconds: float
    problem: str = ""

    @property
    def held(self) -> bool:
        """Whether it ran, reported something, and every figure is as promised."""
        return not self.problem and bool(self.rows) and all(row.held for row in self.rows)

    def as_json(self) -> dict[str, object]:
        """Return it for programs."""
        told = {"name": self.scenario.name, "family": self.scenario.family, "does": self.scenario.does}
        rows = [asdict(row) for row in self.rows]
        return {**told, "held": self.held, "seconds": round(self.seconds, 1), "problem": self.problem, "rows": rows}


def report(scenario: Scenario, size: Size) -> Report:
    """Run a scenario. One that fails to run is a report too, and not held."""
    begun = time.perf_counter()
    try:
        rows, problem = tuple(scenario.run(size)), ""
    except Exception as error:
        rows, problem = (), f"{type(error).__name__}: {error}"
    return Report(scenario, rows, time.perf_counter() - begun, problem)
