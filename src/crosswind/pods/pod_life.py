"""The life of one worker pod as people read it: a status line, the parts of its time, memory against its limit. Pure.

The tab *Pod* and the commands show the same view. It is built from a ``PodFacts``: of a pod that is gone the record
that the executor keeps, of one that lives what the snapshot has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from crosswind.pods.causes import exit_code_meaning
from crosswind.pods.fields import mapping
from crosswind.pods.units import memory_bytes, show_bytes, show_seconds

__all__ = ["LifePart", "MemoryUse", "PodFacts", "PodLife", "StatusLine", "Tone", "life_of", "pod_life"]

Tone = str
"""How to colour a status: success, failed, running, waiting or neutral."""


@dataclass(frozen=True, slots=True)
class PodFacts:
    """The known facts of one pod of a task instance; texts are "", numbers None where they are not known."""

    try_number: int = 1
    launch: int = 0
    """0 for the first pod of a try."""
    name: str = ""
    namespace: str = ""
    node: str = ""
    queue: str = ""
    cluster: str = ""
    phase: str = ""
    """adopting, waiting (to be created), pending, running, ending; "" once it is gone."""
    outcome: str = ""
    """success, failed, lost, revoked; "" while it lives."""
    reason: str = ""
    """One word: why it failed, or what it waits for."""
    message: str = ""
    """A sentence with cause and fix."""
    exit_code: int | None = None
    """Of the base container."""
    times: Mapping[str, float] = field(default_factory=dict)
    """Moments in seconds since 1970, by the names in ``_MOMENTS``."""
    waited: float | None = None
    """Seconds for which a warm pod waited for this task."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """What the worker measured: imports, bundle, parse, run."""
    image: str = ""
    requests: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    peak_memory: int | None = None
    """Bytes."""
    cpu: float | None = None
    """Seconds."""
    containers: Sequence[Mapping[str, Any]] = ()
    """Those beside base: name, kind, state, exit_code, injected."""
    added: Sequence[str] = ()
    """Other fields that injectors and admission added, as ``added_fields`` names them."""
    events: Sequence[Mapping[str, Any]] = ()
    """reason, message, at (seconds since 1970)."""

    @property
    def lives(self) -> bool:
        """Whether the pod exists or is still to be created."""
        return bool(self.phase)


class StatusLine(NamedTuple):
    """What a pod does now, or how it ended."""

    tone: Tone
    title: str
    text: str
    """Cause and fix of a failure, or what the pod waits for."""


@dataclass(frozen=True, slots=True)
class LifePart:
    """A part of a pod's time."""

    name: str
    """The moment that ends it, or what the worker did."""
    label: str
    start: float
    """Seconds since 1970."""
    seconds: float
    share: float
    """Of all parts, between 0 and 1."""
    is_largest: bool = False
    is_open: bool = False
    """It has not ended yet."""
    is_task: bool = False
    """The task's own code."""

    @property
    def shown(self) -> str:
        """Its duration for people."""
        return show_seconds(self.seconds)


class MemoryUse(NamedTuple):
    """Peak memory of the base container against what it asked for, in bytes."""

    peak: int | None
    request: int | None
    limit: int | None
    share: float | None
    """Of the limit, or of the request where there is no limit; None where nothing can be compared."""
    text: str


@dataclass(frozen=True, slots=True)
class PodLife:
    """What to show of one pod."""

    facts: PodFacts
    status: StatusLine
    parts: Sequence[LifePart]
    memory: MemoryUse | None

    @property
    def total(self) -> float:
        """Seconds of all parts."""
        return sum(part.seconds for part in self.parts)


def pod_life(facts: PodFacts, now: float) -> PodLife:
    """Return what to show of a pod. ``now``: seconds since 1970, to which the last part of a living pod extends."""
    return PodLife(facts, _status(facts, now), _parts(facts, now), _memory(facts))


