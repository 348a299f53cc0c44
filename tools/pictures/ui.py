"""Screens of Airflow's UI: a real Airflow on this machine runs the demo's DAG, each task in a pod.

Tab and fleet show the rows of the tests of the pages in a real API server: no demo has 5,000 pods, or a lost node.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Page

from pictures.browser import open_browser

__all__ = ["draw"]

_LIMIT_S = 900.0
_SIZE = {"width": 1280, "height": 800}


class AirflowUi(NamedTuple):
    """Where a running Airflow is, and a token for its API."""

    url: str
    token: str

    def get(self, path: str) -> Any:
        """Return an answer of the REST API."""
        request = urllib.request.Request(  # noqa: S310 (an address that our own command printed)
            f"{self.url}/api/v2/{path}", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.loads(answer.read())


@contextmanager
def running_airflow(dags: Path) -> Iterator[AirflowUi]:
    """Run ``crosswind local airflow`` while the block lasts."""
    command = [sys.executable, "-m", "crosswind", "local", "airflow", str(dags), "--inject", "istio", "--unpaused"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        url = next(match[1] for line in process.stdout if (match := re.search(r"(http://localhost:\d+)$", line)))
        next(line for line in process.stdout if "new DAG" in line)
        with urllib.request.urlopen(f"{url}/auth/token", timeout=60) as answer:  # noqa: S310
            yield AirflowUi(url, json.loads(answer.read())["access_token"])
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


def draw(folder: Path, work: Path) -> list[Path]:
    """Write the pictures of the run and of a task's log, of the tab Pod and of the fleet."""
    demo = folder.parents[1] / "examples" / "demo" / "dags"
    with running_airflow(demo) as airflow, open_browser() as browser:
        place = f"{airflow.url}/dags/orders/runs/{_ended_run(airflow, 'orders')}"
        page = browser.new_page(viewport=_SIZE, color_scheme="light")
        shots = [
            _shot(page, place, folder / "run.png", "text=transform"),
            _shot(page, f"{place}/tasks/extract", folder / "log.png", "text=extract"),
        ]
    return shots + _pages(folder, work / "pages")  # after the first browser: Playwright allows one in a thread


def _pages(folder: Path, home: Path) -> list[Path]:
    sys.path.append(str(Path(__file__).parents[2]))
    from tests.pages.rig import RUN, PagesServer

    with PagesServer(home, dags=12, pods=5000, past=2000) as server, open_browser() as browser:
        context = browser.new_context(viewport={"width": 1280, "height": 980}, color_scheme="light")
        context.add_cookies([{"name": "_token", "value": server.token(), "url": server.url}])
        page = context.new_page()
        tab = f"{server.url}/dags/orders/runs/{RUN}/tasks/report/plugin/crosswind-pod"
        return [
            _shot(page, tab, folder / "pod-tab.png", ".cw-timeline"),
            _shot(page, f"{server.url}/plugin/crosswind-pods", folder / "fleet.png", ".cw tbody tr"),
        ]


def _ended_run(airflow: AirflowUi, dag: str) -> str:
    """Return the id of the DAG's run once it has ended; the REST API gives no event to wait for."""
    end = time.monotonic() + _LIMIT_S
    while time.monotonic() < end:
        runs = airflow.get(f"dags/{dag}/dagRuns")["dag_runs"]
        if runs and runs[0]["state"] in ("success", "failed"):
            return str(runs[0]["dag_run_id"])
        time.sleep(1)
    raise SystemExit(f"no run of {dag} ended within {_LIMIT_S:g} s")


def _shot(page: Page, url: str, target: Path, ready: str) -> Path:
    page.goto(url)
    page.locator(ready).first.wait_for(timeout=60_000)
    page.wait_for_load_state("networkidle")
    page.screenshot(path=target)
    return target
