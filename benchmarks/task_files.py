"""How long Airflow needs to import a DAG of N queries: task files of ours, dag-factory and gusty.

python -m benchmarks.task_files [--tasks 1000 5000] [--runs 5]

Each tool gets the same graph and the same queries in the form that its own documentation shows: ours a folder of
three-line files with SQL files (edges found from the SQL), dag-factory one YAML file, gusty one YAML file per task (in
both, edges are written out by task id). Each run is a process of its own in which Airflow and the operator are imported
already, as they are in the DAG processor; the clock runs while ``DagBag`` imports the file. dag-factory and gusty are
measured where they are installed (``pip install dag-factory gusty``); they are not needed otherwise.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

TITLE = "Import of task files: seconds (of which CPU)"
BASH = "airflow.providers.standard.operators.bash.BashOperator"

MEASURE = """
import json, logging, sys, time
from pathlib import Path
logging.disable(logging.CRITICAL)
from airflow.dag_processing.dagbag import DagBag
import airflow.providers.standard.operators.bash, airflow.timetables.trigger
folder = Path(sys.argv[1])
begun, worked = time.perf_counter(), time.process_time()
bag = DagBag(folder / "dags", bundle_path=folder, bundle_name="bench")
seconds, cpu = time.perf_counter() - begun, time.process_time() - worked
edges = sum(len(task.upstream_task_ids) for dag in bag.dags.values() for task in dag.tasks)
count = sum(len(dag.tasks) for dag in bag.dags.values())
errors = list(bag.import_errors.values())
print(json.dumps({"seconds": seconds, "cpu": cpu, "tasks": count, "edges": edges, "errors": errors}))
"""


@dataclass(frozen=True)
class Query:
    """One task of the graph."""

    name: str
    before: tuple[str, ...]

    @property
    def sql(self) -> str:
        """A query of ordinary size: a CTE per table, joins, a group."""
        if not self.before:
            return f"CREATE TABLE {self.name} AS SELECT 1 AS id, 2 AS amount;\n"
        parts = ",\n".join(
            f"  {table}_day AS (SELECT id, amount FROM {table} WHERE day = CURRENT_DATE)" for table in self.before
        )
        joins = "\n".join(f"JOIN {table}_day USING (id)" for table in self.before[1:])
        first = self.before[0]
        return (
            f"INSERT INTO {self.name}\nWITH\n{parts}\nSELECT id, sum({first}_day.amount) AS amount\n"
            f"FROM {first}_day\n{joins}\nGROUP BY id;\n"
        )


def graph(count: int) -> list[Query]:
    """Return queries that each read up to three earlier tables, in layers of ten."""
    return [Query(f"table_{n}", tuple(f"table_{m}" for m in (n - 10, n - 13, n - 27) if m >= 0)) for n in range(count)]


def write_ours(folder: Path, queries: list[Query]) -> None:
    """Three-line files, a SQL file each, and a crosswind.yaml."""
    loader = '"""Airflow DAGs."""\nfrom crosswind.dags import load_tasks\nload_tasks("../files")\n'
    write(folder / "dags" / "loader.py", loader)
    run = {"operator": BASH, "arguments": {"bash_command": "run-sql", "env": {"QUERY": "${task.query}"}}}
    write(folder / "files" / "crosswind.yaml", json.dumps({"run": run}))
    for query in queries:
        tables = ", ".join(query.before)
        text = f"id: {query.name}\nquery: sql/{query.name}.sql\ntables: [{tables}]\n"
        write(folder / "files" / f"{query.name}.yaml", text)
        write(folder / "files" / "sql" / f"{query.name}.sql", query.sql)


def write_dag_factory(folder: Path, queries: list[Query]) -> None:
    """One YAML file with all tasks."""
    loader = (
        '"""Airflow DAGs."""\nfrom pathlib import Path\nfrom dagfactory import load_yaml_dags\n'
        'load_yaml_dags(globals_dict=globals(), config_filepath=str(Path(__file__).parent.parent / "files/dags.yml"))\n'
    )
    write(folder / "dags" / "loader.py", loader)
    lines = ["bench:", "  default_args: {owner: bench, start_date: '2024-01-01'}", "  schedule: '@daily'", "  tasks:"]
    for query in queries:
        lines += [f"  - task_id: {query.name}", f"    operator: {BASH}", "    bash_command: run-sql"]
        lines += [f"    env: {{QUERY: {json.dumps(query.sql)}}}"]
        lines += [f"    dependencies: [{', '.join(query.before)}]"] if query.before else []
    write(folder / "files" / "dags.yml", "\n".join(lines) + "\n")


def write_gusty(folder: Path, queries: list[Query]) -> None:
    """One YAML file for each task, and METADATA.yml."""
    loader = (
        '"""Airflow DAGs."""\nfrom pathlib import Path\nfrom gusty import create_dag\n'
        'dag = create_dag(str(Path(__file__).parent.parent / "files" / "bench"), latest_only=False)\n'
    )
    write(folder / "dags" / "loader.py", loader)
    metadata = "default_args:\n  owner: bench\n  start_date: '2024-01-01'\nschedule: '@daily'\n"
    write(folder / "files" / "bench" / "METADATA.yml", metadata)
    for query in queries:
        lines = [f"operator: {BASH}", "bash_command: run-sql", f"env: {{QUERY: {json.dumps(query.sql)}}}"]
        lines += ["dependencies:", *(f"  - {table}" for table in query.before)] if query.before else []
        write(folder / "files" / "bench" / f"{query.name}.yml", "\n".join(lines) + "\n")


def write(path: Path, text: str) -> None:
    """Write a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


