"""The history of one worker pod, as a small record that outlives the pod. Pure.

The engine hands over an ``EndedPod`` when it forgets a run. The store calls ``pod_record`` in a thread of its own, so
that the engine's loop spends no time on it.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import orjson

from crosswind.engine.column_text import storable
from crosswind.engine.last_pod_state import UNSEEN_POD, LastPodState, last_pod_state, seconds_of
from crosswind.engine.state import WorkerRun
from crosswind.pods.worker_report import WorkerReport, split_message
from crosswind.types import Pod, PodEvent

__all__ = ["DETAIL_LIMIT", "EndedPod", "PodHistory", "PodRecord", "detail_json", "pod_detail", "pod_record"]

DETAIL_LIMIT = 1400
"""Bytes of a record's detail as JSON: with its columns a row stays below 2 kB."""

_MESSAGE_CHARS, _EVENT_CHARS = 400, 120
_MAX_EVENTS = 5

_MOMENTS = ("queued", "created", "scheduled", "sandbox", "initialized", "pulled", "started", "ended", "gone")
"""In their order: several may have the same second."""


@dataclass(frozen=True, slots=True)
class EndedPod:
    """A run that the engine forgets, with what was last seen of its pod."""

    run: WorkerRun
    last_state: LastPodState | None
    """None where there never was a pod, or nothing was seen of it."""
    cluster: str
    """The API server's address."""
    forgotten_at: float
    """Seconds since 1970."""
    clock_offset: float
    """What to add to the loop's monotonic time for seconds since 1970."""
    events: Sequence[PodEvent] = ()
    """The pod's events, where they were read."""


class PodHistory(Protocol):
    """Where ended pods go. ``put`` returns at once and never raises: a record is worth less than a slot."""

    def put(self, ended: EndedPod) -> None:
        """Keep what a pod went through."""
        ...


@dataclass(frozen=True, slots=True)
class PodRecord:
    """The record of one pod."""

    pod: str
    """The pod's uid; of a run without a pod its own unique id."""
    ti_id: str
    """The task instance's id, which each try has anew; "" for callbacks and connection tests."""
    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    launch: int
    """0 for the first pod of a try."""
    cluster: str
    namespace: str
    name: str
    node: str
    queue: str
    outcome: str
    """success, failed, lost (the cluster took the pod, or there is no trace of it), revoked (Airflow ended the task
    itself)."""
    reason: str
    """One word, "" for a success."""
    exit_code: int | None
    """Of the base container."""
    ended_at: datetime.datetime
    detail: Mapping[str, Any] = field(default_factory=dict)
    """``times`` (seconds since 1970), ``waited`` (those of a claimed pod before its claim), ``image``, ``requests``,
    ``limits``, ``peak_memory`` (bytes), ``cpu`` (seconds), ``seconds`` (imports, bundle, parse, run), ``containers``,
    ``events``, ``message``, ``added`` (fields that injectors and admission added); each only where it is known."""


def detail_json(detail: Mapping[str, Any]) -> str:
    """Return a record's detail as JSON of at most ``DETAIL_LIMIT`` bytes; what matters least is left out first."""
    kept = dict(detail)
    for part in ("added", "events", "containers", "message", "limits", "requests", None):
        encoded = orjson.dumps(kept)
        if len(encoded) <= DETAIL_LIMIT or part is None:
            return encoded.decode()
        kept.pop(part, None)
    raise AssertionError("the loop returns at its last part")


