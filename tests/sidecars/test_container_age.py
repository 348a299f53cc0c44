"""The age of a sidecar does not depend on the difference between the clocks of the node and of this machine."""

from __future__ import annotations

from typing import Any

import pytest

from crosswind.sidecars.pod_watch import PodWatch
from crosswind.sidecars.shutdown import _age


def watched(started: str | None, ended: str | None) -> PodWatch:
    sidecar: dict[str, Any] = {"name": "proxy", "state": {"running": {"startedAt": started} if started else {}}}
    base: dict[str, Any] = {"name": "base", "state": {"terminated": {"finishedAt": ended} if ended else {}}}
    metadata = {"name": "pod", "namespace": "n", "uid": "u"}
    return PodWatch(None, {"metadata": metadata, "status": {"containerStatuses": [base, sidecar]}})  # type: ignore[arg-type]


@pytest.mark.parametrize("year", ["1999", "2026", "2055"])
def test_a_sidecar_is_as_old_as_base_was_at_its_end_by_the_nodes_own_clock(year: str) -> None:
    young = watched(f"{year}-01-01T00:00:00Z", f"{year}-01-01T00:00:02Z")
    assert 2.0 <= _age(young, "proxy", "base") < 8.0
    old = watched(f"{year}-01-01T00:00:00Z", f"{year}-01-01T00:10:00Z")
    assert _age(old, "proxy", "base") >= 600.0


def test_one_that_started_after_bases_end_is_new() -> None:
    assert _age(watched("2026-01-01T00:00:05Z", "2026-01-01T00:00:00Z"), "proxy", "base") < 5.0


def test_where_bases_end_is_unknown_the_seconds_of_the_watch_count() -> None:
    assert _age(watched("1999-01-01T00:00:05Z", None), "proxy", "base") < 5.0


def test_one_whose_start_is_not_known_is_old() -> None:
    assert _age(watched(None, "2026-01-01T00:00:00Z"), "proxy", "base") == float("inf")
    assert _age(watched("no time", "2026-01-01T00:00:00Z"), "proxy", "base") == float("inf")
