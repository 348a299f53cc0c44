"""What the tab *Pod* of a task instance shows, as JSON: every pod of every try, from Crosswind's tables and Airflow's.

Nothing here asks Kubernetes: an API server has no right to, and the pod of a past try is gone.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from sqlalchemy import select
from sqlalchemy.orm import Session

from crosswind.engine.fleet_snapshot import PodInFlight
from crosswind.engine.pod_history import PodRecord
from crosswind.pods.fields import mapping, mappings, texts
from crosswind.pods.pod_life import LifePart, MemoryUse, PodFacts, PodLife, StatusLine, life_of
from crosswind.pods.units import show_seconds
from crosswind.provider.fleet_rows import ExecutorSnapshot, read_executors, read_in_flight
from crosswind.provider.page_content import MemoryRow, StatusRow, TabEvent, TabPart, TabPod, TaskTab
from crosswind.provider.pod_rows import read_pods
from crosswind.provider.pod_views import look_at, read_details
from crosswind.types import Json

__all__ = ["POD_EVENTS", "read_tab", "stale_note"]

POD_EVENTS = ("pod waits", "pod relaunched", "pod lost", "pod failed", "task reset")
"""The events that the executor writes to Airflow's event log."""

_MAX_TRIES = 50
"""Tries that one page shows; the newest."""

Mask = Callable[[str], str]


class _Try(NamedTuple):
    """One try of a task instance: a row of its own in Airflow's tables."""

    ti_id: str
    number: int
    state: str
    queued: datetime.datetime | None
    running: datetime.datetime | None
    ended: datetime.datetime | None

    @property
    def times(self) -> dict[str, float]:
        """When Airflow queued it and its worker reported it RUNNING."""
        moments = {"queued": self.queued, "running": self.running}
        return {name: moment.timestamp() for name, moment in moments.items() if moment is not None}


def read_tab(session: Session, ti: TaskInstance, mask: Mask) -> TaskTab:
    """Return the tab's content. ``mask``: hides secrets in a text. Raises SQLAlchemy's errors."""
    now, tries = time.time(), _tries(session, ti)
    executors = {snapshot.executor: snapshot for snapshot in read_executors()}
    in_flight = read_in_flight([attempt.ti_id for attempt in tries])
    # The executor describes the pods that a user looks at; the answer is there when the page asks again.
    look_at({pod.unique_id: executor for executor, pod in in_flight})
    events = _events(session, ti)
    lives = life_of(_facts(tries, in_flight, events), now)
    newest = lives[0].status if lives and lives[0].facts.try_number >= ti.try_number else _without_pod(ti)
    notes = (stale_note(executors.get(executor), now) for executor, _ in in_flight)
    return {
        "task": {
            "dag_id": ti.dag_id,
            "run_id": ti.run_id,
            "task_id": ti.task_id,
            "map_index": ti.map_index,
            "try_number": ti.try_number,
            "state": str(ti.state or ""),
        },
        "now": now,
        "stale": next((note for note in notes if note), ""),
        "lives": any(life.facts.lives for life in lives) or str(ti.state) in ("queued", "running", "restarting"),
        "status": _status(newest, mask),
        "pods": [_pod(life, mask) for life in lives],
        "events": [{**event, "text": mask(event["text"])} for event in events],
    }


def stale_note(snapshot: ExecutorSnapshot | None, now: float) -> str:
    """Return what to say about pods of an executor that has stopped reporting, "" for one that reports."""
    if snapshot is None:
        return "The scheduler that runs this pod has stopped reporting: the page may be out of date."
    if not snapshot.is_stale(datetime.datetime.fromtimestamp(now, datetime.UTC)):
        return ""
    age = now - snapshot.seen_at.timestamp()
    return f"Stale: the scheduler last reported {age:.0f} s ago; the page may be out of date."


# --- from the tables --------------------------------------------------------------------------------------------------


