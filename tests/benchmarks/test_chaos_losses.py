"""Every kind of loss in its short form, with a real scheduler: ``make chaos ARGS=losses`` runs 500 tasks."""

from __future__ import annotations

import pytest
from benchmarks.chaos.loss_figures import figures, lost_pods, overlaps
from benchmarks.chaos.losses import SCENARIOS
from benchmarks.chaos.pod_records import PodRecord, PodRecords
from benchmarks.chaos.scenario import ScenarioSize, report
from benchmarks.chaos.tries import TaskRow, Tries
from sqlalchemy import create_engine
from tests.databases import skip_without_postgresql

from kubelocal.storage.store import Entry, Event


@pytest.mark.timeout(600)
def test_the_cluster_takes_pods_and_no_task_without_retries_fails() -> None:
    skip_without_postgresql()
    (scenario,) = SCENARIOS
    outcome = report(scenario, ScenarioSize(short=True))
    assert outcome.problem == ""
    assert [row for row in outcome.rows if not row.held] == []
    assert outcome.held


def observed(**changes: object) -> dict[str, bool]:
    """Return which figures hold for one lost try, with changes to what was observed of its pod, row and marks."""
    tries = Tries(create_engine("sqlite://"))
    tries.replaced, tries.losses = {"a": 104.0}, {"work_0": 1}
    row = {"state": "success", "try_number": 2, "max_tries": 1} | {k: v for k, v in changes.items() if k in ROW}
    tries.rows = {"work_0": TaskRow("work_0", "b", **row)}  # type: ignore[arg-type]  # by name
    pod = {"node": "n", "started": 90.0, "marked": 99.0, "mark": "DeletionByTaintManager", "ended": 100.0}
    pod |= {"kind": "taint"} | {k: v for k, v in changes.items() if k in POD}
    records = [PodRecord("u", "p", "ns", "a", "work_0", 80.0, **pod)]  # type: ignore[arg-type]  # by name
    marks, accepted = int(str(changes.get("marks", 0))), int(str(changes.get("accepted", 0)))
    sizes = {"expected_kinds": 1, "least": 1, "tasks": 1, "sensors": 0, "kept_clocks": 0, "late_pokes": 0}
    rest = {"real_nodes": ["n"], "attempts": 2, "left": 0, "problems": 0}
    rows = figures(records, tries, marks=marks, accepted=accepted, **sizes, **rest)  # type: ignore[arg-type]
    return {each.figure: each.held for each in rows}


ROW = ("state", "try_number", "max_tries")
POD = ("node", "started", "marked", "mark", "ended", "kind", "silenced", "toleration")
OVERLAPS = "tries that began while the old one ran"


@pytest.mark.parametrize(
    ("figure", "change"),
    [
        ("tasks that succeeded", {"state": "failed"}),
        ("tasks whose retries were touched", {"max_tries": 0}),
        ("of them accepted", {"accepted": 1}),
        ("callbacks and e-mails", {"marks": 1}),
        ("tries that began while the old one ran", {"ended": 105.0}),
        ("base's end to the next try, longest, s", {"ended": 98.0}),
        ("taint manager's mark to the next try, longest, s", {"marked": 93.0}),
        ("kinds of loss", {"kind": ""}),
    ],
)
def test_each_figure_notices_what_it_is_about(figure: str, change: dict[str, object]) -> None:
    assert observed()[figure]
    assert not observed(**change)[figure]


def test_a_dead_node_is_timed_at_the_pace_of_kubernetes() -> None:
    """55 s until the node is unreachable, what the pod tolerates, and what followed the mark."""
    name = "node's death to the next try at Kubernetes' pace, longest, s"
    assert observed(silenced=95.5, marked=99.0, toleration=30.0, ended=0.0)[name]
    assert not observed(silenced=95.5, marked=99.0, toleration=300.0, ended=0.0)[name]
    assert not observed(silenced=80.0, marked=88.0, toleration=30.0, ended=0.0)[name]


@pytest.mark.parametrize(
    ("change", "overlaps"),
    [
        ({"ended": 105.0}, True),
        ({"ended": 0.0}, True),
        ({"ended": 0.0, "silenced": 98.0, "kind": "death"}, False),
        ({"ended": 105.0, "silenced": 98.0, "kind": "partition"}, False),
        ({"ended": 105.0, "silenced": 104.5, "kind": "partition"}, True),  # it answered when the task went on
        ({"started": 104.5, "ended": 105.0}, False),  # Airflow refuses a worker of the old try
    ],
)
def test_only_a_node_that_does_not_answer_may_have_two_tries_at_once(change: dict[str, object], overlaps: bool) -> None:
    assert observed(**change)[OVERLAPS] is not overlaps


def test_a_worker_of_the_same_try_in_another_pod_is_never_excused() -> None:
    old = PodRecord("u", "p", "ns", "a", "work_0", 80.0, node="n", started=90.0, marked=89.0, ended=91.0)
    new = PodRecord("v", "q", "ns", "a", "work_0", 89.5, node="n")
    (lost,) = lost_pods([old, new], Tries(create_engine("sqlite://")))
    assert overlaps(lost)


def records() -> PodRecords:
    return PodRecords(lambda work: None)


def change(pod: PodRecord, seen: PodRecords, **status: object) -> None:
    """Have the store report a pod that is bound to its node."""
    annotations = {"task_instance_id": pod.ti_id, "task_id": pod.task_id}
    metadata = {"uid": pod.uid, "name": pod.name, "namespace": pod.namespace, "annotations": annotations}
    manifest = {"metadata": metadata, "spec": {"nodeName": pod.node}, "status": status}
    seen._saw(Event("MODIFIED", pod.namespace, pod.name, Entry(manifest, 1), None))


def test_every_pod_of_a_node_is_silent_with_it_and_heard_with_it() -> None:
    """Those that were taken before, and those that are bound before the node is tainted: both may run there unseen."""
    seen = records()
    taken, ended, late = (PodRecord(name, name, "ns", name, "work_0", 1.0, node="n") for name in ("t", "e", "l"))
    evicted = [{"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}]
    change(taken, seen, conditions=evicted)
    change(ended, seen, phase="Succeeded")
    assert [record.uid for record in seen.silence("n")] == ["t"]
    change(late, seen)
    assert [bool(record.silenced) for record in seen.all()] == [True, False, True]
    seen.hear("n")
    assert [bool(record.silenced) for record in seen.all()] == [True, False, False]
