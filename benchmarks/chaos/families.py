"""The families of scenarios, each in a module of its name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from benchmarks.chaos.scenario import Scenario

__all__ = ["FAMILIES", "scenarios"]

FAMILIES: tuple[str, ...] = (
    *("api", "credentials", "admission", "database", "forks", "restarts", "warm", "losses", "soak"),
)
"""In the order of the table; each is a module beside this one."""


def scenarios(family: str) -> Sequence[Scenario]:
    """Return a family's scenarios. Imports Airflow, so that its configuration must be in the environment before."""
    family_scenarios: Sequence[Scenario] = import_module(f"benchmarks.chaos.{family}").SCENARIOS
    return family_scenarios
