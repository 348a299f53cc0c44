"""The option ``[crosswind] warm``."""

from __future__ import annotations

from typing import Any

import pytest

from crosswind.engine.warm_options import parse_warm
from crosswind.settings import WarmOptions


def test_a_queue_changes_only_what_it_names() -> None:
    given = {"min": 2, "preload": ["pandas"], "queues": {"gpu": {"max": 0, "min": 0}, "fast": {"min": 4}}}
    everywhere, queues, problems = parse_warm(given)
    assert problems == []
    assert everywhere == WarmOptions(min=2, preload=("pandas",))
    assert queues["gpu"] == WarmOptions(min=0, max=0, preload=("pandas",))
    assert queues["fast"] == WarmOptions(min=4, preload=("pandas",))


def test_nothing_is_warm_without_options() -> None:
    assert parse_warm({}) == (None, {}, [])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([1], "must be a JSON object"),
        ({"minimum": 1}, "minimum: is not known; use min, max, idle_seconds, max_age, preload, queues"),
        ({"min": -1}, "min: must be a whole number of pods from 0 to 1000, not -1"),
        ({"min": True}, "min: must be a whole number"),
        ({"max": 1001}, "max: must be a whole number of pods from 0 to 1000"),
        ({"min": 3, "max": 2}, "min: 3 is more than max, which is 2"),
        ({"idle_seconds": 0}, "idle_seconds: must be a number of seconds from 1 to 86400"),
        ({"max_age": "600"}, "max_age: must be a number of seconds"),
        ({"preload": "pandas"}, "preload: must be a list of the names of Python modules"),
        ({"preload": ["import os"]}, "preload: must be a list"),
        ({"queues": []}, "queues: must be a JSON object of queues"),
        ({"queues": {"gpu": 3}}, "queues.gpu.: must be a JSON object"),
        ({"queues": {"gpu": {"queues": {}}}}, "queues.gpu.queues: is not known"),
        ({"min": 3, "queues": {"gpu": {"max": 1}}}, "queues.gpu.min: 3 is more than max"),
    ],
)
def test_a_wrong_option_is_named_and_no_pod_waits(given: Any, problem: str) -> None:
    everywhere, queues, problems = parse_warm(given)
    assert (everywhere, queues) == (None, {})
    assert any(problem in text for text in problems), problems
