from __future__ import annotations

import json
import logging
import sys
import types

import pytest

from crosswind.podrun.log_output import LogStyle, is_group_mark, level_of


def shout(container: str, text: str) -> str:
    return f"{container}! {text}"


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("plain", logging.INFO),
        ("ERROR: bad", logging.ERROR),
        ("  [warn] low", logging.WARNING),
        ("Fatal end", logging.CRITICAL),
        ("DEBUGGING is fun", logging.INFO),
        ("an ERROR inside", logging.INFO),
    ],
)
def test_a_line_has_the_level_that_it_begins_with(text: str, level: int) -> None:
    assert level_of(text) == level


def test_marks_of_groups_stand_at_the_beginning() -> None:
    assert [is_group_mark(text) for text in ("::group::x", "::endgroup::", " ::group::x", "x")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("style", "line"), [(LogStyle(), "[base] x"), (LogStyle(False), "x"), (LogStyle(formatter=shout), "base! x")]
)
def test_a_style_is_the_same_in_another_process(style: LogStyle, line: str) -> None:
    assert style.travels
    assert LogStyle.from_json(json.loads(json.dumps(style.to_json()))).line("base", "x") == line


def test_a_row_without_a_style_has_stock_s() -> None:
    assert LogStyle.from_json(None) == LogStyle()


def test_a_formatter_that_another_process_cannot_import_does_not_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    def inner(container: str, text: str) -> str:
        return text

    module = types.ModuleType("unusual_prefix_0a1b_dag")
    exec("def of_a_dag(container, text): return text", module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for formatter in (inner, lambda container, text: text, "x".join, module.of_a_dag):
        assert not LogStyle(formatter=formatter).travels