def _tries(session: Session, ti: TaskInstance) -> list[_Try]:
    """Return the tries of a task instance, the newest first."""
    key = {name: getattr(ti, name) for name in ("dag_id", "task_id", "run_id", "map_index")}
    past = TaskInstanceHistory
    query = (
        select(past.task_instance_id, past.try_number, past.state, past.queued_dttm, past.start_date, past.end_date)
        .filter_by(**key)
        .order_by(past.try_number.desc())
        .limit(_MAX_TRIES)
    )
    now = _Try(str(ti.id), ti.try_number, str(ti.state or ""), ti.queued_dttm, ti.start_date, ti.end_date)
    rows = session.execute(query).all()
    return [now, *(_Try(str(row[0]), row[1], str(row[2] or ""), *row[3:]) for row in rows if str(row[0]) != now.ti_id)]


def _events(session: Session, ti: TaskInstance) -> list[TabEvent]:
    """Return what the executor reported of all tries, the newest first."""
    query = (
        select(Log.dttm, Log.try_number, Log.event, Log.extra)
        .filter_by(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=ti.map_index)
        .where(Log.event.in_(POD_EVENTS))
        .order_by(Log.dttm.desc())
        .limit(200)
    )
    return [
        {"at": at.timestamp() if at else None, "try": number, "event": event, "text": extra or ""}
        for at, number, event, extra in session.execute(query)
    ]


def _facts(
    tries: Sequence[_Try], in_flight: Iterable[tuple[str, PodInFlight]], events: Sequence[TabEvent]
) -> list[PodFacts]:
    """Return the pods of all tries; a try without any has one that says so."""
    by_id = {attempt.ti_id: attempt for attempt in tries}
    records = read_pods(list(by_id))
    ended = {(record.namespace, record.name) for record in records}
    living = [pod for _, pod in in_flight if (pod.namespace, pod.name) not in ended]
    known = {record.ti_id for record in records} | {pod.ti_id for pod in living}
    details = read_details([pod.unique_id for pod in living])
    return [
        *(_of_record(record) for record in records),
        *(
            _described(_of_pod_in_flight(pod, by_id[pod.ti_id], events), details.get(pod.unique_id, {}))
            for pod in living
        ),
        *(_unrecorded(attempt) for attempt in tries[1:] if attempt.ti_id not in known),
    ]


def _of_record(record: PodRecord) -> PodFacts:
    detail = record.detail
    return PodFacts(
        try_number=record.try_number,
        launch=record.launch,
        name=record.name,
        namespace=record.namespace,
        node=record.node,
        queue=record.queue,
        cluster=record.cluster,
        outcome=record.outcome,
        reason=record.reason,
        message=str(detail.get("message", "")),
        exit_code=record.exit_code,
        times=mapping(detail.get("times")),
        waited=_waited(detail),
        seconds=mapping(detail.get("seconds")),
        image=str(detail.get("image", "")),
        requests=mapping(detail.get("requests")),
        limits=mapping(detail.get("limits")),
        peak_memory=detail.get("peak_memory"),
        cpu=detail.get("cpu"),
        containers=mappings(detail.get("containers")),
        added=texts(detail.get("added")),
        events=mappings(detail.get("events")),
    )


def _waited(detail: Mapping[str, Json]) -> float | None:
    """Return the seconds for which a warm pod waited, None for a pod that was created for its task."""
    started, claimed = mapping(detail.get("waited")).get("started"), mapping(detail.get("times")).get("claimed")
    return max(0.0, claimed - started) if started and claimed else None


def _of_pod_in_flight(pod: PodInFlight, attempt: _Try, events: Iterable[TabEvent]) -> PodFacts:
    times = {"created": pod.created, "started": pod.started, "ended": pod.since if pod.phase == "ending" else 0.0}
    waits = (event for event in events if event["event"] == "pod waits" and event["try"] == attempt.number)
    return PodFacts(
        try_number=pod.try_number,
        launch=pod.launch,
        name=pod.name,
        namespace=pod.namespace,
        node=pod.node,
        queue=pod.queue,
        phase=pod.phase,
        reason=pod.reason,
        message=next((event["text"] for event in waits), "") if pod.phase in ("waiting", "pending") else "",
        times={**attempt.times, **{name: moment for name, moment in times.items() if moment}},
    )


