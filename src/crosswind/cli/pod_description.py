"""Everything about one pod of a task that its user needs, as data for programs and as lines for a terminal. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from crosswind.cli.pod_table import age, reason_words, state_style
from crosswind.cli.text_table import Column, Line, clean, table_lines, wrapped
from crosswind.errors import counted
from crosswind.pods.causes import exit_code_meaning, why
from crosswind.pods.field_names import EXECUTOR_FIELDS, OPERATOR_FIELDS
from crosswind.pods.fields import (
    as_pod,
    conditions_of,
    container_of,
    container_statuses_of,
    labels_of,
    mapping,
    metadata_of,
    number,
    text,
)
from crosswind.pods.pod_life import PodFacts, pod_life
from crosswind.pods.pod_summary import PodSummary, base_container, seconds_since_epoch, summarise
from crosswind.pods.states import ContainerReport, RuntimeState, container_reports
from crosswind.pods.units import show_bytes, show_seconds
from crosswind.pods.worker_report import WorkerReport, split_message
from crosswind.sidecars.detection import is_injected
from crosswind.types import AnyPod, Json, Pod, PodEvent

__all__ = ["container_names", "describe_pod", "description_lines", "task_lines"]

_LABEL_WIDTH = 12
_MAX_EVENTS = 10
_CONDITIONS = {
    "scheduled": "PodScheduled",
    "sandbox": "PodReadyToStartContainers",
    "initialized": "Initialized",
}
"""Moments of a pod, and the condition whose ``lastTransitionTime`` is each."""


class LastEnd(TypedDict):
    """How a container ended before its last restart."""

    reason: str
    exit_code: int | None


class ContainerRow(TypedDict):
    """A container of a pod, as ``describe`` shows it."""

    name: str
    kind: str
    state: str
    reason: str
    exit_code: int | None
    restarts: int
    injected: bool
    image: str
    last_end: LastEnd | None


class EventRow(TypedDict):
    """An event of a pod. ``time``: of its last occurrence, in seconds since 1970."""

    time: float | None
    type: str
    reason: str
    message: str
    count: int
    source: str


def describe_pod(
    pod: AnyPod, now: float, events: Sequence[PodEvent] = (), airflow: Mapping[str, Json] | None = None
) -> dict[str, Any]:
    """Return a pod's summary with its cause and fix, life, containers, events and Airflow's view of its task.

    ``now``: seconds since 1970. ``events``: of the pod, oldest first. ``airflow``: from ``AirflowTasks.report``, None
    where Airflow was not asked.
    """
    pod = as_pod(pod)
    summary, base = summarise(pod), base_container(pod)
    fields = OPERATOR_FIELDS if summary.kind == "operator" else EXECUTOR_FIELDS
    report, written = _report(pod, base)
    resources = mapping(container_of(pod, base).get("resources"))
    life = pod_life(_known_facts(pod, summary, report, events), now)
    return {
        **summary.to_json(),
        "message": written or summary.message,
        "cause": why(pod, events, base=base, fields=fields),
        "airflow": airflow,
        "ti_id": text(mapping(metadata_of(pod).get("annotations")).get("task_instance_id")),
        "image": text(container_of(pod, base).get("image")),
        "requests": dict(mapping(resources.get("requests"))),
        "limits": dict(mapping(resources.get("limits"))),
        "peak_memory": report.peak_memory if report else None,
        "cpu_seconds": report.cpu if report else None,
        "seconds": _phases(report),
        "memory": life.memory.text if life.memory else "",
        "parts": [{"label": part.label, "seconds": part.seconds, "open": part.is_open} for part in life.parts],
        "containers": [_container(pod, item) for item in container_reports(pod, base)],
        "events": [_event(event) for event in events[-_MAX_EVENTS:]],
        "labels": dict(labels_of(pod)),
    }


def container_names(pod: AnyPod) -> list[str]:
    """Return the names of a pod's containers, init containers first."""
    return [report.name for report in container_reports(pod, base_container(pod))]


def _report(pod: Pod, base: str) -> tuple[WorkerReport | None, str]:
    for status in container_statuses_of(pod):
        if status.get("name") == base:
            terminated = mapping(mapping(status.get("state")).get("terminated"))
            return split_message(text(terminated.get("message")))
    return None, ""


def _phases(report: WorkerReport | None) -> dict[str, float]:
    names = ("imports", "bundle", "parse", "run")
    return {name: value for name in names if report and (value := getattr(report, name)) is not None}


