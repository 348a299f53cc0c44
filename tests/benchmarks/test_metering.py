from __future__ import annotations

from types import SimpleNamespace

import pytest
from benchmarks.metering import Stolen, stolen_share


def test_stolen_time_is_a_share_of_that_in_which_the_machine_would_work() -> None:
    before = SimpleNamespace(user=10.0, nice=0.0, system=5.0, idle=100.0, steal=1.0)
    after = SimpleNamespace(user=14.0, nice=1.0, system=6.0, idle=190.0, steal=3.0)
    assert stolen_share(before, after) == 0.25


def test_without_steal_time_of_the_system_the_share_is_unknown() -> None:
    times = SimpleNamespace(user=1.0, nice=0.0, system=0.0)
    assert stolen_share(times, times) is None


@pytest.mark.parametrize(("share", "text"), [(0.25, "25%"), (None, "unknown")])
def test_the_share_is_printed_in_per_cent(share: float | None, text: str) -> None:
    stolen = Stolen()
    stolen.share = share
    assert str(stolen) == text