def life_of(pods: Iterable[PodFacts], now: float) -> list[PodLife]:
    """Return all pods of a task instance, the newest first: by try, launch and the time of their first moment."""

    def order(facts: PodFacts) -> tuple[int, int, bool, float]:
        return facts.try_number, facts.launch, facts.lives, min(facts.times.values(), default=0.0)

    return [pod_life(facts, now) for facts in sorted(pods, key=order, reverse=True)]


# --- the status line --------------------------------------------------------------------------------------------------

_LIVING = {
    "adopting": ("waiting", "Is being adopted", "Another scheduler created the pod; this one is looking for it."),
    "waiting": ("waiting", "Waits to be created", ""),
    "pending": ("waiting", "Waits in the cluster", ""),
    "running": ("running", "Running", ""),
    "ending": ("neutral", "The task has ended", "The pod's other containers end, then the pod is deleted."),
}
_SINCE = {"waiting": "queued", "adopting": "queued", "pending": "created", "running": "started", "ending": "ended"}

_ENDED = {
    "success": ("success", "Succeeded"),
    "failed": ("failed", "Failed"),
    "lost": ("waiting", "Lost"),
    "revoked": ("neutral", "Ended by Airflow"),
}
_EXPLAINED = {
    "lost": "The pod no longer exists, so the progress of its task is unknown.",
    "revoked": "Airflow ended the task itself (cleared, marked, or past a time limit), and the pod was deleted.",
}


def _status(facts: PodFacts, now: float) -> StatusLine:
    if facts.lives:
        tone, title, explained = _LIVING.get(facts.phase, ("neutral", facts.phase, ""))
        since = facts.times.get(_SINCE.get(facts.phase, ""))
        duration = f" for {show_seconds(now - since)}" if since and facts.phase != "ending" else ""
        reason = f": {facts.reason}" if facts.reason else ""
        return StatusLine(tone, f"{title}{duration}{reason}", facts.message or explained)
    tone, title = _ENDED.get(facts.outcome, ("neutral", facts.outcome or "No record"))
    if facts.outcome == "success":
        return StatusLine(tone, f"{title}{_after(facts)}", "")
    reason = f": {facts.reason}" if facts.reason and facts.outcome != "revoked" else ""
    return StatusLine(tone, f"{title}{reason}{_after(facts)}", facts.message or _explained(facts))


def _after(facts: PodFacts) -> str:
    started, ended = _start(facts), facts.times.get("ended")
    return f" after {show_seconds(ended - started)}" if started and ended and ended >= started else ""


def _start(facts: PodFacts) -> float | None:
    """Return when the container that runs the task began with it: of a warm pod at its claim."""
    return facts.times.get("started", facts.times.get("claimed"))


def _explained(facts: PodFacts) -> str:
    if facts.outcome == "failed" and facts.exit_code:
        meaning = exit_code_meaning(facts.exit_code)
        return f"Exit code {facts.exit_code}" + (f": {meaning}." if meaning else "; the task's log says more.")
    return _EXPLAINED.get(facts.outcome, "")


# --- the parts of its time --------------------------------------------------------------------------------------------

_MOMENTS = {
    "queued": "",
    "claimed": "Claim of a warm pod",
    "created": "Until created",
    "scheduled": "Scheduling",
    "sandbox": "Network and volumes",
    "pulled": "Image pull",
    "initialized": "Init and sidecars",
    "started": "Container start",
    "running": "Worker start",
    "ended": "Task",
    "gone": "Sidecars and deletion",
}
"""The moments of a pod in their order, and what the time until each is spent on."""

_PHASES = {
    "imports": "Imports of Airflow",
    "bundle": "DAG bundle",
    "parse": "DAG file",
    "run": "User code",
}
"""What the worker measures of its own time, in its order."""

_NEXT = {"waiting": "created", "adopting": "scheduled", "pending": "scheduled", "running": "ended", "ending": "gone"}
_OPEN = {
    "waiting": "Waits to be created",
    "adopting": "Waits to be adopted",
    "pending": "Waits in the cluster",
    "running": "Runs",
    "ending": "Sidecars and deletion",
}


