"""Telling figures every few seconds: what was counted meanwhile, and how things stand."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from crosswind.runs.board import Board
from crosswind.runs.workloads import Run, Stage

__all__ = ["Meter", "metering", "standing_figures"]

log = logging.getLogger(__name__)

EVERY = 5.0
"""Seconds between two tellings."""

_PHASES = {Stage.WAITING: "waiting", Stage.CREATED: "pending", Stage.BEGUN: "running", Stage.ENDED: "ending"}

Gauges = dict[tuple[str, str], float]
"""Values by metric and label."""


class Meter(Protocol):
    """Where figures go, by the names of ``crosswind.metrics``; ``value``: the label's, "" for none.

    Called in a thread where waiting is allowed.
    """

    def count(self, name: str, number: int, value: str) -> None:
        """Add to a counter."""
        ...

    def gauge(self, name: str, number: float, value: str) -> None:
        """Set a gauge."""
        ...

    def timing(self, name: str, seconds: float, value: str) -> None:
        """Tell a time."""
        ...


async def metering(meter: Meter, board: Board, more: Callable[[], Mapping[str, float]]) -> None:
    """Tell until cancelled. ``more``: gauges without a label, by name. A gauge that is no more is set to 0."""
    before: Gauges = {}
    while True:
        await asyncio.sleep(EVERY)
        gauges = standing_figures(board.runs.values()) | {(name, ""): number for name, number in more().items()}
        counts, times = board.tally.take()
        try:
            await asyncio.to_thread(_tell, meter, counts, times, dict.fromkeys(before, 0.0) | gauges)
        except Exception:
            log.exception("Metrics could not be told")
        before = gauges


def standing_figures(runs: Iterable[Run]) -> Gauges:
    """Return how many pods are in each phase, and how many are held up, by reason."""
    phases: Counter[str] = Counter(dict.fromkeys(_PHASES.values(), 0))
    reasons: Counter[str] = Counter()
    for run in runs:
        phase = _PHASES.get(run.stage)
        if phase is None or (phase == "ending" and run.gone):
            continue
        phases[phase] += 1
        if phase in ("waiting", "pending") and run.held_up:
            reasons[run.held_up] += 1
    return {("crosswind.pods", phase): float(number) for phase, number in phases.items()} | {
        ("crosswind.pods_held_up", reason): float(number) for reason, number in reasons.items()
    }


def _tell(
    meter: Meter,
    counts: Mapping[tuple[str, str], int],
    times: Mapping[tuple[str, str], Iterable[float]],
    gauges: Gauges,
) -> None:
    for (name, value), number in counts.items():
        meter.count(name, number, value)
    for (name, value), found in times.items():
        for seconds in found:
            meter.timing(name, seconds, value)
    for (name, value), amount in gauges.items():
        meter.gauge(name, amount, value)
