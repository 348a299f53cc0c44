"""The worker shim's line in the termination message is checked before it is used."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crosswind.pods.worker_report import OUT_OF_MEMORY, TERMINATED, WAITING, WorkerReport, split_message
from crosswind.worker import shim, warm

FULL = {"peak": 2**30, "oom_kills": 2, "cpu": 12.5, "imports": 1.9, "bundle": 0.1, "parse": 0.2, "run": 60.0}


@pytest.mark.parametrize("reason", [TERMINATED, OUT_OF_MEMORY, ""])
@pytest.mark.parametrize("own", ["", "of the task\nin two lines"])
def test_the_shims_report_is_parsed(reason: str, own: str) -> None:
    report, rest = split_message(shim.message(own.encode(), {"reason": reason, **FULL}).decode())
    assert report == WorkerReport(reason, 2**30, 2, 12.5, 1.9, 0.1, 0.2, 60.0)
    assert rest == own


def test_both_sides_use_the_same_reasons() -> None:
    assert (shim.TERMINATED, shim.OUT_OF_MEMORY) == (TERMINATED, OUT_OF_MEMORY)


def test_a_worker_that_waits_says_so() -> None:
    assert split_message(warm.WAITING.decode()) == (WorkerReport(WAITING), "")


def test_a_worker_that_waited_reports_how_long() -> None:
    report, _ = split_message(shim.message(b"", {"waited": 12.5}).decode())
    assert report == WorkerReport(waited=12.5)


@pytest.mark.parametrize("message", ["", "of the task", '{"crosswin', '{"rows": 7}', " " + '{"crosswind":1}'])
def test_other_messages_are_the_tasks_own(message: str) -> None:
    assert split_message(message) == (None, message)


def test_a_report_that_was_cut_is_no_report() -> None:
    assert split_message('{"crosswind":1,"reason":"oo') == (None, "")
    assert split_message('{"crosswind":1,"reason":"oo\nrest') == (None, "rest")


@pytest.mark.parametrize(
    ("given", "report"),
    [
        ({}, WorkerReport()),
        ({"reason": "evicted"}, WorkerReport()),
        ({"reason": ["oom"]}, WorkerReport()),
        ({"reason": {}}, WorkerReport()),
        ({"peak": "much", "oom_kills": -1, "cpu": True, "run": 1e300}, WorkerReport()),
        ({"peak": float("inf"), "run": float("nan"), "parse": None}, WorkerReport()),
        ({"peak": 10**400}, WorkerReport()),
    ],
)
def test_impossible_values_are_ignored(given: dict[str, Any], report: WorkerReport) -> None:
    assert split_message(json.dumps({"crosswind": 1, **given}).replace(" ", "")) == (report, "")


@pytest.mark.parametrize("line", ['{"crosswind":' + "[" * 5000, '{"crosswind":' + "1" * 5000 + "}"])
def test_text_that_upsets_a_parser_is_no_report(line: str) -> None:
    report, rest = split_message(line)
    assert (report or WorkerReport()) == WorkerReport()
    assert rest == ""
