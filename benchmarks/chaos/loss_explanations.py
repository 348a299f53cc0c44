"""What happened to tasks of ``losses`` for which a figure is missed: pods, rows, events, lines of the scheduler."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy
from benchmarks.chaos.loss_figures import AFTER_END_S, LostPod, lost_pods, overlaps
from benchmarks.chaos.pod_records import PodRecord
from benchmarks.chaos.tries import Tries

__all__ = ["explanations"]

_MOST_TASKS = 12
_MOST_LINES = 12
"""Lines of the scheduler's log by pod."""

_QUERIES = {
    "row": "SELECT try_number, state, start_date, end_date, queued_dttm, id FROM task_instance",
    "history": (
        "SELECT try_number, state, start_date, end_date, queued_dttm, task_instance_id FROM task_instance_history"
    ),
    "event": "SELECT dttm, event, try_number, extra FROM log",
}


def explanations(
    records: Sequence[PodRecord], tries: Tries, engine: sqlalchemy.Engine, home: Path, marks: Sequence[Path]
) -> Iterator[str]:
    """Yield lines about tasks that failed, called back, ran twice at once or waited long, and sensors without loss."""
    lost = lost_pods(records, tries)
    texts = {mark.name: mark.read_text() for mark in marks}
    yield from (f"{name}: {text}" for name, text in texts.items())
    reasons: dict[str, str] = {}
    for each in sorted(lost, key=_delay, reverse=True):
        if overlaps(each):
            reasons[each.pod.task_id] = "its new try began while the old one ran"
        elif _delay(each) > AFTER_END_S and len(reasons) < _MOST_TASKS:
            reasons[each.pod.task_id] = f"its next try came {_delay(each):.1f} s after the end of base"
    called = {match[0] for text in texts.values() for match in re.finditer(r"(work|work_real|sense)_\d+", text)}
    reasons |= dict.fromkeys(called, "it called back")
    reasons |= {
        task_id: "it lost no poke"
        for task_id in tries.rows
        if task_id.startswith("sense_") and not tries.losses.get(task_id)
    }
    reasons |= {row.task_id: "it failed" for row in tries.rows.values() if row.state == "failed"}
    log = (home / "scheduler.log").read_text(errors="replace").splitlines()
    for task_id, reason in list(reasons.items())[-_MOST_TASKS:]:
        yield f"{task_id}: {reason}"
        for record in records:
            if record.task_id == task_id:
                yield from _pod(record, tries, log)
        yield from _rows(task_id, engine)


def _delay(lost: LostPod) -> float:
    return lost.next - lost.pod.ended if lost.pod.ended and not lost.pod.silenced else 0.0


def _pod(record: PodRecord, tries: Tries, log: Sequence[str]) -> Iterator[str]:
    moments = {
        "created": record.created,
        "started": record.started,
        "node silent": record.silenced,
        f"marked {record.mark}": record.marked,
        "ended": record.ended,
        "try replaced": tries.replaced.get(record.ti_id, 0.0),
    }
    order = sorted((moment, name) for name, moment in moments.items() if moment)
    story = ", ".join(f"{_clock(moment)} {name}" for moment, name in order)
    yield f"  pod {record.name} on {record.node or 'no node'}, taken by {record.kind or 'nobody'}: {story}"
    yield from [f"    {line}" for line in log if record.name in line][:_MOST_LINES]


def _clock(moment: float) -> str:
    """Write a moment of ``time.monotonic`` as the scheduler's log does."""
    seconds = time.time() - time.monotonic() + moment
    return time.strftime("%H:%M:%S", time.gmtime(seconds)) + f"{seconds % 1:.3f}"[1:]


def _rows(task_id: str, engine: sqlalchemy.Engine) -> Iterator[str]:
    for name, query in _QUERIES.items():
        order = " ORDER BY id" if name == "event" else " ORDER BY try_number"
        with engine.begin() as connection:
            rows: Sequence[Any] = connection.execute(
                sqlalchemy.text(f"{query} WHERE task_id = :task{order}"), {"task": task_id}
            ).all()
        yield from (f"  {name}: {' | '.join(map(str, row))}" for row in rows)
