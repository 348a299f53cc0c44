"""What the page of the fleet shows, as JSON: the pods in flight, what they wait for, failures and memory of 24 hours.

The database counts, filters, sorts and pages. Every part holds only what the reader may see: ``readable`` are the DAGs
whose task instances they may read.
"""

from __future__ import annotations

import datetime
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, case, func, or_, select

from crosswind.pods.memory_fit import UsedMemory, worst_fits
from crosswind.pods.units import memory_bytes, show_bytes, show_seconds
from crosswind.provider.fleet_rows import FLEET, ExecutorSnapshot, read_executors
from crosswind.provider.page_content import (
    ExecutorRow,
    FailureRow,
    FleetHead,
    FleetPage,
    FleetPods,
    FleetSummary,
    GroupRow,
    MemoryFitRow,
    WaitRow,
    WarmPods,
)
from crosswind.provider.pod_rows import PODS
from crosswind.provider.tables import read_rows

__all__ = ["MAX_PER_PAGE", "PHASES", "FleetQuery", "forget_recent", "read_fleet_page", "read_summary"]

PHASES = ("waiting", "pending", "running", "ending", "adopting")
MAX_PER_PAGE = 200

_DAY = datetime.timedelta(days=1)
"""Not since midnight: in the morning the night's runs are what counts, and nobody has to agree on a time zone."""
_SORTS = {
    "since": FLEET.c.since,
    "task": FLEET.c.dag_id,
    "queue": FLEET.c.queue,
    "namespace": FLEET.c.namespace,
    "phase": FLEET.c.phase,
    "reason": FLEET.c.reason,
    "node": FLEET.c.node,
}
_WAITING = ("waiting", "pending", "adopting")
_WAITS_FIRST = case((FLEET.c.phase.in_(_WAITING), 0), else_=1)
_EXACT = ("phase", "queue", "namespace", "dag_id", "reason")
_MAX_FITS_READ = 2_000
"""Rows whose memory is compared: the newest of a day."""
_MAX_GROUPS = 5
_MAX_WAITS = 8
_WARM = "crosswind.warm_pods:"
"""Name of the gauge of a pool's ready pods, before the pool's name."""
_SILENT_WATCH_S = 150.0
"""A healthy watch reports every minute."""


@dataclass(frozen=True, slots=True)
class FleetQuery:
    """Which pods to list; an empty field selects any value."""

    phase: str = ""
    queue: str = ""
    namespace: str = ""
    dag_id: str = ""
    reason: str = ""
    search: str = ""
    """A part of the id of DAG, run or task, or of the pod's name."""
    sort: str = ""
    """One of ``_SORTS``, behind ``-`` in descending order. "": those that wait for longest first, then the others."""
    limit: int = 50
    offset: int = 0


@dataclass(frozen=True, slots=True)
class _Group:
    """Pods in flight that share phase, queue, namespace, DAG and reason."""

    phase: str
    queue: str
    namespace: str
    dag_id: str
    reason: str
    pods: int
    oldest: float


def read_fleet_page(readable: Collection[str], query: FleetQuery) -> FleetPage:
    """Return the page. Raises SQLAlchemy's errors."""
    now, groups = time.time(), _groups(readable)
    counts = Counter[str]()
    for group in groups:
        counts[group.phase] += group.pods
    return {
        **_head(groups, counts, now),
        "by": {name: _by(groups, name) for name in ("queue", "namespace", "dag_id")},
        "waits": _waits(groups, now),
        "pods": _pods(query, groups, readable, now),
        "failures": _failures(readable),
        "fits": _fits(readable),
    }


def read_summary(readable: Collection[str]) -> FleetSummary:
    """Return what the card of the dashboard shows. Raises SQLAlchemy's errors."""
    now, groups = time.time(), _groups(readable)
    counts = Counter[str]()
    for group in groups:
        counts[group.phase] += group.pods
    failures = _failures(readable)
    return {
        **_head(groups, counts, now),
        "waits": _waits(groups, now)[:3],
        "failures": failures[:3],
        "failed": sum(failure["pods"] for failure in failures),
    }


# --- now --------------------------------------------------------------------------------------------------------------


def _groups(readable: Collection[str]) -> list[_Group]:
    """Return the pods in flight of readable DAGs, counted in one statement."""
    keys = [FLEET.c[name] for name in _EXACT]
    query = select(*keys, func.count().label("pods"), func.min(FLEET.c.since).label("oldest")).group_by(*keys)
    groups = (_Group(**row) for row in read_rows(query, FLEET))
    return [group for group in groups if group.dag_id in readable]


