"""The families of scenarios, by the module that holds each."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from benchmarks.chaos.scenario import Scenario

__all__ = ["FAMILIES", "scenarios"]

FAMILIES: tuple[str, ...] = ("api", "credentials", "admission", "database", "forks", "restarts", "soak")
"""In the order of the table; each is a module beside this one."""


def scenarios(family: str) -> Sequence[Scenario]:
    """Return a family's scenarios. Imports Airflow: its configuration must be in the environment by then."""
    found: Sequence[Scenario] = import_module(f"benchmarks.chaos.{family}").SCENARIOS
    return found
