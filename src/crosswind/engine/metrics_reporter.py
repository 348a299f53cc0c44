"""The engine's metrics: counters and timings are added up as events happen, and reported every few seconds.

``report_metrics`` is a task of the engine and ends when the engine cancels it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeAlias

from crosswind.engine.state import RunStage, WorkerRun
from crosswind.kube.requests import Request

__all__ = ["MetricsSink", "RunMetrics", "report_metrics", "run_gauges"]

log = logging.getLogger(__name__)

REPORT_EVERY_S = 5.0

_MAX_TIMINGS = 500
"""Timings per metric and label in one report: enough for quantiles, and a bound for a burst of thousands."""

_POD_VERBS = {"create": "creation", "delete": "deletion", "patch": "patching"}

_PHASES = {
    RunStage.WAITING: "waiting",
    RunStage.CREATED: "pending",
    RunStage.RUNNING: "running",
    RunStage.ENDED: "ending",
}

Gauges: TypeAlias = dict[tuple[str, str], float]
"""Values by metric and label."""

Timings: TypeAlias = defaultdict[tuple[str, str], deque[float]]
"""Seconds by metric and label."""


class MetricsSink(Protocol):
    """Receives metrics by their names in ``crosswind.metrics``; ``value`` is the label's value, "" for no label.

    Every method is called in a thread that may block.
    """

    def count(self, name: str, number: int, value: str) -> None:
        """Add to a counter."""
        ...

    def gauge(self, name: str, number: float, value: str) -> None:
        """Set a gauge."""
        ...

    def timing(self, name: str, seconds: float, value: str) -> None:
        """Record a duration."""
        ...


class RunMetrics:
    """Counters and timings since the last report. Belongs to the engine's event loop."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.timings = _no_timings()

    def count(self, name: str, value: str = "", number: int = 1) -> None:
        """Add to a counter."""
        self.counts[name, value] += number

    def observe(self, name: str, seconds: float, value: str = "") -> None:
        """Record a duration; of more than the maximum the latest are kept."""
        self.timings[name, value].append(max(0.0, seconds))

    def take(self) -> tuple[Counter[tuple[str, str]], Timings]:
        """Return counters and timings, and reset them."""
        taken = self.counts, self.timings
        self.counts, self.timings = Counter(), _no_timings()
        return taken

    def observe_request(self, request: Request, status: int, seconds: float) -> None:
        """Record a request to the API server; ``status`` is 0 if no answer came."""
        label = str(status) if status else "error"
        if status == 0 or status == 429 or status >= 500:
            self.count("crosswind.pushed_back", label)
        if request.subject == "pods" and (verb := _POD_VERBS.get(request.verb)):
            # The stock executor labels every success 200; the API server answers a creation with 201.
            self.count(f"kubernetes_executor.pod_{verb}_status", "200" if 200 <= status < 300 else label)
            self.observe(f"kubernetes_executor.pod_{verb}", seconds)

    def observe_run(self, run: WorkerRun) -> None:
        """Record how long a finished run spent in each phase; of an adopted one only the last phase is known."""
        times, now = run.times, time.monotonic()
        if not times.created:
            return
        phases = [("ending", times.ended, now)]
        if run.workload.payload is not None:
            phases += [
                ("waiting", times.requested, times.created),
                ("pending", times.created, times.started),
                ("running", times.started, times.ended),
            ]
        for phase, since, until in phases:
            if since and until:
                self.observe("crosswind.pod_phase", until - since, phase)


async def report_metrics(
    sink: MetricsSink,
    metrics: RunMetrics,
    runs: Callable[[], Iterable[WorkerRun]],
    more_gauges: Callable[[], Mapping[str, float]],
) -> None:
    """Report until cancelled. ``more_gauges``: further gauges, by name; a label's value follows a colon.

    A gauge that has disappeared, such as one of a wait reason that no pod has any longer, is set to 0 once.
    """
    before: Gauges = {}
    while True:
        await asyncio.sleep(REPORT_EVERY_S)
        gauges = run_gauges(runs())
        for key, number in more_gauges().items():
            name, _, value = key.partition(":")
            gauges[name, value] = number
        counts, timings = metrics.take()
        try:  # in a thread, because a StatsD or OpenTelemetry client may block on the network
            await asyncio.to_thread(_send, sink, counts, timings, dict.fromkeys(before, 0.0) | gauges)
        except Exception:
            log.exception("Metrics could not be reported")
        before = gauges


def run_gauges(runs: Iterable[WorkerRun]) -> Gauges:
    """Return the number of pods by phase, and of pods that wait for a known reason by that reason."""
    phases: Counter[str] = Counter(dict.fromkeys(_PHASES.values(), 0))
    reasons: Counter[str] = Counter()
    for run in runs:
        phase = _PHASES.get(run.stage)
        if phase is None or (phase == "ending" and run.pod_gone):
            continue
        phases[phase] += 1
        if phase in ("waiting", "pending") and run.wait is not None and run.wait.reason:
            reasons[run.wait.reason] += 1
    return {("crosswind.pods", phase): float(number) for phase, number in phases.items()} | {
        ("crosswind.pods_held_up", reason): float(number) for reason, number in reasons.items()
    }


def _send(
    sink: MetricsSink,
    counts: Mapping[tuple[str, str], int],
    timings: Mapping[tuple[str, str], Iterable[float]],
    gauges: Gauges,
) -> None:
    for (name, value), number in counts.items():
        sink.count(name, number, value)
    for (name, value), durations in timings.items():
        for seconds in durations:
            sink.timing(name, seconds, value)
    for (name, value), amount in gauges.items():
        sink.gauge(name, amount, value)


def _no_timings() -> Timings:
    return defaultdict(lambda: deque(maxlen=_MAX_TIMINGS))
