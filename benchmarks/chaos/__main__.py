"""``make chaos``: faults of every kind, and whether anything was lost.

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
from benchmarks.chaos.scenario import Report, Row, Scenario, Size, report
from rich.console import Console
from rich.table import Table

from benchmarks import tables

__all__ = ["main"]


def main() -> int:
    """Run what was asked for."""
    options = _options()
    with contextlib.ExitStack() as stack:
        stack.enter_context(_airflow_home())
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _interrupt)
        try:
            reports = run(options.families, options.only, Size(short=options.short))
        except KeyboardInterrupt:
            return 130
    if not reports:
        print(f"there is no scenario {', '.join(options.only)} among these families", file=sys.stderr)
        return 2
    show(reports, options.output)
    return 0 if all(one.held for one in reports) else 1


_interrupted = threading.Event()


def _interrupt(*_: object) -> None:
    """End soon: by an exception now, and where a destructor swallows that, after the scenario."""
    _interrupted.set()
    raise KeyboardInterrupt


def run(families: Sequence[str], only: Sequence[str], size: Size) -> list[Report]:
    """Run the scenarios of some families, or of these those with a name of ``only``, one after the other."""
    told = Console(stderr=True, highlight=False)
    reports = []
    with contextlib.ExitStack() as stack:
        for family in families:
            for scenario in _scenarios(family, stack):
                if not only or scenario.name in only:
                    told.print(f"{scenario.family}: {scenario.name} …")
                    reports.append(report(scenario, size))
                    if _interrupted.is_set():
                        raise KeyboardInterrupt
                    told.print(f"  {'held' if reports[-1].held else '[red]missed'}, {reports[-1].seconds:.1f} s")
    return reports


def _scenarios(family: str, stack: contextlib.ExitStack) -> Sequence[Scenario]:
    """Return a family's scenarios, with the database up; a family that cannot be loaded is one that cannot run."""
    try:
        found = scenarios(family)
        from benchmarks.chaos.databases import postgresql

        stack.enter_context(postgresql())
    except Exception as error:
        return [Scenario(family, family, "The whole family.", _failing(error))]
    return found


def _failing(error: Exception) -> Callable[[Size], Sequence[Row]]:
    def fail(size: Size) -> Sequence[Row]:
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
def _airflow_home() -> Iterator[None]:
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


def show(reports: Sequence[Report], output: str) -> None:
    """Print the reports: for people, for programs, or in short for the docs."""
    if output == "markdown":
        tables.show([_summary(reports)], "markdown")
        return
    if output == "json":
        print(json.dumps([one.as_json() for one in reports], indent=2, ensure_ascii=False))
        return
    console = Console(width=None if sys.stdout.isatty() else 130, highlight=False)
    console.print(_table(reports))
    held = sum(one.held for one in reports)
    console.print(f"{held} of {len(reports)} scenarios held", style="" if held == len(reports) else "red")


def _summary(reports: Sequence[Report]) -> tables.Table:
    """Return one line per scenario, with the figures that all should have."""
    figures = ("faults injected", "tasks that started", "tasks lost", "tasks run twice", "pods left", "Secrets left")
    lines = []
    for one in reports:
        found = {row.figure: f"{row.value:,}" for row in one.rows}
        held = f"{sum(row.held for row in one.rows)} of {len(one.rows)}" if one.rows else "did not run"
        told = [found.get(figure, "") for figure in figures]
        lines.append([f"{one.scenario.name}: {one.scenario.does}", *told, f"{one.seconds:.0f}", held])
    title = f"{sum(one.held for one in reports)} of {len(reports)} scenarios held; {tables.machine()}"
    return tables.Table(title, ("scenario", *figures, "seconds", "goals held"), lines)


def _table(reports: Sequence[Report]) -> Table:
    table = Table(header_style="bold", show_lines=False)
    for column in ("scenario", "figure"):
        table.add_column(column)
    for column in ("value", "goal", ""):
        table.add_column(column, justify="right")
    for one in reports:
        first = f"[bold]{one.scenario.name}[/] ({one.scenario.family}, {one.seconds:.0f} s)"
        lines = [first, one.scenario.does]
        if one.problem:
            table.add_row(first, f"did not run: {one.problem}", "", "", "[red]missed")
        for number, row in enumerate(one.rows):
            value = f"{row.value:,}" if isinstance(row.value, int | float) else row.value
            word = "held" if row.held else "[red]missed"
            table.add_row(lines[number] if number < 2 else "", row.figure, value, row.goal, word)
        table.add_section()
    return table


if __name__ == "__main__":
    sys.exit(main())