def _parts(facts: PodFacts, now: float) -> list[LifePart]:
    """Return the parts of a pod's time, one after the other, without those that took none."""
    parts = [*_closed_parts(facts)]
    if facts.lives and (last := max(facts.times.values(), default=0.0)) and now > last:
        name = _NEXT.get(facts.phase, "")
        is_task = facts.phase == "running"
        parts.append(LifePart(name, _OPEN.get(facts.phase, ""), last, now - last, 0.0, is_open=True, is_task=is_task))
    total = sum(part.seconds for part in parts)
    largest = max(parts, key=lambda part: part.seconds, default=None)
    return [replace(part, share=part.seconds / total, is_largest=part is largest) for part in parts if part.seconds > 0]


def _closed_parts(facts: PodFacts) -> Iterator[LifePart]:
    before: float | None = None
    measured = _measured(facts)
    for name, moment in _in_order(facts.times, skip="running" if measured else ""):
        if before is None:
            before = moment
            continue
        if name == "ended" and measured:
            parts = _worker_parts(measured, before, moment)
            before = parts[-1].start + parts[-1].seconds
        else:
            is_task = name == "ended" and _start(facts) is not None
            label = _MOMENTS[name] if is_task or name != "ended" else "Until it was given up"
            parts = [LifePart(name, label, before, moment - before, 0.0, is_task=is_task)]
            before = moment
        yield from parts


def _in_order(times: Mapping[str, float], skip: str) -> list[tuple[str, float]]:
    """Return the known moments; none is before another one that precedes it.

    The kubelet writes whole seconds of its node's clock, Airflow microseconds of its own, so moments may cross.
    """
    latest, ordered = 0.0, []
    known = [name for name in _MOMENTS if name in times and name != skip]
    for name in _pull_in_place(known, times):
        latest = max(latest, times[name])
        ordered.append((name, latest))
    return ordered


def _pull_in_place(names: Sequence[str], times: Mapping[str, float]) -> list[str]:
    """Return the names with ``pulled`` behind ``initialized`` if the image came after the init containers."""
    if "pulled" in names and "initialized" in names and times["pulled"] > times["initialized"]:
        others = [name for name in names if name != "pulled"]
        others.insert(others.index("initialized") + 1, "pulled")
        return others
    return list(names)


def _measured(facts: PodFacts) -> list[tuple[str, float]]:
    """Return what the worker measured between the container's start and its end; [] without both."""
    if _start(facts) is None or "ended" not in facts.times:
        return []
    return [(name, facts.seconds[name]) for name in _PHASES if facts.seconds.get(name)]


def _worker_parts(measured: Sequence[tuple[str, float]], moment: float, ended: float) -> list[LifePart]:
    """Return what the worker did from ``moment`` on, as it measured it."""
    parts = []
    for name, seconds in measured:
        parts.append(LifePart(name, _PHASES[name], moment, seconds, 0.0, is_task=name == "run"))
        moment += seconds
    if (rest := ended - moment) >= 0.05:
        parts.append(LifePart("ended", "Rest of the worker", moment, rest, 0.0))
    return parts


# --- memory -----------------------------------------------------------------------------------------------------------


def _memory(facts: PodFacts) -> MemoryUse | None:
    request, limit = (memory_bytes(mapping(part).get("memory")) for part in (facts.requests, facts.limits))
    peak, bound = facts.peak_memory, limit or request
    if peak is None and bound is None:
        return None
    share = peak / bound if peak is not None and bound else None
    if peak is None:
        used = "peak not measured"
    else:
        used = f"peak {show_bytes(peak)}" + (f", {share:.0%} of the {'limit' if limit else 'request'}" if share else "")
    bounds = [f"{name} {show_bytes(size)}" for name, size in (("request", request), ("limit", limit)) if size]
    return MemoryUse(peak, request, limit, share, "; ".join([used, *bounds]) if bounds else f"{used}; no limit")
