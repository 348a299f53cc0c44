"""What one worker pod went through, as a small record that stays when the pod is gone. Pure.

The engine hands over an ``EndedPod`` when it forgets a run. The store calls ``pod_record`` in a thread of its own, so
that the engine's loop spends no time on it. Times come from the pod's status: the kubelet and the scheduler
write whole seconds of their node's clock.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import orjson

from crosswind.engine.database import storable
from crosswind.engine.state import WorkerRun
from crosswind.engine.worker_pod import BASE
from crosswind.pods.added_fields import added_fields
from crosswind.pods.fields import (
    as_pod,
    conditions_of,
    container_of,
    container_statuses_of,
    containers_of,
    init_containers_of,
    mapping,
    metadata_of,
    spec_of,
    text,
)
from crosswind.pods.states import ContainerKind, ContainerReport, container_reports
from crosswind.pods.worker_report import WorkerReport, split_message
from crosswind.sidecars.detection import is_injected
from crosswind.types import ContainerStatus, Json, Pod, PodEvent

__all__ = ["DETAIL_LIMIT", "EndedPod", "PodHistory", "PodRecord", "detail_json", "pod_detail", "pod_record"]

DETAIL_LIMIT = 1400
"""Bytes of a record's detail as JSON: with its columns a row stays below 2 kB."""

_MESSAGE_CHARS, _EVENT_CHARS, _IMAGE_CHARS, _NAME_CHARS = 400, 120, 300, 200
_MOST_CONTAINERS, _MOST_EVENTS, _MOST_ADDED = 12, 5, 40

_CONDITIONS = {"scheduled": "PodScheduled", "sandbox": "PodReadyToStartContainers", "initialized": "Initialized"}
"""Moments of a pod, and the condition whose ``lastTransitionTime`` is each."""


@dataclass(frozen=True, slots=True)
class EndedPod:
    """A run that the engine forgets, with the last state of its pod that was seen."""

    run: WorkerRun
    pod: bytes | None
    """As JSON; None where there never was one, or nothing was seen of it."""
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
    """Return the record of a pod. Any JSON gives a record: a status is read without trust."""
    run, task = ended.run, ended.run.task
    pod = as_pod(orjson.loads(ended.pod) if ended.pod else None)
    metadata, spec = metadata_of(pod), spec_of(pod)
    reports = container_reports(pod, BASE)
    base = next((report for report in reports if report.kind is ContainerKind.BASE), None)
    state = _base_state(pod)
    terminated = mapping(state.get("terminated"))
    worker, written = split_message(text(terminated.get("message")))
    end = _seconds(terminated.get("finishedAt")) or _on_the_wall(run.times.ended, ended)
    times: Mapping[str, float] = _times(ended, pod, state, end)
    waited: Mapping[str, float] = {}
    if run.claim is not None:
        times, waited = _times_of_claimed(ended, times)
    detail = {
        "times": times,
        "waited": waited,
        **_declared(pod),
        **_figures(worker),
        "containers": _containers(pod, reports),
        "added": _added(pod, run.asked),
        "events": _events(ended.events),
        "message": storable(run.message if run.failed else written, most_chars=_MESSAGE_CHARS),
    }
    return PodRecord(
        pod=text(metadata.get("uid")) or run.uid or run.unique_id,
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
        node=storable(text(spec.get("nodeName")), most_chars=253),
        queue=storable(task.queue, most_chars=250),
        outcome=_outcome(run),
        reason=storable(run.reason, most_chars=64),
        exit_code=base.exit_code if base is not None else None,
        ended_at=datetime.datetime.fromtimestamp(end, datetime.UTC),
        detail={name: value for name, value in detail.items() if value},
    )


def pod_detail(pod: Pod, events: Sequence[PodEvent], asked: frozenset[str]) -> dict[str, Any]:
    """Return what a record has of a pod, of one that lives: only what Kubernetes knows, and its node.

    ``asked``: the fields of its manifest.
    """
    times = _times_in_cluster(pod, _base_state(pod), events)
    detail = {
        "times": {name: moment for name, moment in times.items() if moment is not None},
        "node": storable(text(spec_of(pod).get("nodeName")), most_chars=253),
        **_declared(pod),
        "containers": _containers(pod, container_reports(pod, BASE)),
        "added": _added(pod, asked),
        "events": _events(events),
    }
    return {name: value for name, value in detail.items() if value}


