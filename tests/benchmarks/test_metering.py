from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest
from benchmarks.metering import Stolen


def test_stolen_time_is_a_share_of_that_in_which_the_machine_would_work(monkeypatch: pytest.MonkeyPatch) -> None:
    before = SimpleNamespace(user=10.0, nice=0.0, system=5.0, idle=100.0, steal=1.0)
    after = SimpleNamespace(user=14.0, nice=1.0, system=6.0, idle=190.0, steal=3.0)
    times = iter([before, after])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(times))
    with Stolen() as stolen:
        pass
    assert (stolen.share, str(stolen)) == (0.25, "25%")


def test_where_the_system_does_not_tell_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "cpu_times", lambda: SimpleNamespace(user=1.0, nice=0.0, system=0.0))
    with Stolen() as stolen:
        pass
    assert (stolen.share, str(stolen)) == (None, "unknown")
