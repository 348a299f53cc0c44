"""Formats the demo's output: a live table, or plain lines without a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from crosswind.demo.summary import Stall, Summary
from crosswind.demo.timelines import PodTimeline, short_word, state_word
from crosswind.errors import counted
from crosswind.types import Json

__all__ = [
    "OTHER_LINES",
    "PlainLines",
    "event_line",
    "pod_table",
    "result_table",
    "stall_text",
    "summary_table",
    "visible",
]

COLOURS = {"Pending": "yellow", "Running": "cyan", "base": "magenta", "finished,": "green", "deleted": "dim"}
NARROW_WIDTH = 70
"""Terminals with fewer columns get less space between the columns."""
OTHER_LINES = 7
"""Lines of the live table besides its rows, and two lines above it that stay visible."""
DURATION_WIDTH, MIN_STATE_WIDTH = 7, 9
"""Characters of a duration, such as ``1234.5…``, and of the shortest useful state."""
WIDE_WIDTH = 100
"""Terminals with as many columns show the full state of a pod: its running sidecars, and why it waits."""


def pod_table(
    pods: Collection[PodTimeline], tasks: Sequence[Json], now: float, waits: str, width: int, rows: int | None = None
) -> RenderableType:
    """Return a table with a row per pod, oldest first. Durations in seconds, with an ellipsis while they grow.

    Of more than ``rows`` pods, those that were deleted first are only counted. Task, try and durations are never
    truncated; the pod's state is.
    """
    gap = 2 if width >= NARROW_WIDTH else 1
    duration_labels = ["pending", "running", "until gone" if width >= WIDE_WIDTH else "gone"]
    other_width = 3 + sum(max(DURATION_WIDTH, len(label)) for label in duration_labels) + 5 * gap
    task_width = min(max((len(pod.task) for pod in pods), default=4), max(13, width - other_width - MIN_STATE_WIDTH))
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, gap, 0, 0), expand=False)
    table.add_column("task", no_wrap=True, min_width=task_width, max_width=task_width)
    table.add_column("try", justify="right", no_wrap=True, min_width=3)
    table.add_column("pod", no_wrap=True, overflow="ellipsis", max_width=max(4, width - other_width - task_width))
    for label in duration_labels:
        table.add_column(label, justify="right", no_wrap=True, min_width=max(DURATION_WIDTH, len(label)))
    shown, hidden = visible(pods, rows)
    for pod in shown:
        state = state_word(pod) if width >= WIDE_WIDTH else short_word(pod)
        table.add_row(pod.task, pod.attempt, Text(state, COLOURS.get(state.split()[0], "")), *_durations(pod, now))
    footer = [f"before them {counted(hidden, 'pod')}, deleted"] if hidden else []
    footer += [_task_states(tasks), *([f"{now:.0f} s, waits for {waits}"] if waits else [])]
    return Group(table, *(Text(line) for line in footer))


def visible(pods: Collection[PodTimeline], rows: int | None) -> tuple[list[PodTimeline], int]:
    """Return the pods to show, oldest first, and the number of hidden ones: those that were deleted first."""
    ordered = sorted(pods, key=lambda pod: pod.created)
    surplus = 0 if rows is None else max(0, len(ordered) - rows)
    gone = sorted((pod for pod in ordered if pod.gone is not None), key=lambda pod: pod.gone or 0.0)
    hidden = {pod.uid for pod in gone[:surplus]}
    return [pod for pod in ordered if pod.uid not in hidden], len(hidden)


def event_line(now: float, task: str, attempt: str, text: str) -> str:
    """Return a line about a try of a task."""
    return f"{now:6.1f} s  {task:<14} try {attempt or '1'}  {text}"


def _durations(pod: PodTimeline, now: float) -> tuple[str, str, str]:
    return (
        _duration(pod.created, pod.running, now),
        _duration(pod.running, pod.base_done, now),
        _duration(pod.base_done, pod.gone, now),
    )


def _duration(begin: float | None, end: float | None, now: float) -> str:
    if begin is None:
        return ""
    return f"{end - begin:.1f}" if end is not None else f"{now - begin:.1f}…"


def _task_states(tasks: Sequence[Json]) -> str:
    counts: dict[str, int] = {}
    for task in tasks:
        state = task["state"] or "waiting"
        counts[state] = counts.get(state, 0) + 1
    return "Airflow's tasks: " + (
        ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none yet"
    )


def summary_table(summary: Summary) -> Table:
    """Return the figures of the run."""
    table = Table(show_header=False, box=None, pad_edge=False)
    rows = {
        "DAG": summary.dag_state,
        "task instances": f"{summary.succeeded} of {summary.tasks} succeeded",
        "pods": str(summary.pods),
        "leaked pods": str(len(summary.leaked)) + (f" ({', '.join(summary.leaked)})" if summary.leaked else ""),
        **_starts(summary),
        "base done → pod gone, median": _seconds(summary.base_done_to_gone),
        "whole run": f"{summary.seconds:.0f} s",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _starts(summary: Summary) -> dict[str, str]:
    """Return the rows about the tasks' starts: with warm pods, theirs and the others' side by side."""
    if summary.warm_queued_to_running is None:
        return {"queued → running, median": _seconds(summary.queued_to_running)}
    return {
        "queued → running, in a waiting pod, median": _seconds(summary.warm_queued_to_running),
        "queued → running, in a new pod, median": _seconds(summary.queued_to_running),
    }


def _seconds(span: float | None) -> str:
    return "–" if span is None else f"{span:.2f} s"


def result_table(columns: Sequence[str], rows: Sequence[Sequence[Json]]) -> Table:
    """Return the rows that the DAG returned."""
    table = Table(*columns, header_style="bold")
    for row in rows:
        table.add_row(*(f"{value:,.2f}" if isinstance(value, float) else str(value) for value in row))
    return table


def stall_text(stall: Stall, parallelism: int, dag_seconds: float) -> str:
    """Return the lines that explain the stall."""
    return (
        f"The run has stalled: nothing has changed for {stall.unchanged_for:.0f} s,"
        f" {dag_seconds:.0f} s after the start.\n"
        f"In {counted(len(stall.held), 'pod')} the base container has ended and {', '.join(stall.sidecars)} still runs."
        " This executor looks at the pod's phase, which stays Running. So each such pod keeps one of the "
        f"{counted(parallelism, 'slot')} forever, and none becomes free for the "
        f"{counted(stall.unfinished, 'task instance')} still to run."
    )


class PlainLines:
    """Formats changes of the pods' states as lines, for logs and pipes."""

    def __init__(self) -> None:
        self._printed: dict[str, str] = {}

    def news(self, pods: Collection[PodTimeline], now: float) -> list[str]:
        """Return a line for each pod whose state has changed since the last call."""
        lines = []
        for pod in sorted(pods, key=lambda pod: pod.created):
            state = state_word(pod)
            if self._printed.get(pod.uid) != state:
                self._printed[pod.uid] = state
                lines.append(event_line(now, pod.task, pod.attempt, state))
        return lines
