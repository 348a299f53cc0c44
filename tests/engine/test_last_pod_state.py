"""What the history keeps of a pod's last state."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswind.engine.last_pod_state import last_pod_state, seconds_of
from crosswind.pods.fields import as_pod
from crosswind.pods.states import ContainerKind, container_reports

CONTAINERS = st.lists(st.fixed_dictionaries({"name": st.sampled_from(["base", "proxy", "", 7])}), max_size=3)


@given(st.dictionaries(st.sampled_from(["containers", "initContainers"]), CONTAINERS), CONTAINERS, CONTAINERS)
def test_every_container_that_has_a_report_is_named_but_for_base(
    spec: dict[str, Any], regular: list[dict[str, Any]], init: list[dict[str, Any]]
) -> None:
    pod = as_pod({"spec": spec, "status": {"containerStatuses": regular, "initContainerStatuses": init}})
    beside = [report.name for report in container_reports(pod, "base") if report.kind is not ContainerKind.BASE]
    assert [container["name"] for container in last_pod_state(pod, frozenset()).containers] == beside


def test_a_base_that_runs_has_started_and_not_ended() -> None:
    running = {"name": "base", "state": {"running": {"startedAt": "2027-01-15T07:59:00Z"}}}
    last = last_pod_state(as_pod({"status": {"containerStatuses": [running]}}), frozenset())
    assert (last.times, last.ended_at, last.exit_code) == ({"started": 1_799_999_940.0}, None, None)


@pytest.mark.parametrize("condition", [{"status": "False"}, {"lastTransitionTime": None}, {"type": ["PodScheduled"]}])
def test_a_condition_counts_when_it_is_true_and_says_since_when(condition: dict[str, Any]) -> None:
    good = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2027-01-15T07:59:00Z"}
    for given_condition, times in ((good, {"scheduled": 1_799_999_940.0}), (good | condition, {})):
        assert last_pod_state(as_pod({"status": {"conditions": [given_condition]}}), frozenset()).times == times


@pytest.mark.parametrize("stamp", ["", "yesterday", None, 5, ["2027-01-15T07:59:00Z"], "0001-01-01T00:00:00Z"])
def test_what_is_no_time_is_not_known(stamp: Any) -> None:
    assert seconds_of(stamp) is None
