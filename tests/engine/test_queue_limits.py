from __future__ import annotations

from crosswind.engine.queue_limits import QueueLimits

ORDERED = [(name, name) for name in ("gpu1", "cpu1", "gpu2", "gpu3", "cpu2")]


def queue_of(name: str) -> str:
    return name[:3]


def admitted(limits: QueueLimits[str, str], *busy: str, now: float = 0.0) -> list[str]:
    return [key for key, _ in limits.admit(ORDERED, queue_of, busy, now)]


def test_items_beyond_their_queues_limit_wait_and_others_pass_them() -> None:
    limits: QueueLimits[str, str] = QueueLimits({"gpu": 2})
    assert admitted(limits) == ["gpu1", "cpu1", "gpu2", "cpu2"]
    assert limits.held_by_queue() == {"gpu": 1}


def test_items_in_flight_count_and_may_exceed_the_limit() -> None:
    limits: QueueLimits[str, str] = QueueLimits({"gpu": 2})
    assert admitted(limits, "gpu", "cpu") == ["gpu1", "cpu1", "cpu2"]
    assert admitted(limits, "gpu", "gpu", "gpu") == ["cpu1", "cpu2"]
    assert len(limits) == 3


def test_a_held_item_gets_one_event_after_some_time() -> None:
    limits: QueueLimits[str, str] = QueueLimits({"gpu": 2})
    admitted(limits, now=100.0)
    assert list(limits.events(101.0)) == []
    admitted(limits, now=110.0)  # it has waited since 100
    reason = "queue gpu has 2 pods in flight, its limit ([crosswind] queues, max_pods)"
    assert list(limits.events(121.0)) == [("gpu3", reason)]
    assert list(limits.events(200.0)) == []
    assert (limits.why("gpu3"), limits.why("cpu1")) == (reason, "")


def test_a_heartbeat_sends_a_bounded_number_of_events() -> None:
    limits: QueueLimits[int, str] = QueueLimits({"gpu": 1})
    limits.admit(((number, "gpu") for number in range(151)), queue_of, (), 0.0)
    assert [len(list(limits.events(30.0))) for _ in range(3)] == [100, 50, 0]


def test_held_items_are_refreshed_at_intervals() -> None:
    limits: QueueLimits[str, str] = QueueLimits({"gpu": 1}, refresh_every=60.0)
    admitted(limits, now=1000.0)
    assert limits.to_refresh(1000.0) == ["gpu2", "gpu3"]
    assert limits.to_refresh(1050.0) == []
    limits.discard("gpu2")
    assert limits.to_refresh(1061.0) == ["gpu3"]
