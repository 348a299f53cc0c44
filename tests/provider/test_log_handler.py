"""Which of archive and pods a task's log is read from."""

from __future__ import annotations

import datetime
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import pytest

from crosswind.engine.log_archiver import PodLog
from crosswind.pods.kept_logs import KeptLog
from crosswind.provider import log_handler, log_store
from crosswind.provider.log_handler import ArchiveTaskHandler

NOW = datetime.datetime.now(datetime.UTC)
LONG_AGO = NOW - datetime.timedelta(days=1)


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


@pytest.mark.parametrize(
    ("state", "ended", "kept", "pods", "lines"),
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
    ended: Any,
    kept: list[str],
    pods: dict[str, str],
    lines: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    executor = Pods(**pods)
    loader = SimpleNamespace(get_default_executor=lambda: executor)
    monkeypatch.setattr(log_handler, "ExecutorLoader", loader)
    monkeypatch.setattr(log_store, "read_logs", lambda _: [archived(pod, f"poke {pod}") for pod in kept])
    ti: Any = SimpleNamespace(id="ti", state=state, end_date=ended, executor=None)
    sources, logs = ArchiveTaskHandler("/nowhere")._read_remote_logs(ti, 1)
    assert [list(log) for log in logs] == lines
    assert len(sources) == len(lines)
