"""What happened since it was last told: counted where it happens, for as little as an addition."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from typing import TypeAlias

from crosswind.kube.requests import Request
from crosswind.runs.workloads import Run

__all__ = ["Tally"]

_MOST = 500
"""Times of one kind that are told at once: enough for quantiles, and no load."""

_VERBS = {"create": "creation", "delete": "deletion", "patch": "patching"}


Times: TypeAlias = defaultdict[tuple[str, str], deque[float]]


class Tally:
    """Counts and times by metric and label. Belongs to the engine's loop."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self.times = _times()

    def count(self, name: str, value: str = "") -> None:
        """Count one."""
        self.counts[name, value] += 1

    def took(self, name: str, seconds: float, value: str = "") -> None:
        """Note a time; of very many of one kind the latest are told."""
        self.times[name, value].append(max(0.0, seconds))

    def take(self) -> tuple[Counter[tuple[str, str]], Times]:
        """Return counts and times, and begin anew."""
        taken = self.counts, self.times
        self.counts, self.times = Counter(), _times()
        return taken

    def answered(self, request: Request, status: int, seconds: float) -> None:
        """Take note of a request; ``status`` 0 is no answer."""
        word = str(status) if status else "error"
        if status == 0 or status == 429 or status >= 500:
            self.count("crosswind.pushed_back", word)
        if request.subject == "pods" and (verb := _VERBS.get(request.verb)):
            # the word for success is stock's; the API server says 201 for a pod that it made
            self.count(f"kubernetes_executor.pod_{verb}_status", "200" if 200 <= status < 300 else word)
            self.took(f"kubernetes_executor.pod_{verb}", seconds)

    def over(self, run: Run) -> None:
        """Take note of a run's life: of an adopted one its end, else the phases whose beginning and end were seen."""
        now = time.monotonic()
        if not run.created_at:
            return
        moments = [("ending", run.over_at, now)]
        if run.workload.payload is not None:
            moments += [
                ("waiting", run.asked_at, run.created_at),
                ("pending", run.created_at, run.begun_at),
                ("running", run.begun_at, run.over_at),
            ]
        for phase, since, until in moments:
            if since and until:
                self.took("crosswind.pod_phase", until - since, phase)


def _times() -> Times:
    return defaultdict(lambda: deque(maxlen=_MOST))
