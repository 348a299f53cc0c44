"""``make chaos``: faults of every kind, and whether a task or a log was lost.

python -m benchmarks.chaos [FAMILY …] [--only NAME …] [--short] [--output table|json|markdown]

Exit code 0: every figure is as promised; 1: one is not, or a scenario did not run; 2: wrong use; 130: interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence

from benchmarks.chaos.families import FAMILIES, scenarios
from benchmarks.chaos.scenario import Row, Scenario, ScenarioReport, ScenarioSize, report
from rich.console import Console
from rich.table import Table

from benchmarks import tables

__all__ = ["airflow_home", "main"]


def main() -> int:
    """Run the named scenarios."""
    options = _options()
    with contextlib.ExitStack() as stack:
        stack.enter_context(airflow_home())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)
        try:
            reports = run(options.families, options.only, ScenarioSize(short=options.short))
        except KeyboardInterrupt:
            return 130
    if not reports:
        print(f"there is no scenario {', '.join(options.only)} among these families", file=sys.stderr)
        return 2
    show(reports, options.output)
    return 0 if all(each.held for each in reports) else 1


_interrupted = threading.Event()


def _interrupt(*_: object) -> None:
    """End by an exception now, or after the scenario if a destructor swallows the exception."""
    _interrupted.set()
    raise KeyboardInterrupt


def run(families: Sequence[str], only: Sequence[str], size: ScenarioSize) -> list[ScenarioReport]:
    """Run the scenarios of some families, or those of them that ``only`` names, one after the other."""
    progress = Console(stderr=True, highlight=False)
    reports = []
    with contextlib.ExitStack() as stack:
        for family in families:
            for scenario in _scenarios(family, stack):
                if not only or scenario.name in only:
                    progress.print(f"{scenario.family}: {scenario.name} …")
                    reports.append(report(scenario, size))
                    if _interrupted.is_set():
                        raise KeyboardInterrupt
                    progress.print(f"  {'held' if reports[-1].held else '[red]missed'}, {reports[-1].seconds:.1f} s")
    return reports


def _scenarios(family: str, stack: contextlib.ExitStack) -> Sequence[Scenario]:
    """Return a family's scenarios while the database runs; a family that fails to load becomes a failing scenario."""
    try:
        family_scenarios = scenarios(family)
        from benchmarks.chaos.databases import postgresql

        stack.enter_context(postgresql())
    except Exception as error:
        return [Scenario(family, family, "The whole family.", _failing(error))]
    return family_scenarios


def _failing(error: Exception) -> Callable[[ScenarioSize], Sequence[Row]]:
    def fail(size: ScenarioSize) -> Sequence[Row]:
        raise error

    return fail


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description="Inject faults, and count what was lost.")
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"any of {', '.join(FAMILIES)}; default: all")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="of these families, only these scenarios")
    parser.add_argument("--short", action="store_true", help="fewer tasks and faults, as the tests have it")
    parser.add_argument("--output", choices=["table", "json", "markdown"], default="table")
    options = parser.parse_args()
    options.families = options.families or list(FAMILIES)
    if unknown := sorted(set(options.families) - set(FAMILIES)):
        parser.error(f"there is no family {', '.join(unknown)}; there are {', '.join(FAMILIES)}")
    return options


@contextlib.contextmanager
def airflow_home() -> Iterator[None]:
    """Give this process an Airflow of its own, before anything imports it."""
    with tempfile.TemporaryDirectory(prefix="cw-chaos-") as home:
        for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
            del os.environ[name]
        os.environ |= {
            "AIRFLOW_HOME": home,
            "AIRFLOW__API_AUTH__JWT_SECRET": "chaos-" * 11,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",
        }
        yield


def show(reports: Sequence[ScenarioReport], output: str) -> None:
    """Print the reports as a table, as JSON, or as a summary for the docs."""
    if output == "markdown":
        tables.show([_summary(reports)], "markdown")
        return
    if output == "json":
        print(json.dumps([each.as_json() for each in reports], indent=2, ensure_ascii=False))
        return
    console = Console(width=None if sys.stdout.isatty() else 130, highlight=False)
    console.print(_table(reports))
    held = sum(each.held for each in reports)
    console.print(f"{held} of {len(reports)} scenarios held", style="" if held == len(reports) else "red")


def _summary(reports: Sequence[ScenarioReport]) -> tables.ResultTable:
    """Return a line for each scenario, with the figures that all of them report."""
    figures = ("faults injected", "tasks that started", "tasks lost", "tasks run twice", "pods left", "Secrets left")
    lines = []
    for each in reports:
        values = {row.figure: f"{row.value:,}" for row in each.rows}
        held = f"{sum(row.held for row in each.rows)} of {len(each.rows)}" if each.rows else "did not run"
        cells = [values.get(figure, "") for figure in figures]
        name = f"{each.scenario.name}: {each.scenario.does}"
        lines.append([name, *cells, f"{each.seconds:.0f}", held])
    title = f"{sum(each.held for each in reports)} of {len(reports)} scenarios held; {tables.machine()}"
    return tables.ResultTable(title, ("scenario", *figures, "seconds", "goals held"), lines)


def _table(reports: Sequence[ScenarioReport]) -> Table:
    table = Table(header_style="bold", show_lines=False)
    for column in ("scenario", "figure"):
        table.add_column(column)
    for column in ("value", "goal", ""):
        table.add_column(column, justify="right")
    for each in reports:
        first = f"[bold]{each.scenario.name}[/] ({each.scenario.family}, {each.seconds:.0f} s)"
        lines = [first, each.scenario.does]
        if each.problem:
            table.add_row(first, f"did not run: {each.problem}", "", "", "[red]missed")
        for number, row in enumerate(each.rows):
            value = f"{row.value:,}" if isinstance(row.value, int | float) else row.value
            word = "held" if row.held else "[red]missed"
            table.add_row(lines[number] if number < 2 else "", row.figure, value, row.goal, word)
        table.add_section()
    return table


if __name__ == "__main__":
    sys.exit(main())
