"""The tables of pods that commands print, and the words in them. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from crosswind.cli.text_table import Column, Line, table_lines
from crosswind.pods.pod_summary import STATES, PodSummary

__all__ = [
    "SORTS",
    "age",
    "document",
    "pod_columns",
    "pod_lines",
    "reason_words",
    "sorted_pods",
    "state_counts",
    "state_style",
]

_STYLES = {"pending": "yellow", "running": "green", "failed": "red", "lost": "red", "terminating": "magenta"}
_SHORT_NAME = 9
"""Width of a pod's name where there is no space for all of it: its end is unique, and commands take it as the name."""


def _created(pod: PodSummary) -> float:
    return pod.created or 0.0


_URGENCY = {"lost": 0, "failed": 1, "pending": 2, "terminating": 3, "running": 4, "succeeded": 5}
SORTS: dict[str, Callable[[PodSummary], Any]] = {
    "age": _created,
    "task": lambda pod: (pod.dag_id, pod.task_id, pod.map_index or 0, pod.run_id, _created(pod)),
    "state": lambda pod: (_URGENCY[pod.state], _created(pod)),
    "reason": lambda pod: (not pod.reason, pod.reason, _created(pod)),
    "node": lambda pod: (not pod.node, pod.node, _created(pod)),
    "queue": lambda pod: (pod.queue, _created(pod)),
    "restarts": lambda pod: (-pod.restarts, _created(pod)),
    "name": lambda pod: (pod.namespace, pod.name),
}
"""Orders of pods by name. age: oldest first; state: what needs a person first."""


def sorted_pods(pods: Iterable[PodSummary], sort: str, *, reverse: bool = False) -> list[PodSummary]:
    """Return pods in one of ``SORTS``."""
    return sorted(pods, key=SORTS[sort], reverse=reverse)


def pod_columns(now: float, *, namespaces: bool) -> list[Column[PodSummary]]:
    """Return the columns of a list of pods. ``now``: seconds since 1970. ``namespaces``: pods are of several."""
    columns: list[Column[PodSummary]] = [
        Column("POD", lambda pod: pod.name, rank=7, least=_SHORT_NAME, cut="start"),
        Column("TASK", lambda pod: pod.task or "-", rank=1, least=16, most=24, cut="middle"),
        Column("RUN", lambda pod: pod.run_id, rank=3, least=16, most=34, cut="middle", optional=True),
        Column("TRY", lambda pod: _number(pod.try_number), right=True),
        Column("STATE", lambda pod: pod.state, state_style),
        Column("REASON", reason_words, state_style, rank=2, least=12),
        Column("AGE", lambda pod: age(pod.created, now), right=True),
        Column("NODE", lambda pod: pod.node or "-", rank=4, least=12, cut="start", optional=True),
        Column("QUEUE", lambda pod: pod.queue or "-", rank=5, optional=True),
        Column("RESTARTS", lambda pod: str(pod.restarts), rank=6, right=True, optional=True),
        Column("KIND", lambda pod: pod.kind, rank=8, optional=True),
    ]
    if namespaces:
        columns.insert(0, Column("NAMESPACE", lambda pod: pod.namespace, rank=0, least=9))
    return columns


def pod_lines(pods: Sequence[PodSummary], now: float, width: int | None, *, namespaces: bool) -> list[Line]:
    """Return a table of pods that fits ``width``; None shows everything."""
    return table_lines(pod_columns(now, namespaces=namespaces), pods, width)


def reason_words(pod: PodSummary) -> str:
    """Return why a pod waits or how it ended, in a few words."""
    words = [] if pod.reason in ("", "Completed") else [pod.reason]
    if pod.exit_code and pod.reason in ("", "Error"):
        words = [f"exit {pod.exit_code}"]  # another reason says more than its code
    if pod.sidecars_running:
        words.append(f"held by {', '.join(pod.sidecars_running)}")
    if pod.deleting and pod.state != "terminating":
        words.append("deleting")
    return ", ".join(words) or "-"


def state_style(pod: PodSummary) -> str:
    """Return the style of a pod's state."""
    return _STYLES.get(pod.state, "dim")


def age(since: float | None, now: float) -> str:
    """Return a span as kubectl writes it: 42s, 12m, 3h5m, 2d4h; "-" when its start is not known."""
    if since is None:
        return "-"
    seconds = max(0, int(now - since))
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 180:
        return f"{minutes}m"
    if hours < 48:
        return f"{hours}h{minutes % 60}m" if hours < 8 and minutes % 60 else f"{hours}h"
    return f"{days}d{hours % 24}h" if days < 8 and hours % 24 else f"{days}d"


def document(content: Any, output: str) -> str:
    """Return data as JSON or YAML."""
    if output == "json":
        return json.dumps(content, indent=2, ensure_ascii=False)
    import yaml

    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return text.rstrip("\n")


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def state_counts(pods: Iterable[PodSummary]) -> str:
    """Return how many pods are in each state: ``12 running, 3 failed``."""
    counts = Counter(pod.state for pod in pods)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
