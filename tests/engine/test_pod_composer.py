from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import models as k8s

from crosswind.engine.losses import LossChoice, LossPolicy
from crosswind.engine.pod_composer import PodComposer
from crosswind.engine.queues import QueueSettings
from crosswind.engine.state import Workload
from crosswind.engine.worker_pod import WorkerSettings, WorkerTask
from crosswind.engine.workload_secrets import InlineWorkload, SecretWorkload, mounted_workload
from crosswind.errors import ConfigError, OverrideError, TemplateError
from crosswind.types import Manifest

TEMPLATE = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: base, image: %s}]}\n"
TASK = WorkerTask("dag", "task", "run", 1, "u1")


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "template.yaml"
    path.write_text(TEMPLATE % "one")
    return path


def compose(
    composer: PodComposer, config: dict[str, Any] | None = None, losses: int = 0, queue: str = "default"
) -> Manifest:
    task = replace(TASK, queue=queue)
    return composer.compose(Workload("key", task, 1.0, None, config=config), task, SecretWorkload("s", "u1"), losses)


def image(pod: Manifest) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def test_a_template_is_read_again_when_its_file_changes(template: Path) -> None:
    composer = PodComposer(WorkerSettings(), template=str(template))
    assert image(compose(composer)) == "one"
    template.write_text(TEMPLATE % "another")
    assert image(compose(composer)) == "another"


def test_pods_of_one_snapshot_have_the_same_version_of_the_template(template: Path) -> None:
    composer = PodComposer(WorkerSettings(), template=str(template))
    with composer.templates.snapshot():
        assert image(compose(composer)) == "one"
        template.write_text(TEMPLATE % "another")
        assert image(compose(composer)) == "one"
    assert image(compose(composer)) == "another"


