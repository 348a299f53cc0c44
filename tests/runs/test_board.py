from __future__ import annotations

import time

import pytest

from crosswind.pods.workers import WorkerTask
from crosswind.runs import board as boards
from crosswind.runs.board import Board
from crosswind.runs.workloads import Notice, Run, Workload


def a_run() -> Run:
    task = WorkerTask("dag", "task", "run", 1, "u1")
    return Run(Workload("key", task, 1.0, lambda: b"{}"), task, 0.0)


def told(board: Board) -> list[str]:
    return [outcome.message for outcome in board.outbox if isinstance(outcome, Notice)]


def test_a_hundred_wordings_of_one_reason_are_one_row() -> None:
    board, run = Board(), a_run()
    for number in range(100):
        board.notice(run, "pod waits", f"0/12 nodes are available: {number} Insufficient cpu", "Unschedulable")
    assert len(told(board)) == 1


def test_another_reason_or_another_event_is_another_row() -> None:
    board, run = Board(), a_run()
    board.notice(run, "pod waits", "no node", "Unschedulable")
    board.notice(run, "pod waits", "no image", "ErrImagePull")
    board.notice(run, "pod waits", "no node again", "Unschedulable")
    board.notice(run, "pod failed", "no image", "ErrImagePull")
    assert told(board) == ["no node", "no image", "no image"]


def test_the_same_reason_is_worth_a_row_again_after_half_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    board, run, began = Board(), a_run(), time.monotonic()
    for minutes in (0, 29, 31, 40, 62):
        monkeypatch.setattr(boards.time, "monotonic", lambda minutes=minutes: began + 60 * minutes)
        board.notice(run, "pod waits", f"after {minutes} minutes", "Unschedulable")
    assert told(board) == ["after 0 minutes", "after 31 minutes", "after 62 minutes"]


def test_nothing_is_said_of_a_run_that_nobody_wants() -> None:
    board, run = Board(), a_run()
    run.revoked = True
    board.notice(run, "pod waits", "no node", "Unschedulable")
    board.notice(a_run(), "pod waits", "", "Unschedulable")
    assert told(board) == []
