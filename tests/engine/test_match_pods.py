from __future__ import annotations

import pytest

from crosswind.engine.adoption import match_pods
from crosswind.engine.state import AdoptionRequest, Workload, attempt_unique_id
from crosswind.engine.worker_pod import WorkerTask, worker_name
from crosswind.engine.workload_secrets import SecretWorkload, workload_volume
from crosswind.provider.live_log import choose_pod
from crosswind.types import Manifest

FIRST = "0b6ae1a6-3a3e-4f4e-9c0e-1f6c5a3c2f11"
LATER = "5d1f6f0a-7d0b-4f43-8d53-2f0e6c1f9a22"


def request(ti_id: str = "id-1", task_id: str = "task", unique_id: str = "") -> AdoptionRequest:
    key = ("dag", task_id, "run", 2, -1)
    workload = Workload(key, WorkerTask("dag", task_id, "run", 2, unique_id or "u"), 0.0, None)
    return AdoptionRequest(ti_id, key, workload, owner="7", unique_id=unique_id)


def pod(name: str = "a", **annotations: str) -> Manifest:
    stock = {"dag_id": "dag", "task_id": "task", "run_id": "run", "try_number": "2"}
    return {"metadata": {"name": name, "uid": f"uid-{name}", "annotations": stock | annotations}}


def ours(attempt: int = 0, unique_id: str = FIRST, **metadata: object) -> Manifest:
    """A pod with the name of one attempt of a workload."""
    made = pod(
        worker_name(WorkerTask("dag", "task", "run", 2, attempt_unique_id(unique_id, attempt))), task_instance_id="id-1"
    )
    made["metadata"] |= metadata
    return made


def names(pods: list[Manifest], *requests: AdoptionRequest) -> list[tuple[str, str, int]]:
    named = {pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in pods}
    return [(request.ti_id, named[uid], attempt) for request, uid, attempt in match_pods(pods, requests)]


def test_a_pod_matches_by_task_instance_id() -> None:
    found = names(
        [pod(task_instance_id="id-1"), pod("b", task_instance_id="id-3")], request(), request("id-2", "other")
    )
    assert found == [("id-1", "a", 0)]


@pytest.mark.parametrize(
    ("annotations", "matches"),
    [({}, True), ({"try_number": "3"}, False), ({"map_index": "0"}, False), ({"try_number": "x"}, False)],
)
def test_a_pod_of_the_stock_executor_matches_by_the_parts_of_its_key(
    annotations: dict[str, str], matches: bool
) -> None:
    assert bool(match_pods([pod(**annotations)], [request()])) is matches


def test_a_pod_without_annotations_does_not_match() -> None:
    assert match_pods([{"metadata": {"name": "bare", "uid": "x"}}], [request(), request(unique_id=FIRST)]) == []


@pytest.mark.parametrize(("unique_id", "matches"), [("", False), (FIRST, True)])
def test_a_pod_that_is_marked_as_done_matches_only_by_the_id_of_the_try(unique_id: str, matches: bool) -> None:
    """Earlier versions set the mark before Airflow knew of the end."""
    done = ours(labels={"airflow_executor_done": "True"})
    assert bool(match_pods([done], [request(unique_id=unique_id)])) is matches


def test_a_pod_from_before_a_deferral_does_not_match_after_it() -> None:
    assert names([ours(unique_id=FIRST)], request(unique_id=LATER)) == []
    (found,) = names([ours(unique_id=FIRST), ours(unique_id=LATER)], request(unique_id=LATER))
    assert found[1].endswith(ours(unique_id=LATER)["metadata"]["name"])


def test_the_last_attempt_matches_and_a_pod_that_stays_before_one_that_is_deleted() -> None:
    leaving = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
    assert names([ours(1), ours(0)], request(unique_id=FIRST))[0][2] == 1
    assert names([ours(1, **leaving), ours(0)], request(unique_id=FIRST))[0][2] == 0
    assert names([ours(0, **leaving)], request(unique_id=FIRST))[0][2] == 0


@pytest.mark.parametrize("attempt", [0, 1])
@pytest.mark.parametrize("way", ["mount", "annotation", "claim"])
def test_a_renamed_pod_matches_by_the_unique_id_that_it_carries(way: str, attempt: int) -> None:
    unique_id = attempt_unique_id(FIRST, attempt)
    renamed = pod("renamed", task_instance_id="id-1")
    if way == "mount":
        volume, _ = workload_volume(SecretWorkload("secret", unique_id))
        renamed["spec"] = {"volumes": [volume]}
    elif way == "annotation":
        renamed["metadata"]["annotations"]["crosswind/unique-id"] = unique_id
    else:
        renamed["metadata"]["labels"] = {"crosswind/claim": unique_id}
    assert names([renamed], request(unique_id=FIRST)) == [("id-1", "renamed", attempt)]
    assert names([renamed], request(unique_id=LATER)) == []
    newest = pod("newest", task_instance_id="id-1")
    assert choose_pod([newest, renamed], unique_id) is renamed
