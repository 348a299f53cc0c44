"""Hooks for the tests of both distributions."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import pytest

from deadlines import scaled

_REPORTS_COVERAGE = bool(os.environ.pop("COVERAGE_REPORT", ""))
"""Taken out of the environment: pytest that a test starts reports none."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Scale each test's own limit, like the deadlines inside it; several processes take the longest files first."""
    default = float(config.getini("timeout"))
    longest: defaultdict[Path, float] = defaultdict(float)
    for item in items:
        mark = item.get_closest_marker("timeout")
        limit = float(mark.args[0]) if mark else default
        longest[item.path] = max(longest[item.path], limit)
        item.add_marker(pytest.mark.timeout(scaled(limit)), append=False)
    if hasattr(config, "workerinput"):
        # --no-loadscope-reorder keeps this order. A file of minutes that started last would run alone at the end.
        # The sort is stable: files of one limit, and the tests of a file, stay in their random order.
        items.sort(key=lambda item: -longest[item.path])


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the coverage of all processes so far, where ``make test`` asks for it, above pytest's last line."""
    if not _REPORTS_COVERAGE:
        return
    with tempfile.TemporaryDirectory() as folder:
        coverage = [sys.executable, "-m", "coverage"]
        data = f"--data-file={folder}/.coverage"
        # The files stay for the gate, which also counts this process.
        made = subprocess.run([*coverage, "combine", "--quiet", "--keep", data, str(config.rootpath)], check=False)
        if made.returncode == 0:
            report = [*coverage, "report", data, "--fail-under=0"]
            table = subprocess.run(report, capture_output=True, text=True, check=False)
            terminalreporter.section("coverage")
            terminalreporter.write(table.stdout + table.stderr)
