"""The reason why a task failed or waits: in the event log, in the executor event, and in the task's own log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client import models as k8s

from crosswind.executor import KubernetesExecutor
from crosswind.kube.resources import PODS, RESOURCE_QUOTAS
from crosswind.provider import config

pytestmark = pytest.mark.cluster

NOWHERE = {"no-such": "node"}
STARTED = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}
PULL = 'failed to resolve reference "registry.example/team/etl:42": not found'
LOST = "The cluster took the pod while the task ran: "
NEVER_BEGAN = "The cluster took the pod before the task began: "


def base(**state: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"name": "base", "image": "i", "imageID": "", "state": state, **_COUNTS}]}


_COUNTS = {"ready": False, "restartCount": 0}


def ended(code: int, reason: str = "Error") -> dict[str, Any]:
    return base(terminated={"exitCode": code, "reason": reason, **STARTED})


def waits(reason: str, message: str) -> dict[str, Any]:
    return {"phase": "Pending", **base(waiting={"reason": reason, "message": message})}


def took(reason: str) -> dict[str, Any]:
    return {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason}]}


FAILED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "memory": (
        {"phase": "Failed", **ended(137, "OOMKilled")},
        ["more memory than its limit of 64Mi (OOMKilled)", "raise resources.limits.memory"],
    ),
    "evicted": (
        {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory.", **ended(137)},
        [LOST, "The node was low on resource: memory", "set resources.requests"],
    ),
    "evicted early": (
        {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."},
        [NEVER_BEGAN, "The node was low on resource: ephemeral-storage"],
    ),
    "preempted": (
        {"phase": "Failed", **took("PreemptionByScheduler"), **ended(143)},
        [LOST, "a pod of higher priority displaced this one", "priorityClassName"],
    ),
    "node lost": ({"phase": "Failed", **took("DeletionByPodGC"), **ended(143)}, [LOST, "is gone (removed, or a spot"]),
    "tainted": ({"phase": "Failed", **took("DeletionByTaintManager"), **ended(143)}, [LOST, "became unready"]),
    "deadline": (
        {"phase": "Failed", "reason": "DeadlineExceeded", "message": "Pod was active longer", **ended(137)},
        ["activeDeadlineSeconds (3600)", "execution_timeout"],
    ),
    "image": (waits("ErrImagePull", PULL), ["cannot be pulled", "registry.example/team/etl:42", "check its name"]),
    "secret": (
        waits("CreateContainerConfigError", 'secret "warehouse" not found'),
        ['secret "warehouse" not found', "create the secret warehouse in namespace"],
    ),
    "init": (
        {
            "phase": "Failed",
            **base(waiting={"reason": "PodInitializing"}),
            "initContainerStatuses": [
                {
                    "name": "fetch",
                    "image": "i",
                    "imageID": "",
                    **_COUNTS,
                    "state": {"terminated": {"exitCode": 128, "reason": "Error", "message": "no such repo", **STARTED}},
                }
            ],
        },
        ["init container fetch failed with exit code 128", "no such repo", "kubectl logs"],
    ),
    "sidecar": (
        {
            "phase": "Pending",
            **base(waiting={"reason": "PodInitializing"}),
            "initContainerStatuses": [
                {
                    "name": "mesh",
                    "image": "i",
                    "imageID": "",
                    **_COUNTS,
                    "state": {"waiting": {"reason": "ErrImagePull", "message": PULL}},
                }
            ],
        },
        ["of container mesh cannot be pulled", "registry.example/team/etl:42"],
    ),
    "itself": ({"phase": "Failed", **ended(1)}, ["base ended with exit code 1"]),
}
"""Status of a pod, and its reason."""


class Impatient(KubernetesExecutor):
    """Runs its housekeeping all the time."""

    def _settings(self, executor_id: str) -> config.ExecutorSettings:
        found = super()._settings(executor_id)
        return replace(found, engine=replace(found.engine, wait_report_delay=0.0, housekeeping_interval=0.2))


def override(**spec: Any) -> dict[str, Any]:
    container = spec.pop("base", k8s.V1Container(name="base"))
    return {"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[container], **spec))}


@pytest.fixture
def impatient(running: Any) -> Iterator[Any]:
    running.set("kubernetes_executor", pod_launch_failure_retries="0")
    running.script("true")
    running.executor = Impatient(parallelism=32)
    running.executor.start()
    return running


def events(bench: Any, key: Any) -> list[tuple[str, str]]:
    """Return the rows of the task's event log."""
    return [(event, extra) for event, extra, task_id in bench.event_log() if task_id == key.task_id]


def log_of(bench: Any, key: Any) -> str:
    path = bench.folder / "logs" / f"dag_id=dag/task_id={key.task_id}/attempt=1.log"
    return "".join(json.loads(line)["event"] for line in path.read_text().splitlines()) if path.exists() else ""