def _head(groups: Sequence[_Group], counts: Counter[str], now: float) -> FleetHead:
    executors = [_executor(snapshot, now) for snapshot in read_executors()]
    return {
        "now": now,
        "total": sum(counts.values()),
        "phases": [{"phase": phase, "pods": counts[phase]} for phase in PHASES if counts[phase] or phase != "adopting"],
        "executors": executors,
        "warm": _warm(executors),
        "stale": _staleness(executors, bool(groups)),
    }


def _executor(snapshot: ExecutorSnapshot, now: float) -> ExecutorRow:
    gauges = snapshot.gauges
    silence, pace = gauges.get("crosswind.watch_silence", 0.0), gauges.get("crosswind.creation_pace")
    is_stale = snapshot.is_stale(datetime.datetime.fromtimestamp(now, datetime.UTC))
    return {
        "executor": snapshot.executor,
        "age": max(0.0, now - snapshot.seen_at.timestamp()),
        "stale": is_stale,
        "watch_silence": silence,
        "watch_ok": silence < _SILENT_WATCH_S,
        "creation_pace": pace,
        "held_back": int(gauges.get("crosswind.tasks_held_back", 0)),
        "logs_to_keep": int(gauges.get("crosswind.logs_to_keep", 0)),
        "warm": {name.removeprefix(_WARM): int(number) for name, number in gauges.items() if name.startswith(_WARM)},
        "warm_starting": int(gauges.get("crosswind.warm_pods_starting", 0)),
    }


def _warm(executors: Sequence[ExecutorRow]) -> WarmPods | None:
    """Return how many pods wait for tasks, None where no executor has a pool. They belong to no DAG: counts only."""
    pools = Counter[str]()
    for executor in executors:
        pools.update({} if executor["stale"] else executor["warm"])
    if not pools:
        return None
    starting = sum(executor["warm_starting"] for executor in executors if not executor["stale"])
    return {
        "ready": pools.total(),
        "starting": starting,
        "pools": [{"pool": pool, "pods": pods} for pool, pods in sorted(pools.items())],
    }


def _staleness(executors: Sequence[ExecutorRow], has_pods: bool) -> str:
    """Return a remark where the page may be out of date, "" where it is not."""
    if not executors:
        return "" if not has_pods else "No scheduler reports; the page may be out of date."
    stale = [executor for executor in executors if executor["stale"]]
    if not stale:
        return ""
    if len(stale) < len(executors):
        return f"Partly stale: {len(stale)} of {len(executors)} schedulers have stopped reporting."
    newest = min(executor["age"] for executor in executors)
    return f"Stale: no scheduler has reported for {show_seconds(newest)}; the page may be out of date."


