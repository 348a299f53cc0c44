"""How fast the pages in Airflow's UI answer.

A real API server with Crosswind's plug-in; 5,000 pods in flight of 40 DAGs; 20,000 rows of pods of the last day.

    python -m benchmarks pages [--database postgresql|sqlite]
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.chaos.scenario import Row, at_most
from benchmarks.executors import database
from benchmarks.metering import quantile
from tests.pages.rig import PagesServer, of_task

__all__ = ["measure", "rows"]

TAB_MS, FLEET_MS = 300.0, 1000.0
_DAGS, _PODS, _PAST, _ROUNDS = 40, 5_000, 20_000, 30

_PAGES: Mapping[str, tuple[str, Mapping[str, str], str, float]] = {
    "tab Pod": ("api/pod", of_task("extract"), "admin", TAB_MS),
    "tab Pod, three tries": ("api/pod", of_task("report"), "admin", TAB_MS),
    "tab Pod, pending": ("api/pod", of_task("load"), "admin", TAB_MS),
    "tab Pod as plain HTML, with its YAML": ("pod", of_task("report"), "admin", TAB_MS),
    "manifest of the tab": ("api/pod/manifest", of_task("extract"), "admin", TAB_MS),
    "fleet": ("api/fleet", {}, "admin", FLEET_MS),
    "fleet, filtered and sorted": ("api/fleet", {"queue": "gpu", "sort": "-reason"}, "admin", FLEET_MS),
    "fleet, searched": ("api/fleet", {"search": "load_7"}, "admin", FLEET_MS),
    "fleet, its last page": ("api/fleet", {"offset": "4950"}, "admin", FLEET_MS),
    "fleet, reader of one DAG": ("api/fleet", {}, "reader", FLEET_MS),
    "fleet as plain HTML": ("fleet", {}, "admin", FLEET_MS),
    "card of the dashboard": ("api/fleet/summary", {}, "admin", TAB_MS),
}


def measure(kind: str) -> dict[str, list[float]]:
    """Return the seconds of each page's answers, the first one included. ``kind``: postgresql or sqlite."""
    with tempfile.TemporaryDirectory(prefix="crosswind-pages-") as folder, database(kind, Path(folder)) as url:
        home = Path(folder) / "airflow"
        address = url if kind != "sqlite" else ""
        with PagesServer(home, dags=_DAGS, pods=_PODS, past=_PAST, database=address) as server:
            tokens = {user: server.token(user) for user in ("admin", "reader")}
            server.get("static/crosswind.js")
            return {name: [_seconds(server, name, tokens) for _ in range(_ROUNDS)] for name in _PAGES}


def _seconds(server: PagesServer, name: str, tokens: Mapping[str, str]) -> float:
    path, query, user, _ = _PAGES[name]
    began = time.perf_counter()
    status, body = server.get(path, tokens[user], **query)
    if status != 200:
        raise AssertionError(f"{path} answered {status}: {body[:300]}")
    return time.perf_counter() - began


def rows(times: Mapping[str, Sequence[float]]) -> list[Row]:
    """Return the 95th percentile of each page, with its goal."""
    return [
        at_most(f"{name}: p95, ms", quantile(times[name], 0.95) * 1000, goal) for name, (*_, goal) in _PAGES.items()
    ]
