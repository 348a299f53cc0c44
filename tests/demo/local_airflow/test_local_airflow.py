"""``crosswind local airflow``, as a user runs it. Each run takes a minute or two."""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
from tests.leftovers import left_behind

from deadlines import scaled
from ordinary_user import command_of_user, environment_of_user, users_home, why_not

EXAMPLE = Path(__file__).parents[3] / "examples" / "demo"
NEW_DAG = """
from airflow.sdk import dag, task

@dag(schedule=None, is_paused_upon_creation=False)
def arrived_later():
    @task
    def say():
        return "here"

    say()

arrived_later()
"""


class LocalAirflow:
    """The command at work, and what a user sees of it."""

    def __init__(self, home: Path, command: list[str]) -> None:
        self.dags, self.folder = home / "demo" / "dags", home / "empty"
        self._output: queue.Queue[str] = queue.Queue()
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment_of_user(home) | {"COLUMNS": "120"},
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
            self._output.put(line)
        self._output.put("")

    def close(self) -> None:
        """End it, if a test failed on the way."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def until(self, pattern: str, seconds: float = 240) -> re.Match[str]:
        """Return the first match in a line that is printed from now on."""
        end = time.monotonic() + scaled(seconds)
        while line := self._output.get(timeout=max(0.1, end - time.monotonic())):
            self.lines.append(line)
            print(line, end="")
            if match := re.search(pattern, line):
                return match
        raise AssertionError(f"it ended without {pattern!r}")

    def ask(self, url: str, token: str = "", method: str = "GET", body: Any = None) -> Any:
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, method=method, data=data, headers=headers)
        with urllib.request.urlopen(request, timeout=scaled(60)) as answer:
            text = answer.read().decode()
        return json.loads(text) if text.startswith(("{", "[")) else text

    def ended_run(self, url: str, token: str, dag: str) -> dict[str, Any]:
        """Return the newest run of a DAG, once it has ended."""
        end = time.monotonic() + scaled(300)
        while time.monotonic() < end:
            runs = self.ask(f"{url}/api/v2/dags/{dag}/dagRuns", token)["dag_runs"]
            if runs and runs[-1]["state"] in ("success", "failed"):
                return dict(runs[-1])
            time.sleep(0.5)  # there is nothing to wait on over a REST API
        raise AssertionError(f"no run of {dag} has ended")


@contextmanager
def home_of(who: str) -> Iterator[Path]:
    """Make a folder with the demo's DAGs and an empty one to start in, which belong to whoever starts."""
    with users_home() if who == "an ordinary user" else TemporaryDirectory(prefix="crosswind-home-") as made:
        home = Path(made)
        shutil.copytree(EXAMPLE, home / "demo", ignore=shutil.ignore_patterns("__pycache__"))
        (home / "empty").mkdir()
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", f"--reference={home}", home], check=True, timeout=scaled(20))
        yield home


COMMAND = [sys.executable, "-m", "crosswind", "local", "airflow"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("who", ["in pods, with a mesh", "an ordinary user"])
def test_ones_own_dags_run_and_ctrl_c_leaves_nothing(who: str) -> None:
    with home_of(who) as home:
        run_dags(home, who)


def run_dags(home: Path, who: str) -> None:
    command = [*COMMAND, str(home / "demo" / "dags")]
    if who == "an ordinary user":
        if reason := why_not():
            pytest.skip(f"no ordinary user here: {reason}")
        command = command_of_user(command)
    elif os.geteuid():
        pytest.skip("pods with a network of their own need root")
    else:
        command += ["--inject", "istio"]
    airflow = LocalAirflow(home, command)
    try:
        url, token = see_it_come_up(airflow, in_pods="pods" in who)
        run = airflow.ended_run(url, token, "orders")
        assert run["state"] == "success"
        tasks = airflow.ask(f"{url}/api/v2/dags/orders/dagRuns/{run['dag_run_id']}/taskInstances", token)
        assert len(tasks["task_instances"]) == 11
        change_the_dags(airflow, url, token)
        children = psutil.Process(airflow.process.pid).children(recursive=True)
        airflow.process.send_signal(signal.SIGINT)
        assert airflow.process.wait(scaled(60)) == 0
    finally:
        airflow.close()
    assert [process for process in children if process.is_running() and process.status() != "zombie"] == []
    assert left_behind(home) == []
    assert list((home / "empty").iterdir()) == []
    assert [entry.name for entry in home.iterdir() if entry.name.startswith("crosswind")] == []


def see_it_come_up(airflow: LocalAirflow, *, in_pods: bool) -> tuple[str, str]:
    """Return the address of the UI, and a token."""
    airflow.until("PostgreSQL runs|SQLite is the database")
    airflow.until("starts in pods" if in_pods else "tasks run in pods")
    url = airflow.until(r"Airflow's UI +(http://localhost:\d+)$")[1]
    assert Path(airflow.until("export KUBECONFIG=(.+)")[1]).is_file()
    airflow.until("1 new DAG: orders")
    assert "<html" in airflow.ask(url)
    health = airflow.ask(f"{url}/api/v2/monitor/health")
    assert {part["status"] for part in health.values()} == {"healthy"}
    return url, airflow.ask(f"{url}/auth/token")["access_token"]


def change_the_dags(airflow: LocalAirflow, url: str, token: str) -> None:
    """Add a DAG file, run it, break it."""
    (airflow.dags / "later.py").write_text(NEW_DAG)
    airflow.until("1 new DAG: arrived_later", 60)
    airflow.ask(f"{url}/api/v2/dags/arrived_later/dagRuns", token, "POST", {"logical_date": None})
    assert airflow.ended_run(url, token, "arrived_later")["state"] == "success"
    (airflow.dags / "later.py").write_text("from airflow.sdk import dag\nimport nothing_of_that_name\n")
    airflow.until("later.py cannot be parsed: ModuleNotFoundError: No module named 'nothing_of_that_name'", 60)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["nowhere"], "there is no folder nowhere"),
        (["file.py"], "file.py is a file"),
        ([".", "--port", "PORT"], "cannot serve the UI at port"),
        ([".", "--inject", "nothing"], "istio"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(tmp_path: Path, given: list[str], words: str) -> None:
    (tmp_path / "file.py").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [*COMMAND, *(port if one == "PORT" else one for one in given)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=scaled(28))
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