def pod_record(ended: EndedPod) -> PodRecord:
    """Return the record of a pod."""
    run, task, last = ended.run, ended.run.task, ended.last_state or UNSEEN_POD
    worker, written = split_message(last.message)
    end = last.ended_at or _on_the_wall(run.times.ended, ended)
    times = _times(ended, last, end)
    waited: Mapping[str, float] = {}
    if run.claim is not None:
        times, waited = _times_of_claimed(ended, times)
    detail = {
        "times": times,
        "waited": waited,
        **last.declared,
        **_figures(worker),
        "containers": last.containers,
        "added": last.added,
        "events": _events(ended.events),
        "message": storable(run.message if run.failed else written, most_chars=_MESSAGE_CHARS),
    }
    return PodRecord(
        pod=last.uid or run.uid or run.unique_id,
        ti_id=task.ti_id,
        dag_id=storable(task.dag_id, most_chars=250),
        task_id=storable(task.task_id, most_chars=250),
        run_id=storable(task.run_id, most_chars=250),
        map_index=task.map_index,
        try_number=task.try_number,
        launch=run.attempt,
        cluster=storable(ended.cluster, most_chars=250),
        namespace=storable(run.namespace, most_chars=63),
        name=storable(run.name, most_chars=253),
        node=last.node,
        queue=storable(task.queue, most_chars=250),
        outcome=_outcome(run),
        reason=storable(run.reason, most_chars=64),
        exit_code=last.exit_code,
        ended_at=datetime.datetime.fromtimestamp(end, datetime.UTC),
        detail={name: value for name, value in detail.items() if value},
    )


def pod_detail(pod: Pod, events: Sequence[PodEvent], requested_fields: frozenset[str]) -> dict[str, Any]:
    """Return what a record has of a pod, of one that lives: only what Kubernetes knows, and its node.

    ``requested_fields``: the fields of its manifest.
    """
    last = last_pod_state(pod, requested_fields)
    detail = {
        "times": _in_order({**last.times, "pulled": _pulled(events)}),
        "node": last.node,
        **last.declared,
        "containers": last.containers,
        "added": last.added,
        "events": _events(events),
    }
    return {name: value for name, value in detail.items() if value}


def _outcome(run: WorkerRun) -> str:
    if run.revoked:
        return "revoked"
    if run.result is not None and (run.result.lost or run.result.loss):
        return "lost"
    return "failed" if run.failed else "success"


def _times(ended: EndedPod, last: LastPodState, end: float) -> dict[str, float]:
    """Return the moments of a pod's life, those that are known."""
    run = ended.run
    times: dict[str, float | None] = {**last.times, "pulled": _pulled(ended.events), "ended": end}
    if run.workload.payload is not None:  # an adopted run was asked for at a time that only the database knows
        times["queued"] = _on_the_wall(run.times.requested, ended)
    if run.pod_gone and ended.last_state is not None:
        times["gone"] = ended.forgotten_at
    return _in_order(times)


def _in_order(times: Mapping[str, float | None]) -> dict[str, float]:
    return {name: round(moment, 3) for name in _MOMENTS if (moment := times.get(name)) is not None}


def _times_of_claimed(ended: EndedPod, times: Mapping[str, float]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the times of a claimed pod's task, and those from before: its containers ran before there was a task."""
    run = ended.run
    own = {name: times[name] for name in ("queued", "ended", "gone") if name in times}
    if run.workload.payload is not None and run.times.created:
        own["claimed"] = round(_on_the_wall(run.times.created, ended), 3)
    own = dict(sorted(own.items(), key=lambda item: item[1]))
    return own, {name: moment for name, moment in times.items() if name not in own}


def _on_the_wall(monotonic: float, ended: EndedPod) -> float:
    return monotonic + ended.clock_offset if monotonic else ended.forgotten_at


def _figures(worker: WorkerReport | None) -> dict[str, Any]:
    """Return what the worker measured, without what it does not know."""
    if worker is None:
        return {}
    known = asdict(worker)
    phases = {name: known[name] for name in ("imports", "bundle", "parse", "run") if known[name] is not None}
    figures = {name: known[name] for name in ("peak_memory", "oom_kills", "cpu") if known[name]}
    return {**figures, "seconds": phases}


def _events(events: Sequence[PodEvent]) -> list[dict[str, Any]]:
    """Return the last events, oldest first: reason, message and time."""
    return [
        {
            "reason": storable(event.get("reason", ""), most_chars=64),
            "message": storable(event.get("message", ""), most_chars=_EVENT_CHARS),
            "at": seconds_of(event.get("lastTimestamp") or event.get("eventTime")),
        }
        for event in events[-_MAX_EVENTS:]
    ]


def _pulled(events: Sequence[PodEvent]) -> float | None:
    """Return when the kubelet had an image of the pod's, from its event; a status has no such time."""
    for event in events:
        if event.get("reason") == "Pulled":
            return seconds_of(event.get("lastTimestamp") or event.get("eventTime"))
    return None