def _known_facts(pod: Pod, summary: PodSummary, report: WorkerReport | None, events: Sequence[PodEvent]) -> PodFacts:
    """Return what a pod that is there says about its life, as the tab *Pod* of Airflow's UI gets it from its record."""
    reached = {
        text(item.get("type")): seconds_since_epoch(mapping(item).get("lastTransitionTime"))
        for item in conditions_of(pod)
        if item.get("status") == "True"
    }
    pulled = next((event for event in events if event.get("reason") == "Pulled"), None)
    times = {
        "created": summary.created,
        **{name: reached.get(condition) for name, condition in _CONDITIONS.items()},
        "pulled": _event_time(pulled) if pulled else None,
        "started": summary.started,
        "ended": summary.ended,
    }
    resources = mapping(container_of(pod, base_container(pod)).get("resources"))
    ended_phase = "ending" if summary.sidecars_running else ""
    return PodFacts(
        phase={"pending": "pending", "running": "running", "terminating": "running"}.get(summary.state, ended_phase),
        times={name: moment for name, moment in times.items() if moment is not None},
        seconds=_phases(report),
        requests=mapping(resources.get("requests")),
        limits=mapping(resources.get("limits")),
        peak_memory=report.peak_memory if report else None,
    )


def _container(pod: Pod, report: ContainerReport) -> ContainerRow:
    spec = container_of(pod, report.name)
    return {
        "name": report.name,
        "kind": report.kind.value,
        "state": report.state.value,
        "reason": report.reason,
        "exit_code": report.exit_code,
        "restarts": report.restarts,
        "injected": is_injected(pod, spec or {"name": report.name}),
        "image": text(spec.get("image")),
        "last_end": _last_end(report),
    }


def _last_end(report: ContainerReport) -> LastEnd | None:
    return {"reason": report.last.reason, "exit_code": report.last.exit_code} if report.last else None


def _event(event: PodEvent) -> EventRow:
    count = number(mapping(event).get("count")) or number(mapping(event.get("series")).get("count")) or 1
    return {
        "time": _event_time(event),
        "type": text(event.get("type")),
        "reason": text(event.get("reason")),
        "message": text(event.get("message")),
        "count": count,
        "source": text(mapping(event.get("source")).get("component")),
    }


def _event_time(event: PodEvent) -> float | None:
    series = mapping(event.get("series"))
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return next((moment for time in times if (moment := seconds_since_epoch(time))), None)


# --- lines for a terminal ---------------------------------------------------------------------------------------------


def description_lines(described: Mapping[str, Any], now: float, width: int) -> list[Line]:
    """Return a description as lines of at most ``width`` columns. ``now``: seconds since 1970."""
    lines: list[Line] = []
    for label, value, style in _facts(described, now):
        lines += _fact(label, value, style, width)
    if described["airflow"]:
        lines += _airflow_lines(described["airflow"], width)
    lines += _section("Containers", _container_lines(described["containers"], width))
    lines += _section("Events", _event_lines(described["events"], now, width))
    return lines


def _fact(label: str, value: str, style: str, width: int) -> list[Line]:
    parts = wrapped(clean(value), max(20, width - _LABEL_WIDTH)) or ["-"]
    heads = [label, *[""] * (len(parts) - 1)]
    return [[(head.ljust(_LABEL_WIDTH), "bold"), (part, style)] for head, part in zip(heads, parts, strict=True)]


def _facts(described: Mapping[str, Any], now: float) -> Iterator[tuple[str, str, str]]:
    summary = PodSummary.from_json(described)
    yield "Pod", f"{summary.namespace}/{summary.name}", ""
    yield "Task", _task_words(summary), ""
    if summary.run_id:
        yield "Run", summary.run_id, ""
    words = reason_words(summary)
    yield "State", summary.state + (f": {words}" if words != "-" else ""), state_style(summary)
    if described["cause"]:
        yield "Cause", described["cause"], ""
    if described["message"].rstrip(".\n") not in described["cause"]:
        yield "Message", described["message"], ""
    meaning = exit_code_meaning(summary.exit_code or 0)
    if meaning and meaning not in described["cause"] and summary.reason != "OOMKilled":
        yield "Exit code", f"{summary.exit_code}: {meaning}", ""
    yield "Life", _life_words(summary, described["parts"], now), ""
    if described["peak_memory"]:
        yield "Memory", described["memory"], ""
    yield "Node", summary.node or "none yet", ""
    yield "Image", described["image"], ""
    if resources := _resource_words(described):
        yield "Resources", resources, ""


def _task_words(summary: PodSummary) -> str:
    if not summary.task:
        return f"none: the pod waits in pool {summary.pool}" if summary.kind == "warm" else "none"
    words = [summary.task]
    if summary.try_number is not None:
        words.append(f"try {summary.try_number}")
    if summary.queue:
        words.append(f"queue {summary.queue}")
    if summary.was_warm:
        words.append("in a pod that was warm")
    if summary.kind != "worker":
        words.append(f"pod of {'a pod operator' if summary.kind == 'operator' else 'no executor'}")
    return ", ".join(words)


def _life_words(summary: PodSummary, parts: Sequence[Mapping[str, Any]], now: float) -> str:
    """Return when a pod was created, and on what it spent its time since."""
    if summary.created is None:
        return ""
    clock = datetime.datetime.fromtimestamp(summary.created, datetime.UTC)
    spent = [f"{part['label']} {show_seconds(part['seconds'])}" for part in parts]
    created = f"created {clock:%Y-%m-%d %H:%M:%S} UTC, {age(summary.created, now)} ago"
    return f"{created}: {', '.join(spent)}" if spent else created


