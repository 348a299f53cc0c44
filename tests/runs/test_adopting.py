from __future__ import annotations

import pytest

from crosswind.pods.workers import WorkerTask
from crosswind.runs.adopting import match
from crosswind.runs.workloads import Claim, Workload
from crosswind.types import Manifest


def claim(ti_id: str = "id-1", task_id: str = "task") -> Claim:
    key = ("dag", task_id, "run", 2, -1)
    return Claim(ti_id, key, Workload(key, WorkerTask("dag", task_id, "run", 2, "u"), 0.0, None))


def pod(name: str = "a", **annotations: str) -> Manifest:
    stock = {"dag_id": "dag", "task_id": "task", "run_id": "run", "try_number": "2"}
    return {"metadata": {"name": name, "annotations": stock | annotations}}


def test_the_task_instances_id_decides() -> None:
    mine, other = claim("id-1"), claim("id-2", "other")
    found = match([pod(task_instance_id="id-1"), pod("b", task_instance_id="id-3")], [mine, other])
    assert [(claim.ti_id, pod["metadata"]["name"]) for claim, pod in found] == [("id-1", "a")]


@pytest.mark.parametrize(
    ("annotations", "matches"),
    [({}, True), ({"try_number": "3"}, False), ({"map_index": "0"}, False), ({"try_number": "x"}, False)],
)
def test_a_pod_of_stock_is_known_by_the_parts_of_its_key(annotations: dict[str, str], matches: bool) -> None:
    assert bool(match([pod(**annotations)], [claim()])) is matches


def test_a_pod_that_is_being_deleted_or_says_nothing_is_not_adopted() -> None:
    leaving = pod(task_instance_id="id-1")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert match([leaving, {"metadata": {"name": "bare"}}], [claim()]) == []
