"""Which pods are equal but for their task, and which can never wait for one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.pod_fingerprint import COLD_REASONS, SAFE_TO_EVICT, separate
from crosswind.engine.sealed_workload import owner_labels
from crosswind.engine.state import Workload
from crosswind.engine.warm_secrets import CLAIM_VOLUME, WarmWorkload
from crosswind.engine.warm_templates import WarmTemplates
from crosswind.engine.worker_pod import WorkerSettings, WorkerTask
from crosswind.settings import EngineSettings, WarmOptions, WarmSettings
from crosswind.types import Manifest

Change = Callable[[Manifest], Any]

TASK = WorkerTask("dag", "task", "run", 1, "u" * 8, executor_id="7", ti_id="id", airflow_version="3.3.2")
OTHER = WorkerTask("other", "that", "run-2", 3, "v" * 8, 5, "8", "another", "id-2", "3.3.2")


def template(change: Change | None = None) -> Manifest:
    pod: Manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "worker", "labels": {"team": "a"}, "annotations": {SAFE_TO_EVICT: "false"}},
        "spec": {"containers": [{"name": "base", "image": "worker"}]},
    }
    if change is not None:
        change(pod)
    return pod


def composed(task: WorkerTask, change: Change | None = None, mutate: Any = None) -> Manifest:
    composer = PodComposer(WorkerSettings(), template=None, fallback=template(change), mutate=mutate)
    return composer.compose(Workload("key", task, 1.0, None), task, WarmWorkload(("pandas",)))


def fingerprint(task: WorkerTask = TASK, change: Change | None = None, scope: str = "scope", mutate: Any = None) -> str:
    return separate(composed(task, change, mutate), scope)[0].fingerprint


def test_two_tasks_of_one_template_have_equal_pods() -> None:
    assert fingerprint(TASK) == fingerprint(OTHER)
    assert len(fingerprint()) == 40


@pytest.mark.parametrize(
    "change",
    [
        lambda pod: pod["metadata"]["labels"].update(team="b"),
        lambda pod: pod["metadata"]["annotations"].update({"vault.hashicorp.com/role": "etl"}),
        lambda pod: pod["metadata"].update(namespace="elsewhere"),
        lambda pod: pod["spec"]["containers"][0].update(image="worker:2"),
        lambda pod: pod["spec"].update(nodeSelector={"disk": "ssd"}),
    ],
    ids=["label", "annotation", "namespace", "image", "spec"],
)
def test_whatever_admission_may_act_on_makes_another_pod(change: Change) -> None:
    assert fingerprint(change=change) != fingerprint()


def test_another_deployment_has_other_pods() -> None:
    assert fingerprint(scope="another") != fingerprint()


def test_a_claim_sets_all_that_a_cold_pod_says_about_its_task() -> None:
    waiting, identity = separate(composed(OTHER), "scope")
    metadata, cold = waiting.manifest["metadata"], composed(OTHER)["metadata"]
    assert {**metadata["labels"], **identity.labels} == cold["labels"]
    assert {**metadata["annotations"], **identity.annotations} == cold["annotations"]
    assert identity.safe_to_evict == "false"
    assert identity.labels["airflow-worker"] == "8"
    assert identity.labels["crosswind/queue"] == "another"
    assert not metadata["labels"].keys() & {"airflow-worker", "kubernetes_executor", "dag_id", "task_id", "run_id"}
    assert "name" not in metadata


def test_base_of_a_waiting_pod_mounts_the_claim_and_knows_its_uid() -> None:
    waiting, _ = separate(composed(TASK), "scope")
    (base,) = waiting.manifest["spec"]["containers"]
    assert base["args"] == ["python", "/run/crosswind/worker.py"]
    assert {mount["mountPath"] for mount in base["volumeMounts"]} == {"/run/crosswind", "/run/crosswind-claim"}
    environment = {variable["name"]: variable for variable in base["env"]}
    assert environment["CROSSWIND_POD_UID"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.uid"
    assert '"preload":["pandas"]' in environment["CROSSWIND_WORKER"]["value"]
    assert waiting.reason == ""


def base_of(pod: Manifest) -> Manifest:
    base: Manifest = pod["spec"]["containers"][0]
    return base


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("host_network", lambda pod: pod["spec"].update(hostNetwork=True)),
        ("hostname", lambda pod: pod["spec"].update(hostname="fixed")),
        (
            "env",
            lambda pod: base_of(pod).update(
                env=[{"name": "DAG", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['dag_id']"}}}]
            ),
        ),
        (
            "env",
            lambda pod: pod["spec"].update(
                initContainers=[
                    {
                        "name": "init",
                        "image": "worker",
                        "env": [
                            {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['dag_id']"}}}
                        ],
                    }
                ]
            ),
        ),
        (
            "mount",
            lambda pod: base_of(pod).update(
                volumeMounts=[{"name": CLAIM_VOLUME, "mountPath": "/x", "subPath": "workload"}]
            ),
        ),
        ("startup_probe", lambda pod: base_of(pod).update(startupProbe={"exec": {"command": ["true"]}})),
    ],
)
def test_a_template_that_can_never_wait_has_its_reason_with_the_fix(reason: str, change: Change) -> None:
    waiting, _ = separate(composed(TASK, change), "scope")
    assert waiting.reason == reason
    assert COLD_REASONS[reason]


def test_a_hook_that_replaces_the_command_makes_cold_pods() -> None:
    def mutate(pod: Manifest) -> Manifest:
        containers = [{**pod["spec"]["containers"][0], "args": ["bash", "-c", "other"]}]
        return {**pod, "spec": {**pod["spec"], "containers": containers}}

    assert separate(composed(TASK, mutate=mutate), "scope")[0].reason == "command"


def templates(mutate: Callable[[Manifest], Manifest] | None) -> WarmTemplates:
    composer = PodComposer(WorkerSettings(), template=None, fallback=template(), mutate=mutate)
    return WarmTemplates(composer, EngineSettings("7"), WarmSettings(WarmOptions(), b"secret"))


def with_annotation(value: Callable[[Manifest], str]) -> Callable[[Manifest], Manifest]:
    def mutate(pod: Manifest) -> Manifest:
        annotations = {**pod["metadata"]["annotations"], "example.com/who": value(pod)}
        return {**pod, "metadata": {**pod["metadata"], "annotations": annotations}}

    return mutate


def test_a_hook_that_writes_the_run_into_the_pod_is_found_out() -> None:
    by_run = with_annotation(lambda pod: str(pod["metadata"]["labels"]["run_id"]))
    by_name = with_annotation(lambda pod: str(pod["metadata"]["name"]))
    assert templates(by_run).of_queue("default").reason == "hook"
    assert templates(by_name).of_queue("default").reason == "hook"


def test_a_hook_that_distinguishes_dags_has_waiting_pods_for_each() -> None:
    by_dag = with_annotation(lambda pod: str(pod["metadata"]["labels"]["dag_id"]))
    assert templates(by_dag).of_queue("default").reason == ""
    assert fingerprint(TASK, mutate=by_dag) != fingerprint(OTHER, mutate=by_dag)
    again = replace(TASK, run_id="run-3", unique_id="w" * 8, ti_id="id-3", try_number=2)
    assert fingerprint(TASK, mutate=by_dag) == fingerprint(again, mutate=by_dag)


@pytest.mark.parametrize("team", ["", "blue"])
@pytest.mark.parametrize("secret", [b"", b"shared"])
def test_pods_that_wait_have_the_labels_of_the_executor_s_tasks(team: str, secret: bytes) -> None:
    settings = EngineSettings("7", team=team, warm_secret=secret)
    composer = PodComposer(WorkerSettings(), template=None, fallback=template())
    waiting = WarmTemplates(composer, settings, WarmSettings(WarmOptions(), b"secret")).of_queue("default")
    labels = waiting.manifest["metadata"]["labels"]
    assert labels.items() >= owner_labels(secret, team).items()


def test_options_that_a_worker_sees_make_another_pod() -> None:
    composer = PodComposer(WorkerSettings(), template=None, fallback=template())
    options = {"a": WarmOptions(preload=("pandas",)), "b": WarmOptions(max_age=60)}
    warm = WarmTemplates(composer, EngineSettings("7"), WarmSettings(WarmOptions(), b"secret", options))
    assert len({warm.of_queue(queue).fingerprint for queue in ("default", "a", "b")}) == 3