def test_each_cause_is_reported_in_all_three_places(impatient: Any) -> None:
    limits = k8s.V1ResourceRequirements(limits={"memory": "64Mi"})
    config = override(
        node_selector=NOWHERE,
        active_deadline_seconds=3600,
        base=k8s.V1Container(name="base", resources=limits),
        init_containers=[
            k8s.V1Container(name="fetch", image=impatient.image),
            k8s.V1Container(name="mesh", image=impatient.image, restart_policy="Always"),
        ],
    )
    keys = {name: impatient.queue(name.replace(" ", "-"), config) for name in FAILED}
    pods = impatient.until(lambda: len(found := impatient.pods()) == len(keys) and found)

    async def play(client: Any) -> None:
        for pod in pods:
            status, _ = FAILED[pod["metadata"]["annotations"]["task_id"].replace("-", " ")]
            where = {"namespace": impatient.namespace, "subresource": "status"}
            await client.patch(PODS, pod["metadata"]["name"], {"status": status}, **where)

    impatient.ask(play)
    impatient.until(lambda: len(impatient.events) == len(keys))
    impatient.until(lambda: all(log_of(impatient, key) for key in keys.values()))
    for name, key in keys.items():
        ((state, info),) = set(impatient.events[key])  # reported again until the database agrees
        assert state == "failed"
        for part in FAILED[name][1]:
            assert part in info, name
        assert ("pod failed", info) in events(impatient, key), name
        assert info in log_of(impatient, key), name


def test_the_wait_reason_of_a_pod_is_reported_while_it_waits(impatient: Any) -> None:
    missing = k8s.V1Volume(name="creds", secret=k8s.V1SecretVolumeSource(secret_name="warehouse"))
    base = k8s.V1Container(name="base", volume_mounts=[k8s.V1VolumeMount(name="creds", mount_path="/creds")])
    reasons = {
        impatient.queue("nowhere", override(node_selector=NOWHERE)): "no node accepts the pod (0/1 nodes are available",
        impatient.queue(
            "volume", override(base=base, volumes=[missing])
        ): 'a volume cannot be mounted (MountVolume.SetUp failed for volume "creds" : secret "warehouse" not found)',
    }
    for key, sentence in reasons.items():
        extra = impatient.until(lambda key=key: events(impatient, key))[0]
        assert extra[0] == "pod waits", extra
        assert sentence in extra[1]
    assert impatient.events == {}
    assert all(key in impatient.executor.running for key in reasons)


def test_a_quota_is_reported_while_the_pod_waits_and_a_refusal_at_once(impatient: Any) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"}, "spec": {"hard": {"pods": "0"}}}
    refused = impatient.queue("refused", override(priority_class_name="no-such-class"))
    assert "the PriorityClass no-such-class does not exist; create it" in impatient.failure(refused)
    assert events(impatient, refused)[0][0] == "pod failed"
    impatient.ask(lambda client: client.create(RESOURCE_QUOTAS, quota, namespace=impatient.namespace))
    waiting = impatient.queue("waiting")
    ((event, sentence),) = impatient.until(lambda: events(impatient, waiting))
    assert event == "pod waits"
    assert "cannot be created yet: the ResourceQuota team of the namespace is used up" in sentence


def test_a_task_that_core_ends_as_stuck_gets_an_event_with_its_wait_reason(impatient: Any) -> None:
    key = impatient.queue("nowhere", override(node_selector=NOWHERE))
    impatient.until(lambda: events(impatient, key))
    impatient.executor.revoke_task(ti=SimpleNamespace(key=key))
    event, sentence = events(impatient, key)[-1]
    assert event == "pod waits"
    assert sentence.startswith("Until it was given up: no node accepts the pod (0/1 nodes are available")
    impatient.until(impatient.is_empty)
    assert impatient.pods() == []


@pytest.mark.parametrize("retries", [0, 2])
def test_a_pod_evicted_before_its_task_began_is_replaced_as_often_as_configured(running: Any, retries: int) -> None:
    running.set("kubernetes_executor", pod_launch_failure_retries=str(retries))
    running.start()
    key = running.queue(config=override(node_selector=NOWHERE))
    seen: dict[str, str] = {}
    while not running.events:
        for pod in running.pods():
            if pod["metadata"]["uid"] not in seen:
                seen[pod["metadata"]["uid"]] = pod["spec"]["volumes"][0]["secret"]["items"][0]["key"]
                status = {"status": {"phase": "Failed", "reason": "Evicted", "message": "The node was low."}}
                where = {"namespace": running.namespace, "subresource": "status"}
                running.ask(lambda client, pod=pod: client.patch(PODS, pod["metadata"]["name"], status, **where))  # noqa: B023
        running.beat()
    assert len(set(seen.values())) == len(seen) == retries + 1
    relaunched = [sentence for event, sentence in events(running, key) if event == "pod relaunched"]
    assert len(relaunched) == retries
    assert running.failure(key).startswith(NEVER_BEGAN)
