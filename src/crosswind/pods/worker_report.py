"""Parses the worker shim's report: one line of JSON in a pod's termination message, before the task's own text.

The report is checked like every part of a pod's status, because the task's author can write there too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from crosswind.types import Json

__all__ = ["OUT_OF_MEMORY", "TERMINATED", "WAITING", "WorkerReport", "split_message"]

TERMINATED = "terminated"
"""The task failed after SIGTERM was sent to the pod, so the failure may not be the task's own."""

OUT_OF_MEMORY = "oom"
"""The kernel killed the task's process because memory ran out, and no other process of the container."""

WAITING = "waiting"
"""A warm pod can be claimed and has not begun a task. It never began one if it ended with this report."""

_MARKER = '{"crosswind":'
_MAX_PLAUSIBLE = 2**53
"""Bytes or seconds beyond those of any pod: a larger number is ignored."""


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """The report of one worker; None where the worker does not know a figure."""

    reason: str = ""
    """Why a failure was held back from Airflow: ``TERMINATED``, ``OUT_OF_MEMORY``, or "" for none; or ``WAITING``."""
    peak_memory: int | None = None
    """Bytes, of the whole container."""
    oom_kills: int = 0
    """Processes in the container that the kernel killed for memory."""
    cpu: float | None = None
    """CPU seconds of the whole container."""
    imports: float | None = None
    """Seconds from the first line of the worker, or from the claim of a warm pod, until Airflow is imported."""
    bundle: float | None = None
    """Seconds to prepare the DAG bundle."""
    parse: float | None = None
    """Seconds to parse the DAG file."""
    run: float | None = None
    """Seconds of the user's code."""
    waited: float | None = None
    """Seconds that a warm pod waited for its claim."""


def split_message(message: str) -> tuple[WorkerReport | None, str]:
    """Return the worker's report, None without a readable one, and the text that the task itself wrote."""
    if not message.startswith(_MARKER):
        return None, message
    line, _, rest = message.partition("\n")
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):  # cut by the kubelet, or not written by the shim
        return None, rest
    return (_report(content) if isinstance(content, dict) else None), rest


def _report(content: Mapping[str, Json]) -> WorkerReport:
    reason, peak = content.get("reason"), _number(content.get("peak"))
    return WorkerReport(
        reason=reason if reason in (TERMINATED, OUT_OF_MEMORY, WAITING) else "",
        peak_memory=None if peak is None else int(peak),
        oom_kills=int(_number(content.get("oom_kills")) or 0),
        cpu=_number(content.get("cpu")),
        imports=_number(content.get("imports")),
        bundle=_number(content.get("bundle")),
        parse=_number(content.get("parse")),
        run=_number(content.get("run")),
        waited=_number(content.get("waited")),
    )


def _number(value: Json) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= _MAX_PLAUSIBLE else None
