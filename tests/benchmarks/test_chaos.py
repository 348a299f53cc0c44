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
from benchmarks.chaos.scenario import Row, Scenario, Size, at_least, at_most, exactly, report

ROOT = Path(__file__).parents[2]
CHAOS = [sys.executable, "-m", "benchmarks.chaos"]
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


def test_goals_decide_and_say_what_they_are() -> None:
    rows = [exactly("lost", 1), exactly("ended", 40, 40), at_least("faults", 4, 5), at_most("longest", 0.25, 1)]
    assert [(row.goal, row.held) for row in rows] == [("0", False), ("40", True), ("≥ 5", False), ("≤ 1", True)]


def test_a_family_that_cannot_be_loaded_counts_as_missed() -> None:
    (outcome,) = run(["nonsense"], [], Size(short=True))
    assert not outcome.held
    assert "ModuleNotFoundError" in outcome.problem


def test_wrong_use_is_told() -> None:
    done = subprocess.run([*CHAOS, "nonsense"], cwd=ROOT, capture_output=True, text=True, timeout=25)
    assert (done.returncode, "nonsense" in done.stderr) == (2, True)


def test_interrupted_it_leaves_no_process_and_no_file() -> None:
    with tempfile.TemporaryDirectory(prefix="cw-") as folder:  # short: sockets are made in it
        command = [*CHAOS, "api", "--short", "--only", "silent-watch"]
        environment = {**os.environ, "TMPDIR": folder}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as chaos:
            assert chaos.stderr is not None
            assert chaos.stderr.readline() != ""
            assert servers(folder) != []
            chaos.send_signal(signal.SIGINT)
            assert chaos.wait(25) == 130
        assert servers(folder) == []
        assert [name for name in os.listdir(folder) if name.startswith("cw-")] == []


def servers(folder: str) -> list[str]:
    """Return the processes that work in a folder."""
    found = [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
    return [line for line in found if folder in line]


def test_names_are_unique() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert sorted(set(names)) == sorted(names)
