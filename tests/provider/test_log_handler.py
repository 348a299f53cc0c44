"""Which of archive and pods a task's log is read from."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.databases import sqlite, use_as_airflows

from crosswind.engine.log_archiver import PodLog
from crosswind.pods.kept_logs import KeptLog
from crosswind.provider.log_handler import ArchiveTaskHandler
from crosswind.provider.log_store import DatabaseLogStore

NOW, LONG_AGO = datetime.timedelta(), datetime.timedelta(days=1)
"""How long ago a task ended: collected tests may run much later."""


def archived(pod: str, line: str) -> PodLog:
    kept = KeptLog(1000)
    kept.feed(line.encode())
    return PodLog(pod, "ti", f"tasks/{pod}", kept.size, kept.content())


class Pods:
    """An executor whose pods have logs."""

    def __init__(self, **texts: str) -> None:
        self.texts = texts
        self.asked = 0

    def read_pod_log(
        self, ti: Any, try_number: int, *, whole: bool = True, stored: Collection[str] = ()
    ) -> tuple[list[str], list[str]]:
        self.asked += 1
        left = [name for name in self.texts if name not in stored]
        return ([f"pod {left[-1]}"], [self.texts[left[-1]]]) if left else (["There is no pod"], [""])


class Handler(ArchiveTaskHandler):
    def __init__(self, executor: Pods) -> None:
        super().__init__("/nowhere")
        self._executor = executor

    def _executor_of(self, ti: Any) -> Pods:
        return self._executor


@pytest.mark.parametrize(
    ("state", "ago", "kept", "pods", "lines"),
    [
        ("failed", NOW, ["a"], {"a": "poke a", "b": "the error"}, [["poke a"], ["the error"]]),
        ("up_for_reschedule", None, ["a"], {"b": "poke b"}, [["poke a"], ["poke b"]]),
        ("success", NOW, ["a", "b"], {"a": "poke a", "b": "poke b"}, [["poke a"], ["poke b"]]),
        ("success", NOW, [], {"a": "poke a"}, [["poke a"]]),
        ("success", NOW, ["a"], {}, [["poke a"]]),
        ("success", LONG_AGO, ["a"], {"b": "poke b"}, [["poke a"]]),
        ("running", None, ["a"], {"b": "poke b"}, [["poke a"]]),
        ("failed", LONG_AGO, [], {"a": "poke a"}, [["poke a"]]),
    ],
)
def test_each_pod_of_a_try_is_shown_once_from_the_archive_or_from_the_pod(
    state: str,
    ago: datetime.timedelta | None,
    kept: list[str],
    pods: dict[str, str],
    lines: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with sqlite(tmp_path) as engine:
        use_as_airflows(engine, monkeypatch)
        for pod in kept:
            DatabaseLogStore().store([archived(pod, f"poke {pod}")])
        ti: Any = SimpleNamespace(
            id="ti", state=state, end_date=None if ago is None else datetime.datetime.now(datetime.UTC) - ago
        )
        sources, logs = Handler(Pods(**pods))._read_remote_logs(ti, 1)
        engine.dispose()
    assert [list(log) for log in logs] == lines
    assert len(sources) == len(lines)
