"""The tables that benchmarks print, for a terminal or as Markdown for the docs."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import psutil
import rich.table
from rich.console import Console

__all__ = ["ResultTable", "machine", "show", "show_progress"]


@dataclass
class ResultTable:
    """A table; the first column is for names, the others are figures."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)

    def as_rich(self) -> rich.table.Table:
        """Return it for a terminal."""
        table = rich.table.Table(title=self.title, title_justify="left", header_style="bold")
        for place, column in enumerate(self.columns):
            table.add_column(column, justify="right" if place else "left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def as_markdown(self) -> str:
        """Return it for the docs."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.title}\n"
        for row in (self.columns, ["---"] * len(self.columns), *self.rows):
            yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"


def show(tables: Sequence[ResultTable], output: str) -> None:
    """Print tables. ``output``: text or markdown."""
    console = Console(width=None if sys.stdout.isatty() else 170)
    for table in tables:
        if output == "markdown":
            print(table.as_markdown() + "\n", flush=True)
        else:
            console.print(table.as_rich())


def show_progress(what: str, done: int, of: int, every: int = 5) -> None:
    """Print a line to standard error at every ``every``-th part that is done, and at the last one."""
    if done % every == 0 or done == of:
        print(f"{what}: {done} of {of}", file=sys.stderr, flush=True)


def machine() -> str:
    """Return a description of this machine."""
    memory = psutil.virtual_memory().total / 2**30
    model = _model() or platform.machine()
    version = platform.python_version()
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {version}, {time.strftime('%Y-%m-%d')}"


def _model() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return ""
