"""What a person sees of the demo: a live table, or plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from crosswind.demo.summary import Stall, Summary
from crosswind.demo.timelines import Timeline, state_word
from crosswind.types import Json

__all__ = ["PlainLines", "pod_table", "result_table", "stall_text", "summary_table"]

COLOURS = {"Pending": "yellow", "Running": "cyan", "base": "magenta", "finished,": "green", "deleted": "dim"}


def pod_table(pods: Collection[Timeline], tasks: Sequence[Json], now: float, note: str = "") -> RenderableType:
    """One row for each pod, oldest first; spans in seconds, a running one with an ellipsis."""
    table = Table(title_justify="left", header_style="bold", expand=False)
    for column, justify in (("task", "left"), ("try", "right"), ("pod", "left")):
        table.add_column(column, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # a Literal
    for column in ("pending", "running", "until gone"):
        table.add_column(column, justify="right", no_wrap=True)
    for pod in sorted(pods, key=lambda pod: pod.created):
        word = state_word(pod)
        table.add_row(pod.task, pod.attempt, Text(word, COLOURS.get(word.split()[0], "")), *_spans(pod, now))
    return Group(table, Text(f"{_states(tasks)}{note}"))


def _spans(pod: Timeline, now: float) -> tuple[str, str, str]:
    return (
        _span(pod.created, pod.running, now),
        _span(pod.running, pod.base_done, now),
        _span(pod.base_done, pod.gone, now),
    )


def _span(begin: float | None, end: float | None, now: float) -> str:
    if begin is None:
        return ""
    return f"{end - begin:.1f}" if end is not None else f"{now - begin:.1f}…"


def _states(tasks: Sequence[Json]) -> str:
    counts: dict[str, int] = {}
    for task in tasks:
        state = task["state"] or "waiting"
        counts[state] = counts.get(state, 0) + 1
    return "Airflow's tasks: " + (
        ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none yet"
    )


def summary_table(summary: Summary) -> Table:
    """The run in figures."""
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "DAG": summary.dag_state,
        "task instances": f"{summary.succeeded} of {summary.tasks} succeeded",
        "pods": str(summary.pods),
        "leaked pods": str(len(summary.leaked)) + (f" ({', '.join(summary.leaked)})" if summary.leaked else ""),
        "queued → running, median": _seconds(summary.queued_to_running),
        "base done → pod gone, median": _seconds(summary.base_done_to_gone),
        "whole run": f"{summary.seconds:.0f} s",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _seconds(span: float | None) -> str:
    return "–" if span is None else f"{span:.2f} s"


def result_table(columns: Sequence[str], rows: Sequence[Sequence[Json]]) -> Table:
    """What the DAG found out."""
    table = Table(*columns, header_style="bold")
    for row in rows:
        table.add_row(*(f"{value:,.2f}" if isinstance(value, float) else str(value) for value in row))
    return table


def stall_text(stall: Stall, parallelism: int, dag_seconds: float) -> str:
    """Say why nothing moves, for people who have not met it before."""
    return (
        f"It stands still: nothing has changed for {stall.silent:.0f} s, {dag_seconds:.0f} s after the start.\n"
        f"In {len(stall.held)} pods the base container has ended and {', '.join(stall.sidecars)} runs on. "
        "This executor looks at the pod's phase, which stays Running, so each of these pods keeps one of the "
        f"{parallelism} slots for ever, and {stall.unfinished} task instances wait for a slot that never comes free."
    )


class PlainLines:
    """Turns timelines into lines, one for each change of a pod's state: for logs and pipes."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def news(self, pods: Collection[Timeline], now: float) -> list[str]:
        """Return a line for each pod whose state has another word than the last time."""
        lines = []
        for pod in sorted(pods, key=lambda pod: pod.created):
            word = state_word(pod)
            if self._told.get(pod.uid) != word:
                self._told[pod.uid] = word
                lines.append(f"{now:6.1f} s  {pod.task:<14} try {pod.attempt or '1'}  {word}")
        return lines