def test_executor_config_wins_over_the_queue_and_the_queue_over_the_global_template(template: Path) -> None:
    own, queued = template.with_name("own.yaml"), template.with_name("queued.yaml")
    own.write_text(TEMPLATE % "own" + "  # no namespace\n")
    queued.write_text((TEMPLATE % "queued").replace("name: x", "name: x, namespace: queued"))
    queues = {"q": QueueSettings(str(queued), "gpu", "high")}
    composer = PodComposer(WorkerSettings(), template=str(template), queues=queues)
    override = {"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(priority_class_name="mine", containers=[]))}

    def seen(queue: str, config: dict[str, Any] | None = None) -> tuple[str, str, str | None]:
        task = replace(TASK, queue=queue)
        pod = composer.compose(Workload("key", task, 1.0, None, config=config), task, SecretWorkload("s", "u1"))
        return image(pod), pod["metadata"]["namespace"], pod["spec"].get("priorityClassName")

    assert seen("default") == ("one", "default", None)
    assert seen("q") == ("queued", "gpu", "high")
    assert seen("q", override) == ("queued", "gpu", "mine")
    assert seen("q", {"pod_template_file": str(own)}) == ("own", "gpu", "high")


def test_a_tasks_own_template_and_override_come_together(template: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(TEMPLATE % "own")
    base = k8s.V1Container(name="base", env=[k8s.V1EnvVar(name="A", value="b")])
    config = {"pod_template_file": str(own), "pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[base]))}
    pod = compose(PodComposer(WorkerSettings(), template=str(template)), config)
    assert image(pod) == "own"
    assert {"name": "A", "value": "b"} in pod["spec"]["containers"][0]["env"]


def test_without_a_template_the_fallback_is_used_and_without_both_the_error_names_the_fix() -> None:
    fallback = {"metadata": {"name": "w"}, "spec": {"containers": [{"name": "base", "image": "built-in"}]}}
    assert image(compose(PodComposer(WorkerSettings(), template=None, fallback=fallback))) == "built-in"
    with pytest.raises(TemplateError, match="pod_template_file"):
        compose(PodComposer(WorkerSettings(), template=None))


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"kind: [", b"kind: Pod\n"])
def test_an_error_in_a_template_names_its_path(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TemplateError) as caught:
        PodComposer(WorkerSettings(), template=str(path)).check()
    assert str(path) in str(caught.value)


def test_a_mutation_hook_may_change_everything_but_what_a_worker_needs(template: Path) -> None:
    def rename(pod: Manifest) -> Manifest:
        return {**pod, "spec": {"containers": [{"name": "main", "image": "one"}]}}

    def fail(pod: Manifest) -> Manifest:
        raise KeyError("spec")

    for mutate in (rename, fail):
        with pytest.raises(OverrideError):
            compose(PodComposer(WorkerSettings(), template=str(template), mutate=mutate))


def test_an_override_that_breaks_the_merge_is_an_error_of_the_task(template: Path) -> None:
    override = k8s.V1Pod(spec={"containers": "none"})
    with pytest.raises(ConfigError):
        compose(PodComposer(WorkerSettings(), template=str(template)), {"pod_override": override})


@pytest.mark.parametrize(
    ("settings", "queue", "runs_task", "shim"),
    [
        ({}, "default", True, True),
        ({"shim": False}, "default", True, False),
        ({"coordinated_queues": frozenset({"java"})}, "java", True, False),
        ({"coordinated_queues": frozenset({"java"})}, "default", True, True),
        ({}, "default", False, False),
    ],
)
def test_the_shim_runs_tasks_in_python_alone(
    template: Path, settings: dict[str, Any], queue: str, runs_task: bool, shim: bool
) -> None:
    composer, task = PodComposer(WorkerSettings(**settings), template=str(template)), replace(TASK, queue=queue)
    workload = Workload("key", task, 1.0, None, runs_task=runs_task)
    pod = composer.compose(workload, task, SecretWorkload("s", "u1"))
    assert mounted_workload(pod) == SecretWorkload("s", "u1", shim=shim)
    inline = composer.compose(workload, task, InlineWorkload("{}"))
    assert inline["spec"]["containers"][0]["args"][-2:] == ["--json-string", "{}"]


def on(capacity: str) -> Manifest:
    return {"spec": {"nodeSelector": {"capacity": capacity}}}


def test_pods_are_patched_from_a_number_of_losses_on(template: Path) -> None:
    policy = LossPolicy(after={3: {"spec": {"priorityClassName": "high"}}, 2: on("on-demand")})
    composer = PodComposer(WorkerSettings(), template=str(template), losses=policy)
    config = {
        "pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(node_selector={"capacity": "spot", "zone": "a"}, containers=[]))
    }
    specs = [compose(composer, config, losses)["spec"] for losses in range(5)]
    assert [spec["nodeSelector"] for spec in specs] == [
        *[{"capacity": "spot", "zone": "a"}] * 2,
        *[{"capacity": "on-demand", "zone": "a"}] * 3,
    ]
    assert [spec.get("priorityClassName") for spec in specs] == [None, None, None, "high", "high"]


def test_a_task_wins_over_its_queue_and_the_queue_over_the_global_options(template: Path) -> None:
    queues = {"spot": QueueSettings(losses=LossChoice(5, {1: on("queue")})), "other": QueueSettings()}
    composer = PodComposer(
        WorkerSettings(), template=str(template), queues=queues, losses=LossPolicy(2, {1: on("global")}, 40)
    )
    own = {"crosswind": {"infra_retries": 7, "after_losses": {1: on("task")}}}
    assert composer.loss_policy(None, "other") == LossPolicy(2, {1: on("global")}, 40)
    assert composer.loss_policy(None, "spot") == LossPolicy(5, {1: on("queue")}, 40)
    assert composer.loss_policy(own, "spot") == LossPolicy(7, {1: on("task")}, 40)
    chosen = [compose(composer, config, 1, "spot")["spec"]["nodeSelector"] for config in (None, own)]
    assert chosen == [{"capacity": "queue"}, {"capacity": "task"}]


def node_tolerations(pod: Manifest) -> dict[str, int | None]:
    found = pod["spec"].get("tolerations") or []
    return {one.get("key", "*"): one.get("tolerationSeconds") for one in found}


NOT_READY, UNREACHABLE = "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ([], {NOT_READY: 30, UNREACHABLE: 30}),
        ([{"key": "gpu", "operator": "Exists"}], {"gpu": None, NOT_READY: 30, UNREACHABLE: 30}),
        (
            [{"key": NOT_READY, "operator": "Exists", "effect": "NoExecute", "toleration_seconds": 600}],
            {NOT_READY: 600, UNREACHABLE: 30},
        ),
        ([{"operator": "Exists"}], {"*": None}),
        ([{"operator": "Exists", "effect": "NoSchedule"}], {"*": None, NOT_READY: 30, UNREACHABLE: 30}),
    ],
)
def test_a_pod_leaves_a_dead_node_soon_unless_its_author_wants_another_time(
    template: Path, own: list[dict[str, Any]], expected: dict[str, int | None]
) -> None:
    tolerations = [k8s.V1Toleration(**one) for one in own]
    override = k8s.V1Pod(spec=k8s.V1PodSpec(tolerations=tolerations, containers=[]))
    composer = PodComposer(WorkerSettings(), template=str(template))
    assert node_tolerations(compose(composer, {"pod_override": override})) == expected


@pytest.mark.parametrize("options", [{"infra_retries": 0}, {"node_loss_seconds": 0}])
def test_a_task_that_must_not_run_twice_keeps_the_clusters_patience(template: Path, options: dict[str, int]) -> None:
    composer = PodComposer(WorkerSettings(), template=str(template))
    assert node_tolerations(compose(composer, {"crosswind": options})) == {}
    assert node_tolerations(compose(composer, {"crosswind": {"node_loss_seconds": 90}})) == {
        NOT_READY: 90,
        UNREACHABLE: 90,
    }
