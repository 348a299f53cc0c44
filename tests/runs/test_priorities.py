from __future__ import annotations

from crosswind.runs.priorities import Priorities


def test_higher_priorities_come_first_and_equal_ones_as_they_came() -> None:
    order = Priorities[str]()
    for key, priority in (("a", 1), ("b", 5), ("c", 1), ("d", 5), ("e", 3)):
        order.put(key, priority)
    assert order.first(9, "abcde") == ["b", "d", "e", "a", "c"]
    assert order.first(3, "abcde") == ["b", "d", "e"]
    assert order.first(0, "abcde") == []


def test_what_waits_no_more_is_forgotten_and_may_come_again() -> None:
    order = Priorities[str]()
    for key in "abc":
        order.put(key, 1)
    assert order.first(9, "bc") == ["b", "c"]
    assert order.first(9, "abc") == ["b", "c"]
    order.put("a", 1)
    assert order.first(9, "abc") == ["b", "c", "a"]


def test_a_key_that_is_put_twice_comes_once() -> None:
    order = Priorities[str]()
    order.put("a", 1)
    order.put("a", 1)
    assert order.first(9, "a") == ["a"]


def test_what_is_taken_waits_no_more() -> None:
    order = Priorities[str]()
    for key, priority in (("a", 1), ("b", 5), ("c", 1), ("d", 5), ("e", 3)):
        order.put(key, priority)
    assert len(order) == 5
    assert order.take(3) == ["b", "d", "e"]
    order.put("f", 5)
    assert order.take(2) == ["f", "a"]
    assert order.take(9) == ["c"]
    assert order.take(9) == []
    assert not order


def test_a_key_stands_once_under_its_newest_priority() -> None:
    waiting = Priorities[str]()
    waiting.put("a", 1)
    waiting.put("b", 5)
    waiting.put("a", 7)
    assert len(waiting) == 2
    assert waiting.take(5) == ["a", "b"]
    assert len(waiting) == 0


def test_a_key_that_is_dropped_is_forgotten() -> None:
    waiting = Priorities[str]()
    waiting.put("a", 1)
    waiting.drop("a")
    waiting.drop("never there")
    assert len(waiting) == 0
    assert waiting.first(5, {"a"}) == []
    assert not waiting._keys
