from __future__ import annotations

from crosswind.runs.turns import Turns

ORDERED = [(name, name) for name in ("gpu1", "cpu1", "gpu2", "gpu3", "cpu2")]


def queue_of(name: str) -> str:
    return name[:3]


def choose(turns: Turns[str, str], *busy: str, now: float = 0.0) -> list[str]:
    return [key for key, _ in turns.choose(ORDERED, queue_of, busy, now)]


def test_what_is_beyond_its_queues_limit_waits_and_all_else_passes_it() -> None:
    turns: Turns[str, str] = Turns({"gpu": 2})
    assert choose(turns) == ["gpu1", "cpu1", "gpu2", "cpu2"]
    assert turns.figures() == {"gpu": 1}


def test_what_is_in_flight_counts_and_may_be_more_than_the_limit() -> None:
    turns: Turns[str, str] = Turns({"gpu": 2})
    assert choose(turns, "gpu", "cpu") == ["gpu1", "cpu1", "cpu2"]
    assert choose(turns, "gpu", "gpu", "gpu") == ["cpu1", "cpu2"]
    assert len(turns) == 3


def test_the_reason_is_told_once_and_not_at_once() -> None:
    turns: Turns[str, str] = Turns({"gpu": 2})
    choose(turns, now=100.0)
    assert list(turns.notices(101.0)) == []
    choose(turns, now=110.0)  # it goes on waiting since 100
    told = "queue gpu has 2 pods in flight, as many as it may ([crosswind] queues, max_pods)"
    assert list(turns.notices(121.0)) == [("gpu3", told)]
    assert list(turns.notices(200.0)) == []
    assert (turns.why("gpu3"), turns.why("cpu1")) == (told, "")


def test_only_so_many_are_told_at_once_and_the_rest_later() -> None:
    turns: Turns[int, str] = Turns({"gpu": 1})
    turns.choose(((number, "gpu") for number in range(151)), queue_of, (), 0.0)
    assert [len(list(turns.notices(30.0))) for _ in range(3)] == [100, 50, 0]


def test_those_that_wait_are_named_now_and_then() -> None:
    turns: Turns[str, str] = Turns({"gpu": 1}, keep_every=60.0)
    choose(turns, now=1000.0)
    assert turns.to_keep(1000.0) == ["gpu2", "gpu3"]
    assert turns.to_keep(1050.0) == []
    turns.drop("gpu2")
    assert turns.to_keep(1061.0) == ["gpu3"]
