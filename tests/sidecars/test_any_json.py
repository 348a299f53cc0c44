"""The decisions about sidecars get pods of other people: each gives an answer for any JSON, and raises for none."""

from __future__ import annotations

from typing import Any

from hypothesis import given

from any_json import any_pod, items
from crosswind.podrun.reattach import could_start, earlier_pod_state, preferred_pod, was_stopped
from crosswind.podrun.xcom_delivery import delivered, is_blocking, is_delivery_due
from crosswind.pods.verdict import judge
from crosswind.settings import ReapSettings
from crosswind.sidecars.reaper_policy import decide, restrict_plan
from crosswind.sidecars.safety_checks import ReapScope, objections, spared_containers
from crosswind.sidecars.shutdown_plan import plan_shutdown

SETTINGS = ReapSettings(("jobs",), "app=etl")


@given(any_pod)
def test_any_json_gets_a_plan_and_a_decision(pod: Any) -> None:
    plan = plan_shutdown(pod, delete=True)
    assert restrict_plan(plan, pod, "base", SETTINGS).targets is not None
    assert all(isinstance(objection, str) for objection in objections(pod, ReapScope(frozenset({"jobs"}))))
    assert isinstance(spared_containers(pod, ReapScope(frozenset())), tuple)
    assert isinstance(str(decide(pod, SETTINGS)), str)


@given(any_pod, items)
def test_any_json_is_a_pod_of_an_earlier_try_in_some_state(pod: Any, events: list[Any]) -> None:
    state = earlier_pod_state(pod, "base", ())
    assert preferred_pod([pod], [state]) == 0
    assert was_stopped(pod, events, "base") in (True, False)
    assert could_start(pod, judge(pod)) in (True, False)


@given(any_pod)
def test_any_json_has_an_xcom_or_none(pod: Any) -> None:
    assert delivered(pod) is None or isinstance(delivered(pod).problem, str)
    assert is_blocking(pod) in (True, False)
    assert is_delivery_due(pod, "base") in (True, False)
