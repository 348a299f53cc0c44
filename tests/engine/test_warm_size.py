"""How many pods wait: a table of decisions."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswind.engine.warm_size import PoolDemand, Use, pool_sizes
from crosswind.settings import WarmOptions

OPTIONS, NOW = WarmOptions(min=2, max=10, idle_seconds=300), 1000.0


def pool(name: str = "a", minimum: int = 0, *uses: tuple[float, int], blocked: bool = False) -> PoolDemand:
    return PoolDemand(name, minimum, [Use(NOW - age, depth) for age, depth in uses], blocked)


@pytest.mark.parametrize(
    ("demands", "sizes"),
    [
        ([pool("a", 2)], {"a": 2}),
        ([pool("a", 2, (10, 1))], {"a": 2}),
        ([pool("a", 2, (200, 6), (10, 1))], {"a": 6}),
        ([pool("a", 2, (301, 6), (10, 1))], {"a": 2}),
        ([pool("a", 2, (10, 500))], {"a": 10}),
        ([pool("a", 0)], {"a": 0}),
        ([pool("a", 2), pool("b", 0, (10, 3))], {"a": 2, "b": 3}),
        ([pool("a", 2), pool("b", 0, (20, 7)), pool("c", 0, (10, 7))], {"a": 2, "b": 1, "c": 7}),
        ([pool("a", 2, (10, 500)), pool("b", 3)], {"a": 7, "b": 3}),
        ([pool("a", 2, (10, 5), blocked=True)], {"a": 0}),
        ([pool("a", 2, blocked=True), pool("b", 0, (10, 20))], {"a": 0, "b": 10}),
    ],
    ids=[
        "the minimum waits",
        "less use than the minimum changes nothing",
        "the deepest use counts, not the last",
        "a use is forgotten after idle_seconds",
        "max bounds a burst",
        "an unused pool is empty",
        "a pool without a minimum grows by its use",
        "the pool that was used last gets the room",
        "minima come before growth",
        "nothing waits where a task waits for room",
        "a blocked pool leaves its room to others",
    ],
)
def test_the_size_follows_from_use(demands: list[PoolDemand], sizes: Mapping[str, int]) -> None:
    assert pool_sizes(demands, OPTIONS, NOW) == sizes


_POOLS = st.lists(
    st.tuples(st.integers(0, 20), st.lists(st.tuples(st.floats(0, 600), st.integers(0, 99))), st.booleans()),
    max_size=6,
)


@given(_POOLS, st.integers(0, 30))
def test_never_more_than_max_wait_together(pools: list[tuple[int, list[tuple[float, int]], bool]], most: int) -> None:
    demands = [
        pool(str(number), minimum, *uses, blocked=blocked) for number, (minimum, uses, blocked) in enumerate(pools)
    ]
    sizes = pool_sizes(demands, WarmOptions(max=most), NOW)
    assert sizes.keys() == {demand.fingerprint for demand in demands}
    assert sum(sizes.values()) <= most
    assert all(size >= 0 for size in sizes.values())
