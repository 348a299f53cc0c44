"""Queues: a task's ``queue`` decides on template, namespace and priority class of its pod."""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes.client import models as k8s

from crosswind.kube.resources import NAMESPACES, PODS, Resource
from crosswind.testing import Cluster

CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False)


def queue_of(bench: Any, **queues: Any) -> None:
    bench.set("crosswind", queues=json.dumps(queues))


@pytest.fixture
def elsewhere(running: Any) -> Iterator[str]:
    """Another namespace, and a PriorityClass of the same name."""
    name = f"gpu-{uuid.uuid4().hex[:8]}"
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 7}
    running.ask(lambda client: client.create(NAMESPACES, {"metadata": {"name": name}}))
    running.ask(lambda client: client.create(CLASSES, priority))
    yield name
    running.end()
    running.ask(lambda client: client.delete(NAMESPACES, name))
    running.ask(lambda client: client.delete(CLASSES, name))


def pods_in(running: Any, namespace: str) -> list[Any]:
    found: list[Any] = running.ask(lambda client: client.list(PODS, namespace=namespace)).items
    return found


@pytest.mark.cluster
def test_pods_of_a_queue_are_created_and_watched_in_its_namespace(running: Any, elsewhere: str) -> None:
    said = {"namespace": elsewhere, "priority_class": elsewhere, "labels": {"team": "ml"}}
    queue_of(running, gpu=said)
    running.script("sleep 2")
    running.start()
    key = running.queue(queue="gpu")
    (pod,) = running.until(lambda: pods_in(running, elsewhere))
    assert pod["spec"]["priorityClassName"] == elsewhere
    assert pod["spec"]["priority"] == 7
    assert pod["metadata"]["labels"]["team"] == "ml"
    running.state(key, "success")
    running.until(lambda: not running.executor.running)
    running.until(running.is_empty)
    assert pods_in(running, elsewhere) == running.pods() == []


@pytest.mark.cluster
def test_a_queues_template_is_used_and_a_task_overrides_its_queue(running: Any, elsewhere: str) -> None:
    running.script("sleep 60")
    own = running.folder / "queue.yaml"
    own.write_text((running.folder / "template.yaml").read_text().replace("sleep 60", "sleep 61"))
    queue_of(running, gpu={"pod_template_file": str(own), "namespace": elsewhere})
    running.start()
    here = k8s.V1Pod(metadata=k8s.V1ObjectMeta(namespace=running.namespace))
    running.queue("there", queue="gpu")
    running.queue("here", {"pod_override": here}, queue="gpu")
    running.queue("other")
    there = running.until(lambda: pods_in(running, elsewhere))
    both = running.until(lambda: len(running.pods()) == 2 and running.pods())
    commands = {
        pod["metadata"]["labels"]["task_id"]: pod["spec"]["containers"][0]["command"][-1] for pod in (*there, *both)
    }
    assert commands == {"there": "sleep 61", "here": "sleep 61", "other": "sleep 60"}


def test_an_unknown_key_is_refused_at_start_with_the_fix(bench: Any) -> None:
    queue_of(bench, gpu={"priorityClass": "high"})
    bench.start()
    message = "[crosswind] queues: gpu.priorityClass: is not known; a queue has pod_template_file"
    assert message in bench.failure(bench.queue())


@pytest.mark.cluster
def test_a_missing_template_is_logged_at_start_and_fails_its_queue_alone(
    running: Any, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    queue_of(running, gpu={"pod_template_file": "/missing/gpu.yaml"})
    running.start()
    running.until(lambda: "Tasks of queue gpu will fail: Pod template /missing/gpu.yaml cannot be read" in caplog.text)
    good = running.queue("good")
    assert "/missing/gpu.yaml" in running.failure(running.queue("bad", queue="gpu"))
    running.state(good, "success")
    running.until(lambda: not running.executor.running)
