from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswind.runs.pacing import Pace


def test_a_limit_that_is_used_up_doubles_per_round_until_the_first_refusal() -> None:
    pace = Pace(limit=8.0, ceiling=64.0)
    for _ in range(8):
        pace = pace.accepted(under_way=int(pace.limit))
    assert pace.limit == 16.0


def test_after_a_refusal_the_limit_grows_by_one_per_round() -> None:
    pace = Pace(limit=32.0).pushed_back(sent_at=0.0, now=1.0)
    for _ in range(16):
        pace = pace.accepted(under_way=int(pace.limit))
    assert pace.limit == pytest.approx(17.0, abs=0.1)


def test_a_limit_that_is_not_used_up_stays() -> None:
    assert Pace(limit=8.0).accepted(under_way=3).limit == 8.0


def test_refusals_of_one_round_halve_once() -> None:
    pace = Pace(limit=32.0)
    for answered_at in (1.0, 1.1, 1.2):
        pace = pace.pushed_back(sent_at=0.9, now=answered_at)
    assert pace.limit == 16.0
    assert pace.pushed_back(sent_at=1.3, now=1.4).limit == 8.0


def test_retry_after_holds_new_requests_back() -> None:
    pace = Pace().pushed_back(sent_at=0.0, now=10.0, pause=3.0)
    assert not pace.may_start(under_way=0, now=12.9)
    assert pace.may_start(under_way=0, now=13.0)


@given(st.lists(st.one_of(st.just("ok"), st.floats(0, 5)), max_size=200))
def test_the_limit_stays_between_one_and_the_ceiling(answers: list[str | float]) -> None:
    pace, now = Pace(limit=8.0, ceiling=20.0), 0.0
    for answer in answers:
        now += 1
        pace = pace.accepted(int(pace.limit)) if isinstance(answer, str) else pace.pushed_back(now - 0.5, now, answer)
        assert 1.0 <= pace.limit <= 20.0
        assert pace.may_start(0, now + 10)
