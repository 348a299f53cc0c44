"""Which pods give way: pure."""

from __future__ import annotations

from collections import Counter

import pytest

from kubelocal.controllers.preemption import BoundPod, find_preemption, victims_on
from kubelocal.controllers.scheduler_filters import NodeCapacity, PodRequest


def node(name: str = "n", cpu: int = 4, used: int = 4) -> NodeCapacity:
    return NodeCapacity(name, {}, (), {"cpu": cpu}, Counter(cpu=used))


def pod(name: str, priority: int, cpu: int = 1, where: str = "n", *, terminating: bool = False) -> BoundPod:
    return BoundPod("ns", name, name, where, {"cpu": cpu}, priority, terminating)


def ask(cpu: int, priority: int = 10) -> PodRequest:
    return PodRequest({"cpu": cpu}, {}, (), (), priority)


def names(victims: tuple[BoundPod, ...]) -> set[str]:
    return {victim.name for victim in victims}


@pytest.mark.parametrize(
    ("cpu", "victims"),
    [(1, {"low"}), (2, {"low", "mid"}), (3, {"low", "mid", "high"}), (4, set())],
)
def test_the_least_important_pods_give_way_and_no_more_than_needed(cpu: int, victims: set[str]) -> None:
    pods = [pod("high", 9), pod("low", 1), pod("mid", 5), pod("equal", 10)]
    assert names(victims_on(ask(cpu), node(), pods, {})) == victims


def test_a_pod_that_ends_already_is_the_first_victim() -> None:
    pods = [pod("low", 1), pod("ending", 5, terminating=True), pod("a", 10), pod("b", 10)]
    assert names(victims_on(ask(1), node(), pods, {})) == {"ending"}


def test_room_that_was_made_for_another_pod_is_not_given_twice() -> None:
    pods = [pod("low", 1), pod("other", 2), pod("a", 10), pod("b", 10)]
    assert names(victims_on(ask(1), node(), pods, {"cpu": 1})) == {"low", "other"}


def test_the_node_whose_victims_matter_least_is_chosen() -> None:
    pods = [pod("a", 8, 4, "n"), pod("b", 3, 2, "m"), pod("c", 3, 2, "m"), pod("d", 3, 4, "k")]
    found = find_preemption(ask(4), [node("n"), node("m"), node("k")], pods, {})
    assert found is not None
    assert (found.node, names(found.victims)) == ("k", {"d"})


def test_nobody_gives_way_to_an_equal() -> None:
    assert find_preemption(ask(1), [node()], [pod("a", 10, 4)], {}) is None