TOOLS: dict[str, tuple[str, Callable[[Path, list[Query]], None]]] = {
    "crosswind": ("crosswind", write_ours),
    "dag-factory": ("dagfactory", write_dag_factory),
    "gusty": ("gusty", write_gusty),
}


def measure(folder: Path, cache: Path, expected: tuple[int, int]) -> tuple[float, float] | str:
    """Import the folder's DAG file in a new process; return seconds and CPU seconds, or why they do not count."""
    environment = os.environ | {
        "AIRFLOW_HOME": str(folder / "home"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
        "AIRFLOW__DAG_FACTORY__ENABLE_TELEMETRY": "false",
        "DO_NOT_TRACK": "1",
        "CROSSWIND_CACHE": str(cache),
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-c", MEASURE, str(folder)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    if ran.returncode:
        return (ran.stderr.strip().splitlines() or ["no word"])[-1]
    found = json.loads(ran.stdout.splitlines()[-1])
    if found["errors"]:
        return str(found["errors"][0]).strip().splitlines()[-1]
    if (found["tasks"], found["edges"]) != expected:
        return f"{found['tasks']} tasks and {found['edges']} edges, expected {expected[0]} and {expected[1]}"
    return float(found["seconds"]), float(found["cpu"])


def compare(count: int, runs: int, table: Table) -> None:
    """Add a row for each tool."""
    queries = graph(count)
    expected = len(queries), sum(len(query.before) for query in queries)
    for name, (module, write_files) in TOOLS.items():
        if importlib.util.find_spec(module) is None:
            table.add_row(name, str(count), "not installed", "")
            continue
        with tempfile.TemporaryDirectory(prefix="crosswind-bench-") as place:
            folder, cache = Path(place) / "bundle", Path(place) / "cache"
            write_files(folder, queries)
            times = [measure(folder, cache, expected) for _ in range(runs + 1)]
        wrong = [time for time in times if isinstance(time, str)]
        good = [time for time in times if not isinstance(time, str)]
        table.add_row(name, str(count), *([wrong[0], ""] if wrong else [told(good[:1]), told(good[1:])]))


def told(times: list[tuple[float, float]]) -> str:
    """Seconds on the clock, and in brackets those of the CPU, which other programs change less; medians."""
    wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
    return f"{wall:.2f} s ({cpu:.2f})"


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.task_files")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--runs", type=int, default=5, help="imports after the first; the median counts")
    options = parser.parse_args(arguments)
    table = Table("tool", "tasks", "first import", f"later ones, median of {options.runs}", title=TITLE)
    for count in options.tasks:
        compare(count, options.runs, table)
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
