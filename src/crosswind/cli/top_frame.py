"""The lines of the screen of ``crosswind top``. Pure."""

from __future__ import annotations

import datetime
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crosswind.cli.pod_table import age, pod_lines, state_style
from crosswind.cli.text_table import Line, cell_width, cut, cut_line, plain
from crosswind.cli.top_view import Page, View, matches_search, selected_pod
from crosswind.errors import counted
from crosswind.pods.pod_summary import STATES, PodSummary

__all__ = ["Frame", "fleet_lines", "frame_lines", "list_rows", "page_rows", "shown_lines"]

_HEAD, _FOOT = 4, 1
"""Lines above the table's header, and below its rows."""
_PAGE_HEAD = 1

_LIST_KEYS = "q quit  / filter  s sort  d describe  l logs  ^d delete  f faults  ? help"
_PAGE_KEYS = "esc back  / filter  w wrap  s follow  ↑↓ PgUp PgDn g G scroll"
_HELP = (
    ("↑ ↓ k j, PgUp PgDn, g G", "move"),
    ("enter, d", "describe the pod: cause, fix, containers, events"),
    ("l, p", "its log, followed; the one before a restart"),
    ("y", "its manifest"),
    ("ctrl-d, x", "delete it, after a question; space marks several"),
    ("0", "all namespaces, and back"),
    ("/", "filter by words: DAG, run, task, node, reason..."),
    ("", "!word excludes; esc clears the filter"),
    ("f, ctrl-z", "only faults: failed, lost, pending, held"),
    ("s, r", "next order; reverse"),
    ("S A T N O Q R", "by state, age, task, name, node, queue, restarts"),
    ("in a text", "w wraps, s follows, / filters, esc goes back"),
    ("q, ctrl-c", "quit"),
)


@dataclass(frozen=True, slots=True)
class Frame:
    """What the screen is drawn from. ``now``: seconds since 1970."""

    context: str
    place: str
    """The namespace, or that it is all of them."""
    namespaces: bool
    width: int
    height: int
    now: float
    warm: int = 0
    """Warm pods that wait for a task."""
    trouble: str = ""
    """Why the display may be old."""
    listed: bool = True
    """Whether the first list has come."""


def list_rows(height: int) -> int:
    """Return how many pods fit."""
    return max(1, height - _HEAD - 1 - _FOOT)


def page_rows(height: int) -> int:
    """Return how many lines of a page fit."""
    return max(1, height - _PAGE_HEAD - _FOOT)


