from __future__ import annotations

import pytest
from benchmarks.adoption import rows

GOOD = {"pods": 10.0, "seconds": 9.9, "heartbeat_longest": 0.05, "marked": 10.0, "wrong": 0.0}


@pytest.mark.parametrize(
    ("times", "missed"),
    [
        ({}, []),
        ({"seconds": 10.1}, ["all followed and marked"]),
        ({"heartbeat_longest": 0.06}, ["longest heartbeat"]),
        ({"marked": 9.0}, ["pods that carry the new scheduler's label"]),
        ({"wrong": 1.0}, ["tasks given back to be reset"]),
    ],
)
def test_each_figure_is_held_to_its_goal(times: dict[str, float], missed: list[str]) -> None:
    not_held = [row.figure for row in rows(GOOD | times) if not row.held]
    assert len(not_held) == len(missed)
    assert all(name in figure for name, figure in zip(missed, not_held, strict=True))
