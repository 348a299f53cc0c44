from __future__ import annotations

from typing import Any

import pytest
from test_verdict import CASES, PULL, RUNNING, disrupted, ended, make_pod, waiting

from crosswind.pods.causes import exit_code_meaning, why, why_refused
from crosswind.pods.field_names import OPERATOR_FIELDS
from crosswind.pods.verdict import judge


def _limited(pod: dict, **fields: object) -> dict:
    pod["spec"]["containers"][0] |= fields
    return pod


def _ended_before(pod: dict, state: dict) -> dict:
    pod["status"]["initContainerStatuses"][0]["lastState"] = state
    return pod


SENTENCES: list[tuple[dict, str]] = [
    (
        _limited(make_pod("Failed", {"base": ended(137, "OOMKilled")}), resources={"limits": {"memory": "512Mi"}}),
        "base was killed because it used more memory than its limit of 512Mi (OOMKilled); raise "
        "resources.limits.memory of "
        "base in the task's pod_override or in the template, or make the task hold less in memory",
    ),
    (
        make_pod("Failed", {"base": ended(137, "OOMKilled")}),
        "base was killed because node-1 ran out of memory (OOMKilled), and it has no limit of its own; set",
    ),
    (
        make_pod("Failed", reason="Evicted", message="The node was low on resource: memory."),
        "node-1 evicted the pod (The node was low on resource: memory); set resources.requests",
    ),
    (
        make_pod("Failed", {"base": ended(143)}, conditions=disrupted("PreemptionByScheduler")),
        "a pod of higher priority displaced this one on node-1",
    ),
    (
        make_pod("Failed", conditions=disrupted("DeletionByPodGC")),
        "node-1 is gone (removed, or a spot machine reclaimed)",
    ),
    (
        make_pod("Running", {"base": RUNNING}, reason="NodeLost", deleting=True),
        "node-1 no longer answers; nothing to fix",
    ),
    (
        make_pod("Failed", reason="OutOfcpu", message="Node didn't have enough"),
        "node-1 did not admit the pod (OutOfcpu) (Node",
    ),
    (make_pod("Failed", {"base": ended(143)}, reason="Terminated"), "node-1 is shutting down"),
    (
        make_pod("Failed", {"base": ended(143, message='{"crosswind":1,"reason":"terminated"}')}),
        "base was terminated (SIGTERM) while its task ran, and the pod does not show the sender: a user deleted",
    ),
    (
        _limited(
            make_pod("Failed", {"base": ended(137, message='{"crosswind":1,"reason":"oom","peak":536870912}')}),
            resources={"limits": {"memory": "512Mi"}},
        ),
        "base was killed because it used more memory than its limit of 512Mi (OOMKilled); raise ",
    ),
    (
        make_pod("Failed", {"base": ended(3, message='{"crosswind":1,"peak":7}\nno rows today')}),
        "base ended with exit code 3 (no rows today)",
    ),
    (
        make_pod("Failed", {"base": ended(137)}, reason="DeadlineExceeded") | {"spec": {"activeDeadlineSeconds": 60}},
        "the pod lived longer than its activeDeadlineSeconds (60), waiting included; raise it",
    ),
    (
        _limited(make_pod("Pending", {"base": waiting("ErrImagePull", PULL)}), image="nope:1"),
        f"image 'nope:1' of container base cannot be pulled ({PULL}); check its name and tag",
    ),
    (
        _limited(make_pod("Pending", {"base": waiting("ErrImagePull", "401 Unauthorized")}), image="x"),
        "image 'x' of container base cannot be pulled (401 Unauthorized); name a Secret with the "
        "registry's credentials",
    ),
    (
        _limited(make_pod("Pending", {"base": waiting("ErrImagePull", "i/o timeout")}), image="x"),
        "image 'x' of container base cannot be pulled (i/o timeout); the registry is busy or "
        "unreachable; Kubernetes retries",
    ),
    (
        _limited(make_pod("Pending", {"base": waiting("InvalidImageName")}), image=":"),
        "image ':' of container base is not a valid image name; write REGISTRY/NAME:TAG",
    ),
    (
        make_pod("Pending", {"base": waiting("CreateContainerConfigError", 'secret "db" not found')}),
        'container base cannot be created (secret "db" not found); create the secret db in namespace airflow, or mark',
    ),
    (
        make_pod(
            "Pending", {"base": waiting("CreateContainerConfigError", "couldn't find key k in Secret airflow/db")}
        ),
        "add the key k to the secret airflow/db, or correct the reference",
    ),
    (
        make_pod(
            "Pending",
            {"base": waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root")},
        ),
        "set securityContext.runAsUser to a number other than 0",
    ),
    (
        make_pod("Pending", {"base": waiting("PodInitializing")}, {"sync": ended(128, "Error", "fatal: no such repo")}),
        "init container sync failed with exit code 128 (the container could not be started) (fatal: no "
        "such repo), so base was "
        "never started; read its log: kubectl logs p -c sync",
    ),
    (
        make_pod("Failed", {"base": ended(128, "StartError", 'exec: "python": not found in $PATH')}),
        'the command of container base could not be started (exec: "python": not found in $PATH); check command, args',
    ),
    (
        make_pod("Failed", {"base": ended(127)}),
        "base ended with exit code 127 (the command was not found in the image)",
    ),
    (make_pod("Failed", {"base": ended(1, message="no token")}), "base ended with exit code 1 (no token)"),
    (
        make_pod(
            "Pending",
            conditions=(
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {gpu: "
                    "true}.",
                },
            ),
        ),
        "untolerated taint {gpu: true}); lower resources.requests, or give the cluster more or larger "
        "nodes or add a toleration",
    ),
    (
        make_pod("Pending", conditions=({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"},)),
        "the pod is held back by a scheduling gate",
    ),
    (
        make_pod("Pending", {"base": waiting("CrashLoopBackOff", "back-off 10s")}),
        "container base waits: CrashLoopBackOff (back-off 10s)",
    ),
    (
        _ended_before(
            make_pod(
                "Pending",
                {"base": waiting("PodInitializing")},
                {"proxy": waiting("CrashLoopBackOff", "back-off 40s")},
                native=("proxy",),
            ),
            ended(7),
        ),
        "sidecar proxy fails again and again with exit code 7 (back-off 40s), so base is not started; read its log: "
        "kubectl logs p -c proxy --previous",
    ),
    (make_pod("Failed", {"base": ended(137, "ContainerStatusUnknown")}), "node-1 lost track of base's container"),
    (make_pod("Failed"), "pod p failed: Failed; Kubernetes reports nothing about base"),
]


@pytest.mark.parametrize(("pod", "sentence"), SENTENCES)
def test_a_failure_is_explained_in_one_sentence_with_its_fix(pod: dict, sentence: str) -> None:
    explanation = why(pod)
    assert sentence in explanation
    assert "\n" not in explanation


@pytest.mark.parametrize("name", CASES)
def test_every_pod_that_is_over_without_success_has_a_cause(name: str) -> None:
    pod = CASES[name][0]
    verdict = judge(pod)
    if verdict.over:
        assert bool(why(pod)) is not verdict.succeeded


def test_a_pod_that_runs_needs_no_explanation() -> None:
    assert why(make_pod("Running", {"base": RUNNING})) == ""


def test_events_explain_what_the_status_does_not() -> None:
    pod = make_pod("Pending", {"base": waiting("ContainerCreating")})
    events = [
        {"reason": "FailedMount", "message": "old", "lastTimestamp": "2026-01-01T00:00:00Z"},
        {"reason": "FailedMount", "message": 'secret "w" not found', "lastTimestamp": "2026-01-01T00:01:00Z"},
    ]
    assert why(pod, events).startswith('a volume cannot be mounted (secret "w" not found); create what it names')
    assert why(pod, [{"reason": "FailedCreatePodSandBox", "message": "no IP"}]).startswith(
        "the pod's network cannot be set up (no IP)"
    )


def test_the_explanation_of_a_deleted_pod_says_when_it_was_deleted() -> None:
    assert "was deleted while the task ran" in why(make_pod("Running", {"base": RUNNING}), deleted=True)
    assert "was deleted before base started" in why(make_pod("Pending"), deleted=True)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            'pods "p" is forbidden: exceeded quota: team, requested: pods=1, used: pods=5, limited: pods=5',
            "the ResourceQuota team of the namespace is used up",
        ),
        (
            'pods "p" is forbidden: failed quota: team: must specify limits.memory for: base',
            "ResourceQuota team requires every container to specify limits.memory for: base",
        ),
        (
            'pods "p" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi',
            "a LimitRange of the namespace refuses the pod",
        ),
        (
            'pods "p" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
            "Pod Security level restricted:latest refuses",
        ),
        (
            'admission webhook "policy.example" denied the request: no latest tag',
            "the admission webhook policy.example refuses the pod",
        ),
        (
            'Internal error occurred: failed calling webhook "inject.istio.io": timeout',
            "the admission webhook inject.istio.io does not answer",
        ),
        (
            "ValidatingAdmissionPolicy 'images' with binding 'b' denied request: x",
            "the admission policy images refuses the pod",
        ),
        (
            'error looking up service account a/w: serviceaccount "w" not found',
            "the service account w does not exist; create it",
        ),
        ("no PriorityClass with name high was found", "the PriorityClass high does not exist"),
        ("unable to create new content in namespace a because it is being terminated", "namespace a is being deleted"),
        ('namespaces "a" not found', "namespace a does not exist; create it"),
        ("something {new}", "the API server refused the pod: something {new}"),
    ],
)
def test_a_refusal_of_the_api_server_is_explained(message: str, sentence: str) -> None:
    assert sentence in why_refused(message)


@pytest.mark.parametrize(
    ("code", "meaning"), [(1, ""), (137, "killed (SIGKILL)"), (154, "ended by signal 26"), (255, "")]
)
def test_an_exit_code_with_a_meaning_is_explained(code: int, meaning: str) -> None:
    assert exit_code_meaning(code).startswith(meaning)


MEMORY = {"name": "base", "resources": {"limits": {"memory": "1Gi"}}}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            "pods is forbidden: maximum memory usage per Container is 32Mi, but limit is 64Mi",
            "memory in container_resources",
        ),
        ("failed quota: q: must specify limits.memory for: base", "set it in container_resources"),
        ('serviceaccount "none" not found', "or correct service_account_name"),
        ("no PriorityClass with name top was found", "or correct priority_class_name"),
    ],
)
def test_a_refusal_names_the_operator_s_keywords(message: str, expected: str) -> None:
    sentence = why_refused(message, OPERATOR_FIELDS)
    assert expected in sentence
    assert "template" not in sentence


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, "raise limits.memory in container_resources"),
        ({"waiting": {"reason": "ErrImagePull", "message": "denied"}}, "in image_pull_secrets"),
        (
            {"waiting": {"reason": "CreateContainerConfigError", "message": "image runs as root, runAsNonRoot"}},
            "container_security",
        ),
        ({"terminated": {"exitCode": 128, "reason": "StartError", "message": "no such file"}}, "has the program"),
    ],
)
def test_a_failure_names_the_operator_s_keywords(state: dict[str, Any], expected: str) -> None:
    status = {"phase": "Pending", "containerStatuses": [{"name": "base", "state": state}]}
    pod = {"metadata": {"name": "pod"}, "spec": {"restartPolicy": "Never", "containers": [MEMORY]}, "status": status}
    sentence = why(pod, fields=OPERATOR_FIELDS)
    assert expected in sentence
    assert not {"pod_override", "template", "Airflow"} & set(sentence.replace(",", " ").split())
