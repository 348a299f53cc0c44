"""The benchmark of containers' ends, in short."""

from __future__ import annotations

import pytest
from benchmarks.ends import SHIM, Ends, measure, rows, table


@pytest.mark.timeout(300)
def test_containers_end_with_their_tasks() -> None:
    (ours,) = measure(5, [SHIM])
    assert ours.failed == 0
    assert len(ours.seconds) == 5
    assert ours.late == 0, ours.seconds


def test_a_late_end_misses_the_goal() -> None:
    prompt, late = Ends("with the shim", [0.05] * 40), Ends("with the shim", [0.05] * 39 + [5.0])
    assert all(row.held for row in rows([prompt], 40))
    assert not rows([late], 40)[0].held
    assert not rows([prompt], 41)[1].held
    assert not rows([prompt, Ends("stock", failed=1)], 40)[2].held
    assert table([late]).rows[0][-1] == "1 of 40"
