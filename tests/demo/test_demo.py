"""The whole of it, as a user runs it. Each run takes about a minute."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

DEMO = [sys.executable, "-m", "crosswind", "demo"]


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the demo with a temporary folder of its own, so that what it leaves behind can be seen."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")} | {"TMPDIR": str(tmp_path)}
    return subprocess.Popen(
        [*DEMO, *arguments],
        env=environment | {"COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left_behind(tmp_path: Path) -> list[str]:
    """Processes that know our temporary folder, by command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(tmp_path) in text for text in told):
            found.append(" ".join(process.cmdline()))
    return found


@pytest.mark.timeout(300)
def test_every_task_runs_in_a_pod_and_nothing_is_left(tmp_path):
    output, _ = start(tmp_path, "--time-limit", "240").communicate(timeout=280)
    print(output)
    assert "base done, istio-proxy still running" in output
    assert re.search(r"DAG +success", output)
    assert re.search(r"task instances +11 of 11 succeeded", output)
    assert re.search(r"pods +12\b", output), "eleven task instances, one of them tried twice"
    assert re.search(r"leaked pods +0\b", output)
    assert "2026-06" in output
    assert left_behind(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(300)
def test_stock_stands_still_and_the_output_says_why(tmp_path):
    demo = start(tmp_path, "--executor", "stock", "--time-limit", "240")
    output, _ = demo.communicate(timeout=280)
    print(output)
    assert demo.returncode == 1
    assert "It stands still" in output
    assert re.search(r"leaked pods +4\b", output)
    assert left_behind(tmp_path) == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_in_mid_run_leaves_nothing(tmp_path, number):
    with start(tmp_path) as demo:
        assert demo.stdout is not None
        assert any("Running" in line for line in demo.stdout), "a pod runs before the demo ends"
        demo.send_signal(number)
        demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert left_behind(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_context_needs_an_image_and_an_address(tmp_path):
    demo = start(tmp_path, "--context", "somewhere")
    output, _ = demo.communicate(timeout=25)
    assert demo.returncode == 2
    assert "--image" in output
    assert "--host" in output
