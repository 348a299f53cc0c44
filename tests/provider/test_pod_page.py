"""The tab's content, where the rows of ``tests/pages`` have no example."""

from __future__ import annotations

import datetime
from types import SimpleNamespace
from typing import Any

import pytest

from crosswind.engine.fleet_snapshot import PodInFlight
from crosswind.provider import pod_page
from crosswind.provider.fleet_rows import ExecutorSnapshot
from crosswind.provider.pod_page import stale_note

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("age", "note"),
    [
        (9, ""),
        (42, "Stale: the scheduler last reported 42 s ago; the page may be out of date."),
        (None, "The scheduler that runs this pod has stopped reporting: the page may be out of date."),
    ],
)
def test_a_snapshot_older_than_ten_seconds_is_shown_as_stale(age: int | None, note: str) -> None:
    seen_at = datetime.datetime.fromtimestamp(NOW - (age or 0), datetime.UTC)
    snapshot = None if age is None else ExecutorSnapshot("7", seen_at, {})
    assert stale_note(snapshot, NOW) == note


@pytest.mark.parametrize(
    ("state", "title"),
    [
        (None, "No pod yet"),
        ("scheduled", "No pod yet"),
        ("queued", "Queued"),
        ("deferred", "Deferred"),
        ("up_for_retry", "Waits for its next try"),
        ("upstream_failed", "No pod: upstream_failed"),
    ],
)
def test_a_task_without_a_pod_has_a_status_line(state: str | None, title: str) -> None:
    ti: Any = SimpleNamespace(state=state)
    assert pod_page._without_pod(ti).title == title


def test_a_try_whose_record_is_gone_says_so() -> None:
    facts = pod_page._unrecorded(pod_page._Try("id", 2, "failed", None, None, None))
    assert (facts.try_number, facts.outcome) == (2, "failed, no record of its pod")
    assert "archive_days" in facts.message


def test_the_executors_description_completes_what_the_snapshot_has_of_a_living_pod() -> None:
    pod = PodInFlight("u", "id", "d", "t", "r", -1, 1, "q", "ns", "pod", "pending", "Unschedulable", NOW, created=NOW)
    attempt = pod_page._Try("id", 1, "queued", datetime.datetime.fromtimestamp(NOW - 1, datetime.UTC), None, None)
    events = [{"event": "pod waits", "try": 1, "text": "no node has 64Gi"}]
    detail = {"times": {"created": NOW - 5, "scheduled": NOW + 1}, "containers": [{"name": "istio-proxy"}], "node": "n"}
    facts = pod_page._described(pod_page._of_pod_in_flight(pod, attempt, events), detail)
    assert (facts.message, facts.node, facts.containers) == ("no node has 64Gi", "n", [{"name": "istio-proxy"}])
    assert dict(facts.times) == {"queued": NOW - 1, "created": NOW, "scheduled": NOW + 1}


def test_the_wait_of_a_warm_pod_ends_with_its_claim() -> None:
    assert pod_page._waited({"waited": {"started": 100.0}, "times": {"claimed": 160.5}}) == 60.5
    assert pod_page._waited({"times": {"started": 100.0}}) is None
