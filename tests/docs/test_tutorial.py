"""The tutorial, run as it is written: from a checkout to one's own DAG in pods, in ten minutes."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.docs.checkouts import copy_checkout
from tests.docs.pages import blocks

from deadlines import scaled

TUTORIAL = [block for block in blocks("bash") if block.name.startswith("docs/get-started/tutorial.md")]
TEN_MINUTES = 600.0
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    return copy_checkout(tmp_path / "crosswind")


class Terminal:
    """A command that stays running, and the lines that it prints."""

    def __init__(self, script: str, folder: Path, environment: dict[str, str]) -> None:
        self._lines: queue.Queue[str] = queue.Queue()
        self.process = subprocess.Popen(
            ["bash", "-euc", f"exec {script.strip()}"],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def until(self, pattern: str, seconds: float) -> re.Match[str]:
        """Return the first match in a line that is printed from now on."""
        end = time.monotonic() + scaled(seconds)
        while line := self._lines.get(timeout=max(0.1, end - time.monotonic())):
            print(line, end="")
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"it ended without {pattern!r}")

    def close(self) -> None:
        """Press Ctrl-C, and kill it if that does not end it."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(scaled(60))
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join()
            assert self.process.stdout is not None
            self.process.stdout.close()


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def fetch(url: str, token: str = "") -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(request, timeout=scaled(60)) as answer:
        return json.loads(answer.read())


def ended_run(url: str, token: str, dag: str) -> dict[str, Any]:
    """Return the first run of a DAG, once it has ended. A REST API gives no event to wait for."""
    end = time.monotonic() + scaled(300)
    while time.monotonic() < end:
        runs = fetch(f"{url}/api/v2/dags/{dag}/dagRuns", token)["dag_runs"]
        if runs and runs[0]["state"] in ("success", "failed"):
            return dict(runs[0])
        time.sleep(0.5)
    raise AssertionError(f"no run of {dag} has ended")


def test_the_tutorial_works_as_it_is_written(checkout: Path, terminals: list[Terminal], tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "MAKE", "MFLAGS"))}
    environment = kept | {"HOME": str(home), "COLUMNS": "120"}
    started = time.monotonic()
    for block in TUTORIAL:
        print(block.text)
        if "local airflow" in block.text:
            terminals.append(Terminal(block.text, checkout, environment))
            see_the_dag_run(terminals[-1])
            continue
        done = subprocess.run(
            ["bash", "-euc", block.text],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            timeout=scaled(240),
            check=False,
        )
        assert done.returncode == 0, f"{block.name}:\n{done.stdout}\n{done.stderr}"
        if "make demo" in block.text:
            assert re.search(r"task instances +11 of 11 succeeded", done.stdout)
            assert re.search(r"leaked pods +0", done.stdout)
        if "pods render" in block.text:
            assert "memory: 256Mi" in done.stdout
    assert terminals, "the tutorial starts no Airflow"
    assert (checkout / "my" / "manifests" / "scheduler" / "deployment.yaml").is_file()
    assert time.monotonic() - started < scaled(TEN_MINUTES)


def see_the_dag_run(terminal: Terminal) -> None:
    """Wait as the reader does, and look at what the tutorial promises: each task ran in a pod, and its log remains."""
    url = terminal.until(r"Airflow's UI +(http://localhost:\d+)$", 240)[1]
    terminal.until("1 new DAG: hello", 240)
    token = fetch(f"{url}/auth/token")["access_token"]
    run = ended_run(url, token, "hello")
    where = f"{url}/api/v2/dags/hello/dagRuns/{run['dag_run_id'].replace('+', '%2B')}/taskInstances"
    tasks = {task["task_id"]: task for task in fetch(where, token)["task_instances"]}
    assert run["state"] == "success", fetch(f"{where}/greet/logs/1?full_content=true", token)
    assert tasks.keys() == {"greet", "show"}
    log = json.dumps(fetch(f"{where}/show/logs/1?full_content=true", token))
    assert "hello from a pod" in log
