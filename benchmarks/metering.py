"""CPU and memory of a process and all its children."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Self

import psutil

__all__ = ["Meter", "Stolen", "quantile", "tree_cpu"]

_SAMPLE_S = 0.5


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share lies; of few values the largest, of none 0."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def tree_cpu(process: psutil.Process, known: dict[int, float] | None = None) -> float:
    """Return the CPU seconds of a process and its living children.

    ``known``: what each process had used when last asked, to be kept by the caller: children that have ended since
    count with that.
    """
    known = {} if known is None else known
    for one in _tree(process):
        try:
            times = one.cpu_times()
            known[one.pid] = times.user + times.system
        except psutil.Error:
            continue
    return sum(known.values())


def _tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


class Stolen:
    """How much of the machine's time its host gives to other machines while the context is open.

    ``share`` is of the time in which this machine wanted to work; None where the system does not tell (not Linux).
    Much of it, and no figure of speed means anything.
    """

    share: float | None = None

    def __enter__(self) -> Self:
        self._before = psutil.cpu_times()
        return self

    def __exit__(self, *exc: object) -> None:
        after, before = psutil.cpu_times(), self._before
        if hasattr(after, "steal"):
            stolen = after.steal - before.steal
            worked = sum(getattr(after, kind) - getattr(before, kind) for kind in ("user", "nice", "system"))
            self.share = stolen / max(stolen + worked, 1e-9)

    def __str__(self) -> str:
        return "unknown" if self.share is None else f"{self.share:.0%}"


class Meter:
    """What this process and its children use while the context is open. CPU in seconds, memory in MiB."""

    def __init__(self) -> None:
        self._me = psutil.Process()
        self._stop = threading.Event()
        self._known: dict[int, float] = {}
        self.cpu, self.peak_memory, self.processes = 0.0, 0.0, 1

    def __enter__(self) -> Meter:
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
        """What would be free if the processes ended: their unique set size, in MiB."""
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