def _described(facts: PodFacts, detail: Mapping[str, Json]) -> PodFacts:
    """Add the executor's description of a living pod."""
    return replace(
        facts,
        node=facts.node or str(detail.get("node", "")),
        times={**mapping(detail.get("times")), **facts.times},
        image=str(detail.get("image", "")),
        requests=mapping(detail.get("requests")),
        limits=mapping(detail.get("limits")),
        containers=mappings(detail.get("containers")),
        added=texts(detail.get("added")),
        events=mappings(detail.get("events")),
    )


def _unrecorded(attempt: _Try) -> PodFacts:
    return PodFacts(
        try_number=attempt.number,
        outcome=f"{attempt.state or 'no state'}, no record of its pod",
        message="The scheduler keeps no records ([crosswind] pod_history), or the record is older than archive_days.",
        times=attempt.times,
    )


_WITHOUT_POD = {
    "": ("neutral", "No pod yet", "The scheduler has not queued the task."),
    "scheduled": ("waiting", "No pod yet", "The task waits for a slot: of its pool, its DAG or [core] parallelism."),
    "queued": ("waiting", "Queued", "The executor has not reported a pod yet."),
    "running": ("running", "Running", "No scheduler reports its pod."),
    "restarting": ("waiting", "Restarting", "The task was cleared; its worker is ending."),
    "deferred": ("neutral", "Deferred", "The task waits in a triggerer and needs no pod."),
    "up_for_retry": ("waiting", "Waits for its next try", "Its retry delay has not passed."),
    "up_for_reschedule": ("waiting", "Waits to be rescheduled", "A sensor has no pod between two pokes."),
}


def _without_pod(ti: TaskInstance) -> StatusLine:
    state = str(ti.state or "")
    return StatusLine(*_WITHOUT_POD.get(state, ("neutral", f"No pod: {state}", "No record of a pod of this try.")))


# --- as JSON ----------------------------------------------------------------------------------------------------------


def _pod(life: PodLife, mask: Mask) -> TabPod:
    facts = life.facts
    return {
        "try_number": facts.try_number,
        "launch": facts.launch,
        "name": facts.name,
        "namespace": facts.namespace,
        "node": facts.node,
        "queue": facts.queue,
        "cluster": facts.cluster,
        "image": facts.image,
        "reason": facts.reason,
        "exit_code": facts.exit_code,
        "lives": facts.lives,
        "status": _status(life.status, mask),
        "parts": [_part(part) for part in life.parts],
        "memory": _memory(life.memory),
        "cpu": facts.cpu,
        "waited": "" if facts.waited is None else show_seconds(facts.waited),
        "times": dict(facts.times),
        "containers": [dict(container) for container in facts.containers],
        "added": list(facts.added),
        "events": [{**event, "message": mask(str(event.get("message", "")))} for event in facts.events],
    }


def _status(status: StatusLine, mask: Mask) -> StatusRow:
    return {"tone": status.tone, "title": mask(status.title), "text": mask(status.text)}


def _part(part: LifePart) -> TabPart:
    return {
        "name": part.name,
        "label": part.label,
        "start": part.start,
        "seconds": part.seconds,
        "share": part.share,
        "is_largest": part.is_largest,
        "is_open": part.is_open,
        "is_task": part.is_task,
        "shown": part.shown,
    }


def _memory(use: MemoryUse | None) -> MemoryRow | None:
    if use is None:
        return None
    return {"peak": use.peak, "request": use.request, "limit": use.limit, "share": use.share, "text": use.text}
