"""Which waiting pods are deleted and how many are missing: a table, and what holds for all pools."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswind.engine.waiting_pods import WaitingPod
from crosswind.engine.warm_gap import gap

NOW, MAX_AGE = 10_000.0, 600.0


def pod(name: str, age: float = 60.0, **fields: Any) -> WaitingPod:
    fields = {"ready": True, "ready_at": NOW - age, **fields}
    return WaitingPod(name, name, "ns", "pool", "nonce", "7", NOW - age, **fields)


@pytest.mark.parametrize(
    ("pods", "size", "creating", "missing", "retired"),
    [
        ([], 3, 0, 3, ""),
        ([], 3, 2, 1, ""),
        ([pod("a"), pod("b")], 2, 0, 0, ""),
        ([pod("a"), pod("b", reserved=True)], 2, 0, 1, ""),
        ([pod("a"), pod("b", retiring=True)], 2, 0, 1, ""),
        ([pod("a", 50), pod("b", 40), pod("c", ready=False)], 1, 0, 0, "ac"),
        ([pod("a", 601)], 1, 0, 1, "a"),
        ([pod("a", 550)], 1, 0, 1, ""),
        ([pod("a", 550), pod("b", ready=False)], 1, 0, 0, ""),
        ([pod("a", 550), pod("b")], 1, 0, 0, "a"),
        ([pod("a", ended=True)], 1, 0, 1, "a"),
        ([pod("a", deleting=True)], 1, 0, 1, "a"),
        ([pod("a", 301, ready=False)], 1, 0, 1, "a"),
        ([pod("a"), pod("b", reserved=True)], 0, 0, 0, "a"),
    ],
    ids=[
        "an empty pool is filled",
        "creations under way count",
        "a full pool stays",
        "a pod that is being claimed is replaced",
        "a pod that is being deleted is replaced",
        "of too many, those that are not ready go first, then the oldest",
        "a pod beyond max_age goes",
        "a replacement is created before max_age",
        "an old pod stays until its replacement is ready",
        "an old pod goes when its replacement is ready",
        "an ended pod goes",
        "a pod that somebody deletes is replaced",
        "a pod that does not become ready goes",
        "a pod that is being claimed is never deleted",
    ],
)
def test_the_gap_follows_from_the_pods(
    pods: list[WaitingPod], size: int, creating: int, missing: int, retired: str
) -> None:
    number, to_retire = gap(pods, size, creating, MAX_AGE, NOW)
    assert number == missing
    assert "".join(sorted(pod.uid for pod in to_retire)) == retired


_PODS = st.lists(
    st.builds(
        pod,
        st.uuids().map(str),
        st.floats(0, 700),
        ready=st.booleans(),
        reserved=st.booleans(),
        ended=st.booleans(),
        retiring=st.booleans(),
    ),
    max_size=8,
)


@given(_PODS, st.integers(0, 8))
def test_a_pool_never_falls_below_its_size_by_deleting_usable_pods(pods: list[WaitingPod], size: int) -> None:
    _, retired = gap(pods, size, 0, MAX_AGE, NOW)
    usable = [pod for pod in pods if pod.claimable and NOW - pod.created <= MAX_AGE]
    left = [pod for pod in usable if pod not in retired]
    assert len(left) >= min(size, len(usable))
    assert not any(pod.reserved or pod.retiring for pod in retired)
