from __future__ import annotations

from crosswind.engine.priority_queue import PriorityQueue


def test_keys_are_in_order_of_priority_then_of_arrival() -> None:
    order = PriorityQueue[str]()
    for key, priority in (("a", 1), ("b", 5), ("c", 1), ("d", 5), ("e", 3)):
        order.put(key, priority)
    assert order.first(9, "abcde") == ["b", "d", "e", "a", "c"]
    assert order.first(3, "abcde") == ["b", "d", "e"]
    assert order.first(0, "abcde") == []


def test_an_outdated_key_is_removed_and_may_be_added_again() -> None:
    order = PriorityQueue[str]()
    for key in "abc":
        order.put(key, 1)
    assert order.first(9, "bc") == ["b", "c"]
    assert order.first(9, "abc") == ["b", "c"]
    order.put("a", 1)
    assert order.first(9, "abc") == ["b", "c", "a"]


def test_a_key_put_twice_is_returned_once() -> None:
    order = PriorityQueue[str]()
    order.put("a", 1)
    order.put("a", 1)
    assert order.first(9, "a") == ["a"]


def test_take_removes_keys() -> None:
    order = PriorityQueue[str]()
    for key, priority in (("a", 1), ("b", 5), ("c", 1), ("d", 5), ("e", 3)):
        order.put(key, priority)
    assert len(order) == 5
    assert order.take(3) == ["b", "d", "e"]
    order.put("f", 5)
    assert order.take(2) == ["f", "a"]
    assert order.take(9) == ["c"]
    assert order.take(9) == []
    assert not order


def test_a_key_is_held_once_under_its_newest_priority() -> None:
    waiting = PriorityQueue[str]()
    waiting.put("a", 1)
    waiting.put("b", 5)
    waiting.put("a", 7)
    assert len(waiting) == 2
    assert waiting.take(5) == ["a", "b"]
    assert len(waiting) == 0


def test_a_discarded_key_leaves_no_trace() -> None:
    waiting = PriorityQueue[str]()
    waiting.put("a", 1)
    waiting.discard("a")
    waiting.discard("never there")
    assert len(waiting) == 0
    assert waiting.first(5, {"a"}) == []
    assert not waiting._keys
