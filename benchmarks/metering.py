"""CPU and memory of a process and all its children."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Self

import psutil

__all__ = ["ProcessMeter", "Stolen", "quantile", "stolen_share", "tree_cpu"]

_SAMPLE_S = 0.5


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share of the values lies; of few values the largest, of none 0."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def tree_cpu(process: psutil.Process, known: dict[int, float] | None = None) -> float:
    """Return the CPU seconds of a process and its living children.

    ``known``: the seconds of each process at the previous call, which the caller keeps, so that children that have
    ended since still count.
    """
    known = {} if known is None else known
    for member in _tree(process):
        try:
            times = member.cpu_times()
            known[member.pid] = times.user + times.system
        except psutil.Error:
            continue
    return sum(known.values())


def _tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def stolen_share(before: Any, after: Any) -> float | None:
    """Return the share of CPU time that the host gave away between two calls of ``psutil.cpu_times``.

    It is a fraction of the time in which this machine had work to do; None on systems without steal time (other than
    Linux).
    """
    if not hasattr(after, "steal"):
        return None
    stolen = after.steal - before.steal
    worked = sum(getattr(after, kind) - getattr(before, kind) for kind in ("user", "nice", "system"))
    return float(stolen / max(stolen + worked, 1e-9))


class Stolen:
    """The share of CPU time that the host gives to other virtual machines while the context is open (steal time).

    ``share`` is that of ``stolen_share``. With a large share, figures of speed are meaningless.
    """

    share: float | None = None

    def __enter__(self) -> Self:
        self._before = psutil.cpu_times()
        return self

    def __exit__(self, *exc: object) -> None:
        self.share = stolen_share(self._before, psutil.cpu_times())

    def __str__(self) -> str:
        return "unknown" if self.share is None else f"{self.share:.0%}"


class ProcessMeter:
    """The resources that this process and its children use while the context is open: CPU in seconds, memory in MiB."""

    def __init__(self) -> None:
        self._me = psutil.Process()
        self._stop = threading.Event()
        self._known: dict[int, float] = {}
        self.cpu, self.peak_memory, self.processes = 0.0, 0.0, 1

    def __enter__(self) -> ProcessMeter:
        self._before = tree_cpu(self._me, self._known)
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.cpu = tree_cpu(self._me, self._known) - self._before

    @property
    def memory(self) -> float:
        """The unique set size of the processes in MiB: the memory that their end would free."""
        total = 0.0
        for process in _tree(self._me):
            try:
                total += process.memory_full_info().uss / 2**20
            except psutil.Error:
                continue
        return total

    def _sample(self) -> None:
        while not self._stop.wait(_SAMPLE_S):
            self.peak_memory = max(self.peak_memory, self.memory)
            self.processes = max(self.processes, len(_tree(self._me)))
            tree_cpu(self._me, self._known)
