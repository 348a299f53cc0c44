"""The whole of it, as root, as an ordinary user and without namespaces. Each run takes a minute or two."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from tests.leftovers import left_behind

from deadlines import scaled
from ordinary_user import command_of_user, environment_of_user, users_home, why_not

DEMO = [sys.executable, "-m", "crosswind", "demo"]


def start(tmp_path: Path, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start the demo with a temporary folder of its own, so that what it leaves behind can be seen."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")} | {"TMPDIR": str(tmp_path)}
    return subprocess.Popen(
        [*before, *DEMO, *arguments],
        env=environment | {"COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def home() -> Iterator[Path]:
    with users_home() as folder:
        yield folder


def demo_of(who: str, home: Path) -> subprocess.Popen[str]:
    """Start the demo as one of those for whom it must work; skip, with the reason, those whom this machine lacks."""
    command, environment = [*DEMO, "--time-limit", "540"], environment_of_user(home)
    if who == "an ordinary user":
        if reason := why_not():
            pytest.skip(f"no ordinary user here: {reason}")
        command = command_of_user(command)
    if who == "no namespaces":
        command += ["--sandbox", "none"]
    return subprocess.Popen(
        command,
        env=environment | {"COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def check_summary(output: str) -> None:
    """Every task ran in a pod of its own, and no pod is left."""
    assert "base done, istio-proxy still running" in output
    assert re.search(r"check +try 1  RuntimeError: this check fails on its first try on purpose", output)
    assert re.search(r"DAG +success", output)
    assert re.search(r"task instances +11 of 11 succeeded", output)
    assert re.search(r"pods +12\b", output), "eleven task instances, one of them tried twice"
    assert re.search(r"leaked pods +0\b", output)
    assert "2026-06" in output


@pytest.mark.timeout(600)
@pytest.mark.parametrize("who", ["an ordinary user", "no namespaces"])  # this user: below
def test_every_task_runs_in_a_pod_and_nothing_is_left(home: Path, who: str) -> None:
    demo = demo_of(who, home)
    output, _ = demo.communicate(timeout=scaled(580))
    print(output)
    assert demo.returncode == 0
    check_summary(output)
    assert left_behind(home) == []
    assert [entry.name for entry in home.iterdir() if entry.name.startswith("crosswind")] == []


@pytest.mark.timeout(300)
def test_a_pod_that_cannot_start_is_explained_at_once(tmp_path):
    demo = start(tmp_path, "--image", "registry.example.com/nothing:1")
    output, _ = demo.communicate(timeout=scaled(280))
    print(output)
    assert demo.returncode == 1
    assert re.search(r"extract +try 1  image 'registry.example.com/nothing:1' .* cannot be pulled", output)
    assert re.search(r"DAG +failed", output)
    assert left_behind(tmp_path) == []


@pytest.mark.timeout(300)
def test_stock_stands_still_and_the_output_says_why(tmp_path):
    demo = start(tmp_path, "--executor", "stock", "--time-limit", "240")
    output, _ = demo.communicate(timeout=scaled(280))
    print(output)
    assert demo.returncode == 1
    assert "The run has stalled" in output
    assert re.search(r"leaked pods +4\b", output)
    assert left_behind(tmp_path) == []


@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])  # TERM: below
def test_an_interrupt_in_mid_run_leaves_nothing(tmp_path, number):
    with start(tmp_path) as demo:
        assert demo.stdout is not None
        assert any("Running" in line for line in demo.stdout), "a pod runs before the demo ends"
        demo.send_signal(number)
        demo.communicate(timeout=scaled(60))
    assert demo.returncode == 130
    assert left_behind(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


IN_BACKGROUND = '"$@" & pid=$!; echo "pid $pid"; wait $pid; echo "ended $?"'


@pytest.mark.timeout(180)
def test_a_term_ends_what_a_script_started_in_the_background(tmp_path):
    with start(tmp_path, before=("sh", "-c", IN_BACKGROUND, "sh")) as script:
        assert script.stdout is not None
        pid = int(script.stdout.readline().split()[1])
        assert any("Running" in line for line in script.stdout)
        os.kill(pid, signal.SIGINT)  # the shell has it ignored
        os.kill(pid, signal.SIGTERM)
        output, _ = script.communicate(timeout=scaled(60))
    assert "ended 130" in output
    assert left_behind(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(600)
async def test_a_kept_demo_serves_a_healthy_ui_at_localhost_until_it_is_ended(tmp_path):
    demo = await asyncio.to_thread(start, tmp_path, "--keep")
    assert demo.stdout is not None
    lines = []
    while "Press Ctrl-C to stop everything" not in (line := await asyncio.to_thread(demo.stdout.readline)):
        assert line, lines
        lines.append(line.strip())
    check_summary("\n".join(lines))
    (url,) = [line.split()[-1] for line in lines if line.startswith("Airflow's UI: ")]
    (kubeconfig,) = [line.split("KUBECONFIG=")[1] for line in lines if "export KUBECONFIG=" in line]
    assert url.startswith("http://localhost:")
    assert Path(kubeconfig).is_file()
    async with aiohttp.ClientSession() as session:
        async with session.get(url + "/api/v2/monitor/health") as answer:
            health = await answer.json()
        async with session.get(url + "/") as answer:
            assert answer.status == 200
            assert "<html" in await answer.text()
    assert {name: part["status"] for name, part in health.items()} == dict.fromkeys(
        ["metadatabase", "scheduler", "triggerer", "dag_processor"], "healthy"
    )
    demo.send_signal(signal.SIGTERM)
    await asyncio.to_thread(demo.communicate, timeout=scaled(60))
    assert demo.returncode == 0
    assert left_behind(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_context_needs_an_image_and_an_address(tmp_path):
    demo = start(tmp_path, "--context", "somewhere")
    output, _ = demo.communicate(timeout=scaled(25))
    assert demo.returncode == 2
    assert "--image" in output
    assert "--host" in output
