"""Each fault in its short form: the same scenarios as ``make chaos``, with the same figures and goals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from benchmarks.chaos.__main__ import run
from benchmarks.chaos.databases import postgresql
from benchmarks.chaos.families import FAMILIES, scenarios
from benchmarks.chaos.scenario import Row, Scenario, ScenarioSize, at_least, at_most, exactly, report
from tests.databases import skip_without_postgresql

from deadlines import scaled

ROOT = Path(__file__).parents[2]
CHAOS = [sys.executable, "-m", "benchmarks.chaos"]
ELSEWHERE = {"losses", "restarts"}
"""With real schedulers: test_chaos_losses.py, tests/executor/test_restarts.py."""
SCENARIOS = [scenario for family in FAMILIES if family not in ELSEWHERE for scenario in scenarios(family)]


@pytest.fixture(scope="module")
def database() -> Iterator[None]:
    """One PostgreSQL for all."""
    skip_without_postgresql()
    with postgresql():
        yield


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_nothing_is_lost(scenario: Scenario) -> None:
    outcome = report(scenario, ScenarioSize(short=True))
    assert outcome.problem == ""
    assert [row for row in outcome.rows if not row.held] == []
    assert outcome.held


def test_a_scenario_that_fails_to_run_is_not_held() -> None:
    def fail(size: ScenarioSize) -> list[Row]:
        raise OSError("no room")

    outcome = report(Scenario("full-disk", "none", "", fail), ScenarioSize())
    assert (outcome.held, outcome.problem) == (False, "OSError: no room")


def test_a_scenario_without_figures_is_not_held() -> None:
    assert not report(Scenario("empty", "none", "", lambda size: []), ScenarioSize()).held


def test_a_report_holds_by_its_goals_and_names_them() -> None:
    rows = [exactly("lost", 1), exactly("ended", 40, 40), at_least("faults", 4, 5), at_most("longest", 0.25, 1)]
    assert [(row.goal, row.held) for row in rows] == [("0", False), ("40", True), ("≥ 5", False), ("≤ 1", True)]


def test_a_family_that_cannot_be_loaded_counts_as_missed() -> None:
    (outcome,) = run(["nonsense"], [], ScenarioSize(short=True))
    assert not outcome.held
    assert "ModuleNotFoundError" in outcome.problem


def test_wrong_use_is_reported() -> None:
    done = subprocess.run([*CHAOS, "nonsense"], cwd=ROOT, capture_output=True, text=True, timeout=scaled(25))
    assert (done.returncode, "nonsense" in done.stderr) == (2, True)


@pytest.mark.usefixtures("database")
def test_interrupted_it_leaves_no_process_and_no_file() -> None:
    with tempfile.TemporaryDirectory(prefix="cw-") as folder:  # short: sockets are made in it
        command = [*CHAOS, "api", "--short", "--only", "silent-watch"]
        environment = {**os.environ, "TMPDIR": folder}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as chaos:
            assert chaos.stderr is not None
            assert chaos.stderr.readline() != ""
            assert servers(folder) != []
            chaos.send_signal(signal.SIGINT)
            assert chaos.wait(scaled(25)) == 130
        assert servers(folder) == []
        assert [name for name in os.listdir(folder) if name.startswith("cw-")] == []


def servers(folder: str) -> list[str]:
    """Return the processes that work in a folder."""
    commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in commands if folder in line]


def test_names_are_unique() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert sorted(set(names)) == sorted(names)