def _by(groups: Iterable[_Group], name: str) -> list[GroupRow]:
    """Return the values of a field with most pods, and how many pods the others have."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for group in groups:
        counts[getattr(group, name)][group.phase] += group.pods
    ranked = sorted(counts.items(), key=lambda item: (-item[1].total(), item[0]))
    shown: list[GroupRow] = [
        {"value": value, "pods": phases.total(), "phases": dict(phases)} for value, phases in ranked[:_MAX_GROUPS]
    ]
    if others := [phases.total() for _, phases in ranked[_MAX_GROUPS:]]:
        shown.append({"value": None, "others": len(others), "pods": sum(others), "phases": {}})
    return shown


def _waits(groups: Iterable[_Group], now: float) -> list[WaitRow]:
    """Return what pods wait for, the longest wait first."""
    waits: dict[tuple[str, str], WaitRow] = {}
    for group in groups:
        if group.phase not in _WAITING:
            continue
        first: WaitRow = {
            "phase": group.phase,
            "reason": group.reason,
            "pods": 0,
            "oldest": group.oldest,
            "dag_id": group.dag_id,
            "shown": "",
        }
        wait = waits.setdefault((group.phase, group.reason), first)
        wait["pods"] += group.pods
        if group.oldest < wait["oldest"]:
            wait["oldest"], wait["dag_id"] = group.oldest, group.dag_id
    ranked = sorted(waits.values(), key=lambda wait: wait["oldest"])
    return [{**wait, "shown": show_seconds(max(0.0, now - wait["oldest"]))} for wait in ranked[:_MAX_WAITS]]


def _pods(query: FleetQuery, groups: Sequence[_Group], readable: Collection[str], now: float) -> FleetPods:
    clauses = _clauses(query, groups, readable)
    order = _SORTS.get(query.sort.removeprefix("-"), _WAITS_FIRST)
    listed = (
        select(FLEET)
        .where(*clauses)
        .order_by(order.desc() if query.sort.startswith("-") else order, FLEET.c.since, FLEET.c.unique_id)
        .limit(max(1, min(query.limit, MAX_PER_PAGE)))
        .offset(max(0, query.offset))
    )
    rows = read_rows(listed, FLEET)
    if query.search:
        (total,) = (row["pods"] for row in read_rows(_counted(clauses), FLEET)) if rows else (0,)
    else:
        total = sum(group.pods for group in groups if _is_selected(group, query))
    shown: list[Any] = [{**row, "shown": show_seconds(max(0.0, now - row["since"]))} for row in rows]
    return {"total": total, "rows": shown}


def _counted(clauses: Sequence[ColumnElement[bool]]) -> Select[Any]:
    return select(func.count().label("pods")).select_from(FLEET).where(*clauses)


def _is_selected(group: _Group, query: FleetQuery) -> bool:
    return all(getattr(query, name) in ("", getattr(group, name)) for name in _EXACT)


def _clauses(query: FleetQuery, groups: Sequence[_Group], readable: Collection[str]) -> list[ColumnElement[bool]]:
    clauses: list[ColumnElement[bool]] = [FLEET.c[name] == value for name in _EXACT if (value := getattr(query, name))]
    # Only DAGs with pods in flight: a deployment may have more DAGs than a statement takes parameters.
    clauses.append(FLEET.c.dag_id.in_(sorted({group.dag_id for group in groups if group.dag_id in readable})))
    if query.search:
        names = ("dag_id", "task_id", "run_id", "name")
        clauses.append(or_(*(FLEET.c[name].icontains(query.search, autoescape=True) for name in names)))
    return clauses


# --- of the last day --------------------------------------------------------------------------------------------------

Value = TypeVar("Value")


class _Recent(Generic[Value]):
    """What was read less than ``seconds`` ago, for all readers: a day of records is read once for all of them."""

    def __init__(self, read: Callable[[], Value], seconds: float) -> None:
        self._read, self._seconds = read, seconds
        self._lock = threading.Lock()
        self._value: Value | None = None
        self._at = 0.0

    def get(self) -> Value:
        with self._lock:
            if self._value is None or time.monotonic() - self._at > self._seconds:
                self._value, self._at = self._read(), time.monotonic()
            return self._value

    def forget(self) -> None:
        with self._lock:
            self._value = None


def _since() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) - _DAY


def _read_failures() -> list[tuple[str, str, str, int]]:
    columns = PODS.c.dag_id, PODS.c.outcome, PODS.c.reason
    query = (
        select(*columns, func.count().label("pods"))
        .where(PODS.c.ended_at >= _since(), PODS.c.outcome.in_(("failed", "lost")))
        .group_by(*columns)
    )
    return [(row["dag_id"], row["outcome"], row["reason"], row["pods"]) for row in read_rows(query, PODS)]


def _read_memory() -> list[UsedMemory]:
    columns = PODS.c.dag_id, PODS.c.task_id, PODS.c.reason, PODS.c.detail
    query = select(*columns).where(PODS.c.ended_at >= _since()).order_by(PODS.c.ended_at.desc()).limit(_MAX_FITS_READ)
    used = (_used_memory(**row) for row in read_rows(query, PODS))
    return [memory for memory in used if memory.peak is not None or memory.out_of_memory]


def _used_memory(dag_id: str, task_id: str, reason: str, detail: str) -> UsedMemory:
    known = json.loads(detail)
    request, limit = (memory_bytes((known.get(name) or {}).get("memory")) for name in ("requests", "limits"))
    return UsedMemory(dag_id, task_id, known.get("peak_memory"), request, limit, reason == "OOMKilled")


_recent_failures = _Recent(_read_failures, 15.0)
_recent_memory = _Recent(_read_memory, 60.0)


def forget_recent() -> None:
    """Read the day's records anew with the next request."""
    _recent_failures.forget()
    _recent_memory.forget()


def _failures(readable: Collection[str]) -> list[FailureRow]:
    """Return the pods that failed or were lost in the last 24 hours, by reason, the most frequent first."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for dag_id, outcome, reason, pods in _recent_failures.get():
        if dag_id in readable:
            counts[reason or outcome][dag_id] += pods
    ranked = sorted(counts.items(), key=lambda item: -item[1].total())
    return [
        {"reason": reason, "pods": dags.total(), "dags": len(dags), "dag_id": dags.most_common(1)[0][0]}
        for reason, dags in ranked
    ]


def _fits(readable: Collection[str]) -> list[MemoryFitRow]:
    """Return the tasks whose memory fits worst."""
    fits = worst_fits(memory for memory in _recent_memory.get() if memory.dag_id in readable)
    return [
        {
            "dag_id": fit.dag_id,
            "task_id": fit.task_id,
            "pods": fit.pods,
            "tight": fit.is_tight,
            "share": fit.share,
            "peak": show_bytes(fit.peak) if fit.peak else "",
            "request": show_bytes(fit.request) if fit.request else "",
            "limit": show_bytes(fit.limit) if fit.limit else "",
            "text": fit.text,
        }
        for fit in fits
    ]
