"""The thirty task files of the examples, each in a pod of its own, under a real Airflow. Takes about a minute."""

from __future__ import annotations

import csv
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from crosswind.tasks import compile_folder
from deadlines import scaled

EXAMPLES = Path(__file__).parents[2] / "examples"
RATES = {"EUR": 1.0, "GBP": 1.16, "USD": 0.92, "CHF": 1.05, "SEK": 0.088}


def load_runner(home: Path, patch: pytest.MonkeyPatch) -> Any:
    """Return the example's own runner, at work in ``home``."""
    patch.setenv("SHOP_HOME", str(home))
    (home / "output").mkdir()
    (home / "data").symlink_to(EXAMPLES / "demo" / "data")
    spec = importlib.util.spec_from_file_location("run_query", EXAMPLES / "tasks" / "bin" / "run_query.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_here(home: Path, patch: pytest.MonkeyPatch) -> dict[str, tuple[int, str]]:
    """Run the queries one after the other in this process; return rows and digest of each table."""
    runner = load_runner(home, patch)
    (plan,) = compile_folder(EXAMPLES / "tasks" / "task_files", {}, None).dags
    waiting, results = {task.task_id: task for task in plan.tasks}, {}
    while waiting:
        task = next(task for task in waiting.values() if not waiting.keys() & set(task.upstream))
        query = task.arguments["env"]["QUERY"].replace("{{ dag.dag_id }}", "shop")
        result = runner.run(query, task.arguments["env"]["TABLE"])
        results[result["table"]] = (result["rows"], result["digest"])
        del waiting[task.task_id]
    return results


def test_the_queries_find_what_the_exports_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = run_here(tmp_path, monkeypatch)
    runner = load_sqlite(tmp_path / "output" / "shop.sqlite")
    orders = {}
    for file in sorted((EXAMPLES / "demo" / "data").glob("*.csv")):
        with file.open(newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if row["amount"][:1].isdigit()]
        orders |= {row["order_id"]: round(float(row["amount"]) * RATES[row["currency"]], 2) for row in rows}
    assert len(results) == 30
    assert runner("SELECT count(*) FROM orders") == len(orders)
    assert runner("SELECT sum(eur) FROM revenue_monthly") == pytest.approx(sum(orders.values()))
    assert runner("SELECT value FROM board_report WHERE what = 'revenue of shop'") == pytest.approx(
        sum(orders.values())
    )


def load_sqlite(path: Path) -> Any:
    import sqlite3
    from contextlib import closing

    def query_result(query: str) -> Any:
        with closing(sqlite3.connect(path)) as db:
            return db.execute(query).fetchone()[0]

    return query_result


@pytest.mark.timeout(300)
def test_pods_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    ran = subprocess.run(
        [sys.executable, "-m", "crosswind", "demo", "--tasks", "--parallelism", "6", "--time-limit", "270"],
        env=environment | {"TMPDIR": str(tmp_path), "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=scaled(290),
        check=False,
    )
    print(ran.stdout)
    assert ran.returncode == 0
    assert re.search(r"task instances +30 of 30 succeeded", ran.stdout)
    assert re.search(r"leaked pods +0\b", ran.stdout)
    rows = re.findall(r"│ (\w+) +│ (\d+) +│ (\w{12}) +│", ran.stdout)
    (tmp_path / "here").mkdir()
    assert {table: (int(count), digest) for table, count, digest in rows} == run_here(tmp_path / "here", monkeypatch)
