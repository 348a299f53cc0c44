from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import models as k8s

from crosswind.errors import ConfigError, OverrideError, TemplateError
from crosswind.pods.queues import Queue
from crosswind.pods.workers import WorkerSettings, WorkerTask
from crosswind.pods.workloads import SecretWorkload
from crosswind.runs.composing import Composer
from crosswind.runs.workloads import Workload
from crosswind.types import Manifest

TEMPLATE = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: base, image: %s}]}\n"
TASK = WorkerTask("dag", "task", "run", 1, "u1")


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "template.yaml"
    path.write_text(TEMPLATE % "one")
    return path


def compose(composer: Composer, config: dict[str, Any] | None = None) -> Manifest:
    return composer.compose(Workload("key", TASK, 1.0, None, config=config), TASK, SecretWorkload("s", "u1"))


def image(pod: Manifest) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def test_a_template_is_read_again_when_its_file_changes(template: Path) -> None:
    composer = Composer(WorkerSettings(), template=str(template))
    assert image(compose(composer)) == "one"
    template.write_text(TEMPLATE % "another")
    assert image(compose(composer)) == "another"


def test_pods_that_are_composed_in_one_go_have_one_version_of_the_template(template: Path) -> None:
    composer = Composer(WorkerSettings(), template=str(template))
    with composer.templates.at_once():
        assert image(compose(composer)) == "one"
        template.write_text(TEMPLATE % "another")
        assert image(compose(composer)) == "one"
    assert image(compose(composer)) == "another"


def test_executor_config_wins_over_the_queue_and_the_queue_over_the_global_template(template: Path) -> None:
    own, queued = template.with_name("own.yaml"), template.with_name("queued.yaml")
    own.write_text(TEMPLATE % "own" + "  # no namespace\n")
    queued.write_text((TEMPLATE % "queued").replace("name: x", "name: x, namespace: queued"))
    queues = {"q": Queue(str(queued), "gpu", "high")}
    composer = Composer(WorkerSettings(), template=str(template), queues=queues)
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
    pod = compose(Composer(WorkerSettings(), template=str(template)), config)
    assert image(pod) == "own"
    assert {"name": "A", "value": "b"} in pod["spec"]["containers"][0]["env"]


def test_without_a_template_the_fallback_serves_and_without_both_the_mend_is_told() -> None:
    fallback = {"metadata": {"name": "w"}, "spec": {"containers": [{"name": "base", "image": "built-in"}]}}
    assert image(compose(Composer(WorkerSettings(), template=None, fallback=fallback))) == "built-in"
    with pytest.raises(TemplateError, match="pod_template_file"):
        compose(Composer(WorkerSettings(), template=None))


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"kind: [", b"kind: Pod\n"])
def test_a_template_that_cannot_be_used_is_told_with_its_path(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TemplateError) as caught:
        Composer(WorkerSettings(), template=str(path)).check()
    assert str(path) in str(caught.value)


def test_a_mutation_hook_has_the_last_word_but_for_what_a_worker_needs(template: Path) -> None:
    def rename(pod: Manifest) -> Manifest:
        return {**pod, "spec": {"containers": [{"name": "main", "image": "one"}]}}

    def fail(pod: Manifest) -> Manifest:
        raise KeyError("spec")

    for mutate in (rename, fail):
        with pytest.raises(OverrideError):
            compose(Composer(WorkerSettings(), template=str(template), mutate=mutate))


def test_an_override_that_breaks_the_merge_is_an_error_of_the_task(template: Path) -> None:
    override = k8s.V1Pod(spec={"containers": "none"})
    with pytest.raises(ConfigError):
        compose(Composer(WorkerSettings(), template=str(template)), {"pod_override": override})