def _resource_words(described: Mapping[str, Any]) -> str:
    parts = [f"{kind} {_amounts(described[kind])}" for kind in ("requests", "limits") if described[kind]]
    if described["cpu_seconds"]:
        parts.append(f"used CPU {described['cpu_seconds']:.1f} s")
    return "; ".join(parts)


def _amounts(amounts: Mapping[str, str]) -> str:
    return " ".join(f"{name} {amount}" for name, amount in sorted(amounts.items()))


def _section(title: str, lines: list[Line]) -> list[Line]:
    return [[], [(title, "bold")], *([("  ", ""), *line] for line in lines)] if lines else []


def _container_lines(containers: Sequence[ContainerRow], width: int) -> list[Line]:
    columns: list[Column[ContainerRow]] = [
        Column("NAME", lambda item: item["name"], least=12, rank=1),
        Column("KIND", lambda item: item["kind"] + (", injected" if item["injected"] else "")),
        Column("STATE", _container_state, least=12, rank=0),
        Column("RESTARTS", _restarts, rank=3, least=8),
        Column("IMAGE", lambda item: item["image"], rank=2, least=16, optional=True, cut="start"),
    ]
    return table_lines(columns, containers, width - 2)


def _container_state(container: ContainerRow) -> str:
    words = [container["state"] if container["state"] != RuntimeState.UNKNOWN.value else "not reported"]
    if container["reason"]:
        words.append(container["reason"])
    if container["exit_code"] is not None:
        words.append(f"exit {container['exit_code']}")
    return " ".join(words)


def _restarts(container: ContainerRow) -> str:
    last = container["last_end"]
    if not last:
        return str(container["restarts"])
    return f"{container['restarts']} (last: {last['reason']} exit {last['exit_code']})"


def _event_lines(events: Sequence[EventRow], now: float, width: int) -> list[Line]:
    lines: list[Line] = []
    for event in events:
        times = f" (x{event['count']})" if event["count"] > 1 else ""
        head = f"{age(event['time'], now):>5}  "
        style = "yellow" if event["type"] == "Warning" else ""
        message = clean(f"{event['reason']}{times}: {event['message']}")
        for part in wrapped(message, max(20, width - 2 - len(head))):
            lines.append([(head, "dim"), (part, style)])
            head = " " * len(head)
    return lines


def _airflow_lines(airflow: Mapping[str, Json], width: int) -> list[Line]:
    """Return Airflow's view of the task: its state, and every try."""
    if airflow.get("problem"):
        return _fact("Airflow", f"not shown: {airflow['problem']}", "yellow", width)
    tries = airflow["tries"]
    state = f"{airflow['state'] or 'no state'}, {counted(len(tries), 'try').replace('trys', 'tries')}"
    if airflow.get("max_tries") is not None:
        state += f" of at most {airflow['max_tries'] + 1}"
    lines = _fact("Airflow", state, "", width)
    if airflow["pods"]:
        return [*lines, *_section("Pods of all tries", table_lines(_POD_COLUMNS, airflow["pods"], width - 2))]
    return [*lines, *_section("Tries", table_lines(_TRY_COLUMNS, tries, width - 2))]


_TRY_COLUMNS: list[Column[Mapping[str, Any]]] = [
    Column("TRY", lambda item: str(item["try_number"]), right=True),
    Column("STATE", lambda item: item["state"] or "-"),
    Column("START", lambda item: item["start"] or "-", least=19),
    Column("SECONDS", lambda item: item["seconds"], right=True),
    Column("HOST", lambda item: item["host"] or "-", least=9, rank=1, cut="start"),
]
_POD_COLUMNS: list[Column[Mapping[str, Any]]] = [
    Column("TRY", lambda item: str(item["try_number"]), right=True),
    Column("POD", lambda item: str(item["name"] or "-"), rank=2, least=9, cut="start"),
    Column("STATUS", lambda item: item["status"], rank=1, least=24),
    Column("PEAK", lambda item: show_bytes(item["peak_memory"]) if item["peak_memory"] else "-", right=True),
    Column("NODE", lambda item: str(item["node"] or "-"), rank=3, least=8, optional=True, cut="start"),
]


def task_lines(task: PodSummary, airflow: Mapping[str, Json], width: int) -> list[Line]:
    """Return what Airflow knows of a task whose pod is gone."""
    lines = _fact("Task", _task_words(task), "", width)
    lines += _fact("Run", task.run_id, "", width)
    if newest := next(iter(airflow["pods"]), None):
        lines += _fact("State", newest["status"], "", width)
        lines += _fact("Cause", newest["cause"], "", width) if newest["cause"] else []
        lines += _fact("Memory", newest["memory"], "", width) if newest["memory"] else []
    return [*lines, *_airflow_lines(airflow, width)]
