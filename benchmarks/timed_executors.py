"""Both executors with a clock on their heartbeats, for a scheduler in a process of its own.

``CROSSWIND_BENCH_HEARTBEATS`` names the file that gets a line of JSON for each heartbeat: when it began and how long it
took, in seconds of ``time.perf_counter``.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from airflow.providers.cncf.kubernetes.executors import kubernetes_executor as stock

from crosswind import executor as ours

__all__ = ["Ours", "Stock"]


class _Timed:
    def start(self) -> None:
        self._file = Path(os.environ["CROSSWIND_BENCH_HEARTBEATS"]).open("w", buffering=1)  # noqa: SIM115
        super().start()  # type: ignore[misc]

    def heartbeat(self) -> None:
        began = time.perf_counter()
        super().heartbeat()  # type: ignore[misc]
        self._file.write(f"[{began}, {time.perf_counter() - began}]\n")

    def end(self) -> None:
        super().end()  # type: ignore[misc]
        self._file.close()


class Ours(_Timed, ours.KubernetesExecutor):  # type: ignore[misc]
    """Our executor with timed heartbeats."""


class Stock(_Timed, stock.KubernetesExecutor):  # type: ignore[misc]
    """Stock's executor with timed heartbeats."""
