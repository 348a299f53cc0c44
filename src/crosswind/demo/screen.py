"""What a person sees of the demo: a live table, or plain lines where there is no terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from crosswind.counting import counted
from crosswind.demo.summary import Stall, Summary
from crosswind.demo.timelines import Timeline, short_word, state_word
from crosswind.types import Json

__all__ = [
    "OTHER_LINES",
    "PlainLines",
    "pod_table",
    "result_table",
    "stall_text",
    "summary_table",
    "told",
    "visible",
]

COLOURS = {"Pending": "yellow", "Running": "cyan", "base": "magenta", "finished,": "green", "deleted": "dim"}
NARROW = 70
"""Columns below which the table stands closer."""
OTHER_LINES = 7
"""Lines of a live table beside its rows, and two above it that stay in sight."""
SPAN, STATE = 7, 9
"""Characters of a span of time, such as ``1234.5…``, and of the shortest state that is worth showing."""
WIDE = 100
"""Columns from which on a pod's state is told in full: what runs beside base, and why it waits."""


def pod_table(
    pods: Collection[Timeline], tasks: Sequence[Json], now: float, waits: str, width: int, rows: int | None = None
) -> RenderableType:
    """One row for each pod, oldest first; spans in seconds, a running one with an ellipsis.

    Of more than ``rows`` pods those that were deleted first are counted, not shown. Task, try and times are never cut:
    the pod's state gives way.
    """
    between = 2 if width >= NARROW else 1
    spans = ["pending", "running", "until gone" if width >= WIDE else "gone"]
    others = 3 + sum(max(SPAN, len(label)) for label in spans) + 5 * between
    task_width = min(max((len(pod.task) for pod in pods), default=4), max(13, width - others - STATE))
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, between, 0, 0), expand=False)
    table.add_column("task", no_wrap=True, min_width=task_width, max_width=task_width)
    table.add_column("try", justify="right", no_wrap=True, min_width=3)
    table.add_column("pod", no_wrap=True, overflow="ellipsis", max_width=max(4, width - others - task_width))
    for label in spans:
        table.add_column(label, justify="right", no_wrap=True, min_width=max(SPAN, len(label)))
    shown, hidden = visible(pods, rows)
    for pod in shown:
        word = state_word(pod) if width >= WIDE else short_word(pod)
        table.add_row(pod.task, pod.attempt, Text(word, COLOURS.get(word.split()[0], "")), *_spans(pod, now))
    below = [f"before them {counted(hidden, 'pod')}, deleted"] if hidden else []
    below += [_states(tasks), *([f"{now:.0f} s, waits for {waits}"] if waits else [])]
    return Group(table, *(Text(line) for line in below))


def visible(pods: Collection[Timeline], rows: int | None) -> tuple[list[Timeline], int]:
    """Return the pods to show, oldest first, and how many are left out: those that were deleted first."""
    ordered = sorted(pods, key=lambda pod: pod.created)
    surplus = 0 if rows is None else max(0, len(ordered) - rows)
    gone = sorted((pod for pod in ordered if pod.gone is not None), key=lambda pod: pod.gone or 0.0)
    left_out = {pod.uid for pod in gone[:surplus]}
    return [pod for pod in ordered if pod.uid not in left_out], len(left_out)


def told(now: float, task: str, attempt: str, text: str) -> str:
    """Return a line about one try of a task."""
    return f"{now:6.1f} s  {task:<14} try {attempt or '1'}  {text}"


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
        f"In {counted(len(stall.held), 'pod')} the base container has ended and {', '.join(stall.sidecars)} runs on. "
        "This executor looks at the pod's phase, which stays Running, so each such pod keeps one of the "
        f"{counted(parallelism, 'slot')} for ever, and none comes free for the "
        f"{counted(stall.unfinished, 'task instance')} still to run."
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
                lines.append(told(now, pod.task, pod.attempt, word))
        return lines