def frame_lines(
    frame: Frame, view: View, everything: Sequence[PodSummary], rows: Sequence[PodSummary], page: Sequence[Line]
) -> list[Line]:
    """Return the screen. ``everything``: all pods; ``rows``: those of the list; ``page``: the lines of the page."""
    if view.help:
        return _help_lines(frame)
    if view.page:
        return _page_lines(frame, view, view.page, page)
    at, chosen = selected_pod(rows, view)
    fit = list_rows(frame.height)
    first = max(0, min(at - fit // 2, len(rows) - fit))
    shown = rows[first : first + fit]
    table = pod_lines(shown, frame.now, frame.width, namespaces=frame.namespaces)
    body = [
        table[0],
        *(_row(line, frame.width, view, pod, pod is chosen) for line, pod in zip(table[1:], shown, strict=True)),
    ]
    if not rows:
        body = [[], [(_no_match_message(frame, view, everything), "dim")]]
    head = fleet_lines(frame, everything, _order_words(view, len(rows), len(everything)))
    body += [[] for _ in range(fit + 1 - len(body))]
    return [*head, *body[: fit + 1], _footer(frame, view, rows)]


def fleet_lines(frame: Frame, pods: Sequence[PodSummary], order: str = "") -> list[Line]:
    """Return the lines about the fleet as a whole: where, how many in each state, and what waits for what."""
    clock = f"{datetime.datetime.fromtimestamp(frame.now, datetime.UTC):%H:%M:%S} UTC"
    title = cut(f"{frame.context} · {frame.place}", max(10, frame.width - len(clock) - 18))
    right = f"{counted(len(pods), 'pod')}  {clock}"
    space = " " * max(1, frame.width - cell_width(title) - len(right))
    return [
        [(title, "bold"), (space + right, "")],
        _counts(frame, pods),
        _trouble(frame) or _waits(pods, frame),
        [(cut(order, frame.width), "dim")],
    ]


def _counts(frame: Frame, pods: Sequence[PodSummary]) -> Line:
    counts: defaultdict[str, int] = defaultdict(int)
    for pod in pods:
        counts[pod.state] += 1
    held = sum(bool(pod.sidecars_running) for pod in pods)
    line: Line = []
    for state in STATES:
        if counts[state]:
            line += [(f"{counts[state]} {state}", state_style(PodSummary("", state=state))), ("  ", "")]
    if held:
        line += [(f"{held} held", "yellow"), ("  ", "")]
    if frame.warm:
        line.append((f"{frame.warm} warm", "cyan"))
    return cut_line(line, frame.width)


def _trouble(frame: Frame) -> Line:
    return [(cut(f"not up to date: {frame.trouble}", frame.width), "red")] if frame.trouble else []


def _waits(pods: Iterable[PodSummary], frame: Frame) -> Line:
    """Return what pods wait for, the longest wait first."""
    oldest: dict[str, float] = {}
    numbers: defaultdict[str, int] = defaultdict(int)
    for pod in pods:
        if pod.state == "pending" and pod.reason:
            numbers[pod.reason] += 1
            oldest[pod.reason] = min(oldest.get(pod.reason, frame.now), pod.created or frame.now)
    if not oldest:
        return []
    words = [
        f"{numbers[name]} {name}, {age(oldest[name], frame.now)}" for name in sorted(oldest, key=oldest.__getitem__)
    ]
    return [(cut(f"waiting: {'; '.join(words)}", frame.width), "yellow")]


def _order_words(view: View, shown: int, total: int) -> str:
    words = [f"by {view.sort}{', reversed' if view.reverse else ''}"]
    if view.only_faults:
        words.append("only faults")
    if view.search or view.typing:
        words.append(f"filter /{view.search}{'_' if view.typing else ''}")
    if shown != total:
        words.append(f"{shown} of {total}")
    if view.marked:
        words.append(f"{len(view.marked)} marked")
    return " · ".join(words)


def _no_match_message(frame: Frame, view: View, everything: Sequence[PodSummary]) -> str:
    if not frame.listed:
        return "reading the pods..."
    if everything:
        return "no pod matches; esc ends the filter"
    return f"no pod of an Airflow task in {frame.place}"


def _row(line: Line, width: int, view: View, pod: PodSummary, here: bool) -> Line:
    """Return the line of a pod, marked as the one under the cursor or as one of those to delete."""
    style = " ".join(("reverse",) * here + ("bold", "cyan") * (pod.uid in view.marked))
    if not style:
        return line
    text = plain(line)
    return [(text + " " * max(0, width - cell_width(text)), style)]


def _footer(frame: Frame, view: View, rows: Sequence[PodSummary]) -> Line:
    if view.confirming:
        names = [pod.name for pod in rows if pod.uid in view.confirming]
        name = names[0] if len(names) == 1 else counted(len(view.confirming), "pod") + "."
        question = f" {'Its task will fail or be' if len(names) == 1 else 'Tasks will fail or be'} retried. Delete? y/N"
        return [(f"{cut(name, max(10, frame.width - len(question)), 'start')}{question}", "bold red")]
    if view.message:
        return [(cut(view.message, frame.width), "bold")]
    return [(cut(_LIST_KEYS, frame.width), "dim")]


def shown_lines(page: Page, lines: Iterable[Line], width: int) -> list[Line]:
    """Return the lines of a page that its search lets through, wrapped if it wraps."""
    chosen = [line for line in lines if matches_search(plain(line), page.search)]
    if not page.wraps:
        return chosen
    return [part for line in chosen for part in _folded(line, width)]


def _folded(line: Line, width: int) -> list[Line]:
    """Return a line in parts of at most ``width`` columns; only a line that is too long loses its styles."""
    text, width = plain(line), max(2, width)  # one character may take two columns
    if cell_width(text) <= width:
        return [line]
    parts: list[Line] = []
    while text:
        head = cut_line([(text, "")], width)[0][0]
        parts.append([(head, "")])
        text = text[len(head) :] if head else ""
    return parts


def _page_lines(frame: Frame, view: View, page: Page, lines: Sequence[Line]) -> list[Line]:
    fit = page_rows(frame.height)
    last = max(0, len(lines) - fit)
    at = last if page.at_end else min(page.at, last)
    body = list(lines[at : at + fit])
    end = f"{min(at + fit, len(lines))}/{len(lines)}"
    title = cut(page.title, max(10, frame.width - len(end) - 2))
    head: Line = [(title, "bold"), (" " * max(1, frame.width - cell_width(title) - len(end)) + end, "dim")]
    body += [[] for _ in range(fit - len(body))]
    typed = f"/{page.search}{'_' if view.typing else ''}  " if page.search or view.typing else ""
    return [head, *body, [(cut(typed + (view.message or _PAGE_KEYS), frame.width), "dim")]]


def _help_lines(frame: Frame) -> list[Line]:
    lines: list[Line] = [[("crosswind top: keys", "bold")], []]
    lines += [[(f"  {keys:<26}", "bold"), (meaning, "")] for keys, meaning in _HELP]
    return [*lines, [], [(cut("any key goes back", frame.width), "dim")]]