def _declared(pod: Pod) -> dict[str, Any]:
    """Return image, requests and limits of the base container."""
    base = container_of(pod, BASE)
    resources = {name: mapping(base.get("resources")).get(name) for name in ("requests", "limits")}
    return {"image": storable(text(base.get("image")), most_chars=_IMAGE_CHARS), **resources}


def _outcome(run: WorkerRun) -> str:
    if run.revoked:
        return "revoked"
    if run.result is not None and (run.result.lost or run.result.loss):
        return "lost"
    return "failed" if run.failed else "success"


def _times(ended: EndedPod, pod: Pod, state: Mapping[str, Any], end: float) -> dict[str, float]:
    """Return the moments of a pod's life in their order, those that are known."""
    run = ended.run
    times = {
        # An adopted run was asked for by another scheduler, at a time that only the database knows.
        "queued": None if run.workload.payload is None else _on_the_wall(run.times.requested, ended),
        **_times_in_cluster(pod, state, ended.events),
        "ended": end,
        "gone": ended.forgotten_at if run.pod_gone and pod else None,
    }
    return {name: round(moment, 3) for name, moment in times.items() if moment is not None}


def _times_in_cluster(pod: Pod, state: Mapping[str, Any], events: Sequence[PodEvent]) -> dict[str, float | None]:
    """Return the moments until the base container started, in their order; None for those that are not known.

    ``state``: the base container's.
    """
    reached = {
        text(condition.get("type")): mapping(condition).get("lastTransitionTime")
        for condition in conditions_of(pod)
        if condition.get("status") == "True"
    }
    running = mapping(state.get("terminated")) or mapping(state.get("running"))
    return {
        "created": _seconds(metadata_of(pod).get("creationTimestamp")),
        **{name: _seconds(reached.get(condition)) for name, condition in _CONDITIONS.items()},
        "pulled": _pulled(events),
        "started": _seconds(running.get("startedAt")),
    }


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


def _seconds(stamp: Json) -> float | None:
    """Return a Kubernetes time as seconds since 1970; None for anything else."""
    try:
        return datetime.datetime.fromisoformat(text(stamp)).timestamp()
    except (ValueError, OverflowError):
        return None


def _figures(worker: WorkerReport | None) -> dict[str, Any]:
    """Return what the worker measured, without what it does not know."""
    if worker is None:
        return {}
    known = asdict(worker)
    phases = {name: known[name] for name in ("imports", "bundle", "parse", "run") if known[name] is not None}
    figures = {name: known[name] for name in ("peak_memory", "oom_kills", "cpu") if known[name]}
    return {**figures, "seconds": phases}


def _containers(pod: Pod, reports: Iterable[ContainerReport]) -> list[dict[str, Any]]:
    """Return the containers beside base: name, kind, how each ended, and whether an injector added it."""
    others = [report for report in reports if report.kind is not ContainerKind.BASE]
    if not others:
        return []
    declared = {text(container.get("name")): container for container in (*init_containers_of(pod), *containers_of(pod))}
    made = []
    for report in others:
        entry: dict[str, Any] = {"name": report.name, "kind": report.kind.value, "state": report.state.value}
        if report.exit_code is not None:
            entry["exit_code"] = report.exit_code
        if is_injected(pod, declared.get(report.name, {"name": report.name})):
            entry["injected"] = True
        made.append(entry)
    return made[:_MOST_CONTAINERS]


def _added(pod: Pod, asked: frozenset[str]) -> list[str]:
    """Return the fields that were not asked for; none of a pod that another scheduler asked for."""
    names = added_fields(pod, asked) if asked else []
    return [storable(name, most_chars=_NAME_CHARS) for name in names[:_MOST_ADDED]]


def _events(events: Sequence[PodEvent]) -> list[dict[str, Any]]:
    """Return the last events, oldest first: reason, message and time."""
    return [
        {
            "reason": storable(event.get("reason", ""), most_chars=64),
            "message": storable(event.get("message", ""), most_chars=_EVENT_CHARS),
            "at": _seconds(event.get("lastTimestamp") or event.get("eventTime")),
        }
        for event in events[-_MOST_EVENTS:]
    ]


def _pulled(events: Sequence[PodEvent]) -> float | None:
    """Return when the kubelet had an image of the pod's, from its event; a status has no such time."""
    for event in events:
        if event.get("reason") == "Pulled":
            return _seconds(event.get("lastTimestamp") or event.get("eventTime"))
    return None


def _base_state(pod: Pod) -> Mapping[str, Any]:
    statuses = (status for status in container_statuses_of(pod) if status.get("name") == BASE)
    return mapping(next(statuses, ContainerStatus()).get("state"))
