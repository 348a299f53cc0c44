"""The time that Airflow needs to import a DAG of N queries: task files of ours, dag-factory and gusty.

python -m benchmarks.task_files [--tasks 1000 5000] [--runs 5] [--output text|markdown]

Each tool gets the same graph and the same queries in the form that its own documentation shows: ours a folder of
three-line files with SQL files (edges found from the SQL), dag-factory one YAML file, gusty one YAML file per task (in
both, edges are written out by task id). Each run is a process of its own in which Airflow and the operator are imported
already, as they are in the DAG processor; the clock runs while ``DagBag`` imports the file: the first time with an
empty cache, later with a full one, and after one query has changed, as git-sync brings it. The goals are for ours, a
millisecond a file each time; exit code 1 when one is missed. dag-factory and gusty are measured where they are
installed (``pip install dag-factory gusty``); they are not needed otherwise.
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

from benchmarks.chaos.scenario import Row, at_most
from benchmarks.tables import ResultTable, machine, show

TITLE = "Import of task files: seconds (of which CPU)"
OURS = "crosswind"
WORDS = {"first": "first import", "later": "later imports", "changed": "one query changed"}
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
        """A query of ordinary size: a CTE for each table, joins, a group."""
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
    """Write three-line files, a SQL file each, and a crosswind.yaml."""
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
    """Write one YAML file with all tasks."""
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
    """Write a YAML file for each task, and METADATA.yml."""
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
    OURS: ("crosswind", write_ours),
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
    results = json.loads(ran.stdout.splitlines()[-1])
    if results["errors"]:
        return str(results["errors"][0]).strip().splitlines()[-1]
    if (results["tasks"], results["edges"]) != expected:
        return f"{results['tasks']} tasks and {results['edges']} edges, expected {expected[0]} and {expected[1]}"
    return float(results["seconds"]), float(results["cpu"])


def compare(name: str, count: int, runs: int) -> tuple[list[str], list[Row]]:
    """Measure a tool; return its line of the table and, for ours, the figures with their goals."""
    queries = graph(count)
    expected = len(queries), sum(len(query.before) for query in queries)
    with tempfile.TemporaryDirectory(prefix="crosswind-bench-") as place:
        folder = Path(place) / "bundle"
        TOOLS[name][1](folder, queries)
        caches = [Path(place) / f"cache-{number}" for number in range(runs)]
        times = {"first": [measure(folder, cache, expected) for cache in caches]}
        times["later"] = [measure(folder, caches[0], expected) for _ in caches]
        if name == OURS:
            times["changed"] = [measure(changed(folder, queries, cache), cache, expected) for cache in caches]
    if wrong := next((time for column in times.values() for time in column if isinstance(time, str)), ""):
        return [name, f"{count:,}", wrong, "", ""], [Row(f"{count:,} files", wrong, "is measured", False)] * (
            name == OURS
        )
    medians = {which: median([time for time in column if not isinstance(time, str)]) for which, column in times.items()}
    line = [f"{wall:.2f} s ({cpu:.2f})" for wall, cpu in medians.values()]
    goals = [at_most(f"{count:,} files, {WORDS[which]}, s", wall, count / 1000) for which, (wall, _) in medians.items()]
    return [name, f"{count:,}", *line, *[""] * (len(WORDS) - len(line))], goals if name == OURS else []


def changed(folder: Path, queries: list[Query], cache: Path) -> Path:
    """Change one query, as a commit does that git-sync brings; each cache gets another text."""
    query = queries[-1]
    write(folder / "files" / "sql" / f"{query.name}.sql", f"-- {cache.name}\n{query.sql}")
    return folder


def median(times: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the median of the seconds on the clock, and of those of the CPU, which other programs change less."""
    wall, cpu = zip(*times, strict=True)
    return statistics.median(wall), statistics.median(cpu)


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.task_files")
    parser.add_argument("--tasks", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--runs", type=int, default=5, help="imports of each sort; the median counts")
    parser.add_argument("--output", choices=["text", "markdown"], default="text")
    options = parser.parse_args(arguments)
    here = [name for name, (module, _) in TOOLS.items() if importlib.util.find_spec(module)]
    parser_of_sql = "compiled" if importlib.util.find_spec("sqlglot.parser__mypyc") else "in plain Python"
    table = ResultTable(f"{TITLE}; sqlglot {parser_of_sql}; {machine()}", ["tool", "tasks", *WORDS.values()])
    goals = ResultTable("Goals", ["figure", "measured", "goal", "held"])
    missed = False
    for count in options.tasks:
        for name in here:
            line, rows = compare(name, count, options.runs)
            table.rows.append(line)
            goals.rows += [[row.figure, str(row.value), row.goal, "yes" if row.held else "NO"] for row in rows]
            missed |= not all(row.held for row in rows)
    show([table, goals], options.output)
    if absent := sorted(TOOLS.keys() - set(here)):
        print(f"not installed, so not measured: {', '.join(absent)} (pip install {' '.join(absent)})")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
