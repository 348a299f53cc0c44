from __future__ import annotations

import pytest

from crosswind.pods.workers import WorkerTask, worker_name
from crosswind.runs.adopting import match
from crosswind.runs.workloads import Claim, Workload, unique_of
from crosswind.types import Manifest

FIRST = "0b6ae1a6-3a3e-4f4e-9c0e-1f6c5a3c2f11"
LATER = "5d1f6f0a-7d0b-4f43-8d53-2f0e6c1f9a22"


def claim(ti_id: str = "id-1", task_id: str = "task", unique: str = "") -> Claim:
    key = ("dag", task_id, "run", 2, -1)
    workload = Workload(key, WorkerTask("dag", task_id, "run", 2, unique or "u"), 0.0, None)
    return Claim(ti_id, key, workload, owner="7", unique=unique)


def pod(name: str = "a", **annotations: str) -> Manifest:
    stock = {"dag_id": "dag", "task_id": "task", "run_id": "run", "try_number": "2"}
    return {"metadata": {"name": name, "uid": f"uid-{name}", "annotations": stock | annotations}}


def ours(launch: int = 0, unique: str = FIRST, **metadata: object) -> Manifest:
    """A pod as we name it for a launch of a workload."""
    made = pod(worker_name(WorkerTask("dag", "task", "run", 2, unique_of(unique, launch))), task_instance_id="id-1")
    made["metadata"] |= metadata
    return made


def names(pods: list[Manifest], *claims: Claim) -> list[tuple[str, str, int]]:
    named = {pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in pods}
    return [(claim.ti_id, named[uid], launch) for claim, uid, launch in match(pods, claims)]


def test_the_task_instances_id_decides() -> None:
    found = names([pod(task_instance_id="id-1"), pod("b", task_instance_id="id-3")], claim(), claim("id-2", "other"))
    assert found == [("id-1", "a", 0)]


@pytest.mark.parametrize(
    ("annotations", "matches"),
    [({}, True), ({"try_number": "3"}, False), ({"map_index": "0"}, False), ({"try_number": "x"}, False)],
)
def test_a_pod_of_stock_is_known_by_the_parts_of_its_key(annotations: dict[str, str], matches: bool) -> None:
    assert bool(match([pod(**annotations)], [claim()])) is matches


def test_a_pod_that_says_nothing_or_is_dealt_with_is_not_adopted() -> None:
    done = ours(labels={"airflow_executor_done": "True"})
    assert match([done, {"metadata": {"name": "bare", "uid": "x"}}], [claim(unique=FIRST)]) == []


def test_the_pod_from_before_a_deferral_is_not_taken_for_the_one_after() -> None:
    assert names([ours(unique=FIRST)], claim(unique=LATER)) == []
    (found,) = names([ours(unique=FIRST), ours(unique=LATER)], claim(unique=LATER))
    assert found[1].endswith(ours(unique=LATER)["metadata"]["name"])


def test_of_several_launches_the_last_counts_and_one_that_stays_before_one_that_goes() -> None:
    leaving = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    assert names([ours(1), ours(0)], claim(unique=FIRST))[0][2] == 1
    assert names([ours(1, **leaving), ours(0)], claim(unique=FIRST))[0][2] == 0
    assert names([ours(0, **leaving)], claim(unique=FIRST))[0][2] == 0
