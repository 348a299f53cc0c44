"""The JSON documents of the tab *Pod*, of the page *Pods* and of the dashboard's card.

``pod_page`` and ``fleet_page`` make them; ``page_html`` and ``pages/crosswind.js`` show them. Moments are seconds since
1970, durations seconds; ``shown`` is a duration for people. A text is "" and a number None where it is not known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

__all__ = [
    "ExecutorRow",
    "FailureRow",
    "FleetHead",
    "FleetPage",
    "FleetPods",
    "FleetSummary",
    "GroupRow",
    "MemoryFitRow",
    "MemoryRow",
    "PhaseCount",
    "PodInFlightRow",
    "PoolCount",
    "StatusRow",
    "TabEvent",
    "TabPart",
    "TabPod",
    "TabTask",
    "TaskTab",
    "WaitRow",
    "WarmPods",
]


# --- the tab ----------------------------------------------------------------------------------------------------------


class StatusRow(TypedDict):
    """What a pod does now, or how it ended. ``tone``: success, failed, running, waiting or neutral."""

    tone: str
    title: str
    text: str


class TabPart(TypedDict):
    """A part of a pod's time; ``share`` is of all its parts."""

    name: str
    label: str
    start: float
    seconds: float
    share: float
    is_largest: bool
    is_open: bool
    is_task: bool
    shown: str


class MemoryRow(TypedDict):
    """Bytes; ``share`` is the peak's, of the limit or else of the request."""

    peak: int | None
    request: int | None
    limit: int | None
    share: float | None
    text: str


class TabPod(TypedDict):
    """One pod of a task instance; ``launch`` is 0 for the first of a try."""

    try_number: int
    launch: int
    name: str
    namespace: str
    node: str
    queue: str
    cluster: str
    image: str
    reason: str
    exit_code: int | None
    lives: bool
    status: StatusRow
    parts: Sequence[TabPart]
    memory: MemoryRow | None
    cpu: float | None
    waited: str
    times: Mapping[str, float]
    containers: Sequence[Mapping[str, Any]]
    added: Sequence[str]
    events: Sequence[Mapping[str, Any]]


TabEvent = TypedDict("TabEvent", {"at": float | None, "try": int | None, "event": str, "text": str})
"""An entry of the executor in Airflow's event log."""


class TabTask(TypedDict):
    """The task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    state: str


class TaskTab(TypedDict):
    """The tab; ``pods`` of all tries, the newest first."""

    task: TabTask
    now: float
    stale: str
    lives: bool
    status: StatusRow
    pods: Sequence[TabPod]
    events: Sequence[TabEvent]


# --- the fleet --------------------------------------------------------------------------------------------------------


class PhaseCount(TypedDict):
    """Pods in a phase."""

    phase: str
    pods: int


class ExecutorRow(TypedDict):
    """The last report of a scheduler; ``age`` and ``watch_silence`` in seconds, ``warm`` ready pods by pool."""

    executor: str
    age: float
    stale: bool
    watch_silence: float
    watch_ok: bool
    creation_pace: float | None
    held_back: int
    logs_to_keep: int
    warm: Mapping[str, int]
    warm_starting: int


class PoolCount(TypedDict):
    """Ready pods of a warm pool."""

    pool: str
    pods: int


class WarmPods(TypedDict):
    """Pods that wait for tasks."""

    ready: int
    starting: int
    pools: Sequence[PoolCount]


class GroupRow(TypedDict):
    """Pods that share a value; ``value`` None stands for the ``others`` values that are not listed."""

    value: str | None
    others: NotRequired[int]
    pods: int
    phases: Mapping[str, int]


class WaitRow(TypedDict):
    """Pods that wait for the same; ``dag_id`` is of the one that has waited longest."""

    phase: str
    reason: str
    pods: int
    oldest: float
    dag_id: str
    shown: str


class PodInFlightRow(TypedDict):
    """A pod in flight, with the columns of its row."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    phase: str
    reason: str
    queue: str
    namespace: str
    node: str
    shown: str


class FleetPods(TypedDict):
    """One page of the pods that a query selects, and how many there are."""

    total: int
    rows: Sequence[PodInFlightRow]


class FailureRow(TypedDict):
    """Pods of the last 24 hours that failed for one reason; ``dag_id`` is the DAG with most of them."""

    reason: str
    pods: int
    dags: int
    dag_id: str


class MemoryFitRow(TypedDict):
    """The memory of a task against its request and limit; ``tight``: it needs more."""

    dag_id: str
    task_id: str
    pods: int
    tight: bool
    share: float | None
    peak: str
    request: str
    limit: str
    text: str


class FleetHead(TypedDict):
    """What the page and the card have in common; ``stale`` is a remark where they may be out of date."""

    now: float
    total: int
    phases: Sequence[PhaseCount]
    executors: Sequence[ExecutorRow]
    warm: WarmPods | None
    stale: str


class FleetPage(FleetHead):
    """The page *Pods*; ``by``: queue, namespace and dag_id."""

    by: Mapping[str, Sequence[GroupRow]]
    waits: Sequence[WaitRow]
    pods: FleetPods
    failures: Sequence[FailureRow]
    fits: Sequence[MemoryFitRow]


class FleetSummary(FleetHead):
    """The dashboard's card; ``failed``: pods of the last 24 hours."""

    waits: Sequence[WaitRow]
    failures: Sequence[FailureRow]
    failed: int
