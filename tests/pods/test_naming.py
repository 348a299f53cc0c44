from __future__ import annotations

import re
from uuid import uuid4

import pytest
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator, make_safe_label_value
from airflow.version import version
from hypothesis import example, given
from hypothesis import strategies as st

from crosswind.pods.naming import bad_label, label_value, mesh_labels, pod_name, task_annotations, task_labels

UNIQUE = "0f8fad5b-d9cb-469f-a165-70867728950e"
_text = st.text(max_size=120) | st.text(alphabet="aZ9-_. /:+\n", max_size=80)


@given(_text)
@example("a" * 63)
@example("a" * 64)
@example("manual__2026-01-01T00:00:00+00:00")
@example("ends with a newline\n")
def test_a_label_value_is_the_one_that_stock_makes(text: str) -> None:
    assert label_value(text) == make_safe_label_value(text).removeprefix("-")
    assert bad_label({"key": label_value(text)}) is None


@given(_text, _text)
def test_a_pod_name_is_a_dns_label_that_ends_with_the_unique_id(dag: str, task: str) -> None:
    name = pod_name(dag, task, UNIQUE)
    assert len(name) <= 63
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)
    assert name.endswith(f"-{UNIQUE}")
    assert name == pod_name(dag, task, UNIQUE)


@pytest.mark.parametrize(
    ("dag", "task", "stem"),
    [
        ("etl", "load", "etl-load"),
        ("ETL_orders", "group.load", "etl-orders-group-load"),
        ("a_very_long_name_of_a_dag_indeed", "load", "a-very-long-name-of-a-load"),
        ("etl", "a_very_long_name_of_a_task_indeed", "etl-a-very-long-name-of-a"),
        ("a_very_long_name_of_a_dag", "a_very_long_name_of_a_task", "a-very-long-n-a-very-long"),
        ("Zürich", "größe", "zurich-groe"),
        ("日次", "集計", "task"),
        ("_", "-", "task"),
    ],
)
def test_dag_and_task_share_the_room_of_a_name(dag: str, task: str, stem: str) -> None:
    assert pod_name(dag, task, UNIQUE) == f"{stem}-{UNIQUE}"


@pytest.mark.parametrize("unique", ["", "-a", "a-", "a_b", "a" * 59, "ä"])
def test_a_unique_id_that_cannot_end_a_name_is_refused(unique: str) -> None:
    with pytest.raises(ValueError, match="cannot end a pod's name"):
        pod_name("dag", "task", unique)


@pytest.mark.parametrize(("run_id", "map_index"), [("manual__2026-01-01T00:00:00+00:00", -1), ("r", 7)])
def test_labels_and_annotations_are_those_of_stock(run_id: str, map_index: int) -> None:
    from kubernetes.client import models

    base = models.V1Container(name="base", image="x")
    stock = PodGenerator.construct_pod(
        dag_id="däg", task_id="group.task", pod_id=f"p-{uuid4()}", try_number=2, kube_image="x", date=None, args=[],
        pod_override_object=None, namespace="default", scheduler_job_id="job 5", run_id=run_id, map_index=map_index,
        base_worker_pod=models.V1Pod(metadata=models.V1ObjectMeta(), spec=models.V1PodSpec(containers=[base])),
    )  # fmt: skip
    facts = {"dag_id": "däg", "task_id": "group.task", "run_id": run_id, "try_number": 2, "map_index": map_index}
    assert task_labels(**facts, executor_id="job 5", airflow_version=version) == stock.metadata.labels
    assert task_annotations(**facts) == stock.metadata.annotations


def test_labels_without_an_executor_and_version_are_for_a_selector() -> None:
    labels = task_labels(dag_id="d", task_id="t", run_id="r", try_number=1)
    assert labels.keys() == {"dag_id", "task_id", "run_id", "try_number", "kubernetes_executor"}


@pytest.mark.parametrize("label", ["app", "app.kubernetes.io/name", "service.istio.io/canonical-name"])
def test_a_name_that_the_author_gave_for_the_mesh_stays(label: str) -> None:
    assert mesh_labels({label: "mine"}) == {}
    assert mesh_labels({"other": "mine"}) == {"app.kubernetes.io/name": "airflow-worker"}


@pytest.mark.parametrize("value", ["a" * 64, "-a", "a-", "a b", "ä", 7, "a\n"])
def test_a_label_value_that_kubernetes_refuses_is_found(value: object) -> None:
    assert bad_label({"good": "a", "bad": value}) == "bad"
