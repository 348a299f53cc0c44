from __future__ import annotations

from crosswind.pods.memory_fit import UsedMemory, worst_fits

MIB = 1024**2


def used(task: str, peak: int, request: int, limit: int | None = None, oom: bool = False) -> UsedMemory:
    return UsedMemory("dag", task, peak * MIB, request * MIB, None if limit is None else limit * MIB, oom)


def test_tasks_that_need_more_come_before_those_that_ask_for_too_much() -> None:
    fits = worst_fits([used("roomy", 100, 8000), used("oom", 511, 512, 512, True), used("close", 95, 50, 100)])
    assert [fit.task_id for fit in fits] == ["oom", "close", "roomy"]
    assert [fit.text for fit in fits] == [
        "1 of 1 ran out of memory",
        "close to its limit: 95%",
        "requests 7.7 GiB more than any pod used",
    ]


def test_a_task_that_fits_is_not_listed() -> None:
    assert worst_fits([used("well", 700, 800, 1000)]) == []


def test_the_highest_peak_of_all_pods_counts_and_the_newest_request() -> None:
    (fit,) = worst_fits([used("task", 100, 2000), used("task", 900, 4000)])
    assert (fit.pods, fit.peak, fit.request) == (2, 900 * MIB, 2000 * MIB)


def test_what_many_pods_leave_unused_weighs_more() -> None:
    rare, frequent = [used("rare", 0, 2000)], [used("frequent", 0, 1000)] * 3
    assert [fit.task_id for fit in worst_fits(rare + frequent)] == ["frequent", "rare"]


def test_neither_kind_crowds_out_the_other() -> None:
    tight = [used(f"tight-{number}", 99, 50, 100) for number in range(20)]
    roomy = [used(f"roomy-{number}", 1, 5000) for number in range(20)]
    fits = worst_fits(tight + roomy, most=10)
    assert [fit.is_tight for fit in fits] == [True] * 5 + [False] * 5
    assert len(worst_fits(tight, most=10)) == 10
