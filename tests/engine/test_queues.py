from __future__ import annotations

from typing import Any

import pytest

from crosswind.engine.queues import QueueSettings, apply_queue, join_coordinators, parse_queues

BASE = {"name": "base", "image": "i"}
QUEUE = QueueSettings(namespace="gpu", priority_class="high", labels={"cost": "queue", "team": "ml"})


def template(**namespace: str) -> dict[str, Any]:
    spec = {"containers": [BASE], "priorityClassName": "low"}
    return {"metadata": {"name": "w", "labels": {"cost": "template"}, **namespace}, "spec": spec}


def outcome(pod: dict[str, Any]) -> tuple[Any, ...]:
    return pod["metadata"].get("namespace"), pod["spec"]["priorityClassName"], pod["metadata"]["labels"]


def test_a_queue_wins_over_the_template_of_all_pods() -> None:
    pod = apply_queue(template(namespace="all"), QUEUE, chosen=False)
    assert outcome(pod) == ("gpu", "high", {"cost": "queue", "team": "ml"})


def test_a_template_that_the_task_chose_wins_over_its_queue() -> None:
    pod = apply_queue(template(namespace="mine"), QUEUE, chosen=True)
    assert outcome(pod) == ("mine", "low", {"cost": "template", "team": "ml"})


@pytest.mark.parametrize("namespace", [{}, {"namespace": "placeholder-name-dont-delete"}])
def test_a_chosen_template_without_a_namespace_gets_the_queues(namespace: dict[str, str]) -> None:
    assert apply_queue(template(**namespace), QUEUE, chosen=True)["metadata"]["namespace"] == "gpu"


def test_an_empty_queue_changes_nothing_and_no_template_is_changed_in_place() -> None:
    given = template(namespace="all")
    assert apply_queue(given, QueueSettings(), chosen=False) == given
    apply_queue(given, QUEUE, chosen=False)
    assert given == template(namespace="all")


def test_all_keys_of_a_queue_are_read() -> None:
    said = {"pod_template_file": "/t.yaml", "namespace": "n", "priority_class": "p", "labels": {"example.com/a": "b"}}
    assert parse_queues({"q": {**said, "max_pods": 3}}) == (
        {"q": QueueSettings("/t.yaml", "n", "p", {"example.com/a": "b"}, 3)},
        [],
    )


@pytest.mark.parametrize(
    ("queue", "message"),
    [
        ("gpu.yaml", "q: must be a JSON object with some of pod_template_file, namespace"),
        ({"template": "x"}, "q.template: is not known; a queue has pod_template_file, namespace"),
        ({"namespace": 3}, "q.namespace: must be text, not 3"),
        ({"namespace": "My_Space"}, "q.namespace: 'My_Space' is not a valid namespace"),
        ({"priority_class": "-high"}, "q.priority_class: '-high' is not a valid PriorityClass name"),
        ({"pod_template_file": ""}, "q.pod_template_file: must be text, not ''; omit it"),
        *(
            ({"max_pods": value}, f"q.max_pods: must be a whole number of at least 1, not {value!r}")
            for value in (0, "3", True)
        ),
        ({"infra_retries": -1}, "q.infra_retries: must be a whole number of at least 0, not -1; 0 means no new try"),
        ({"infra_retries": True}, "q.infra_retries: must be a whole number of at least 0, not True"),
        ({"node_loss_seconds": "30"}, "q.node_loss_seconds: must be a whole number of at least 0, not '30'"),
        ({"after_losses": [1]}, "q.after_losses: must be a JSON object, pods by number of losses"),
        ({"after_losses": {"0": {}}}, "q.after_losses: '0' is not a number of losses; use whole numbers of at least 1"),
        ({"after_losses": {"two": {}}}, "q.after_losses: 'two' is not a number of losses"),
        ({"after_losses": {"1": "spot"}}, "q.after_losses.1: must be a pod, not 'spot'"),
        ({"after_losses": {"1": {"spec": {"nodeSelektor": {}}}}}, "q.after_losses.1: spec.nodeSelektor"),
        ({"labels": ["a"]}, "q.labels: must be a JSON object of texts"),
        ({"labels": {"a b": "c"}}, "q.labels: 'a b' is not a valid label name"),
        ({"labels": {"a": "b c"}}, "q.labels.a: 'b c' is not a valid label value"),
        ({"labels": {"a": None}}, "q.labels.a: None is not a valid label value"),
    ],
)
def test_a_problem_names_queue_key_and_fix(queue: Any, message: str) -> None:
    queues, (problem,) = parse_queues({"q": queue})
    assert queues == {}
    assert problem.startswith(message)


JAVA = {"classpath": "a.b", "extra": {"pod_template_file": "/java.yaml", "worker_container_repository": "java"}}
TAGGED = {"classpath": "a.b", "extra": {**JAVA["extra"], "worker_container_tag": "17"}}  # type: ignore[dict-item]


def test_a_queue_gets_the_template_and_image_of_its_coordinator() -> None:
    joined = join_coordinators({}, {"jdk": TAGGED, "go": {"classpath": "c.d"}}, {"java": "jdk", "golang": "go"})
    assert joined == ({"java": QueueSettings("/java.yaml", image="java:17")}, [])


def test_a_queues_own_settings_win_over_its_coordinator() -> None:
    joined, _ = join_coordinators({"java": QueueSettings("/own.yaml", "n")}, {"jdk": JAVA}, {"java": "jdk"})
    assert joined == {"java": QueueSettings("/own.yaml", "n")}


@pytest.mark.parametrize("coordinators", [{}, {"jdk": "a.b"}, {"jdk": {"classpath": "a.b", "extra": []}}])
def test_a_route_to_an_unknown_coordinator_is_a_problem(coordinators: Any) -> None:
    _, (problem,) = join_coordinators({}, coordinators, {"java": "jdk"})
    assert problem == "queue_to_coordinator: java: coordinators has no 'jdk' with an object as its extra"


@pytest.mark.parametrize(("chosen", "image"), [(False, "java:17"), (True, "i")])
def test_base_gets_the_queues_image_unless_the_task_has_chosen_one(chosen: bool, image: str) -> None:
    given = template()
    given["spec"]["containers"] = [BASE, {"name": "side", "image": "s"}]
    pod = apply_queue(given, QueueSettings(image="java:17"), chosen=chosen)
    assert [one["image"] for one in pod["spec"]["containers"]] == [image, "s"]
