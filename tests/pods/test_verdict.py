from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from any_json import any_pod, items
from crosswind.pods.causes import why, why_refused
from crosswind.pods.verdict import FATAL_REASONS, BaseState, Verdict, is_transient_pull, judge

RUNNING = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}


def ended(code: int, reason: str = "", message: str = "") -> dict:
    return {
        "terminated": {"exitCode": code, "reason": reason or ("Error" if code else "Completed"), "message": message}
    }


def waiting(reason: str, message: str = "") -> dict:
    return {"waiting": {"reason": reason, "message": message}}


def make_pod(
    phase: str = "",
    states: dict[str, dict] | None = None,
    init: dict[str, dict] | None = None,
    *,
    native: tuple[str, ...] = (),
    policy: str = "Never",
    deleting: bool = False,
    conditions: tuple[dict, ...] = (),
    **status: object,
) -> dict:
    """A pod with a state for each container; base is in the spec whether or not it has one."""
    states, init = states or {}, init or {}
    specs = [{"name": name} | ({"restartPolicy": "Always"} if name in native else {}) for name in init]
    return {
        "metadata": {"name": "p", "namespace": "airflow"}
        | ({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleting else {}),
        "spec": {
            "initContainers": specs,
            "containers": [{"name": name} for name in {"base": {}, **states}],
            "restartPolicy": policy,
            "nodeName": "node-1",
        },
        "status": {
            "phase": phase,
            "containerStatuses": [{"name": name, "state": state} for name, state in states.items()],
            "initContainerStatuses": [{"name": name, "state": state} for name, state in init.items()],
            "conditions": list(conditions),
            **status,
        },
    }


def disrupted(reason: str) -> tuple[dict, ...]:
    return ({"type": "DisruptionTarget", "status": "True", "reason": reason},)


UNSCHEDULABLE = (
    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"},
)
PULL = 'failed to resolve reference "docker.io/library/nope:1": not found'

HELD = '{"crosswind":1,"reason":"terminated","peak":1000}'

CASES: dict[str, tuple[dict, tuple]] = {
    # name: (pod, (state, exit code, reason, infrastructure, started))
    "nothing yet": (make_pod("Pending"), (BaseState.WAITING, None, "", False, False)),
    "empty": ({}, (BaseState.WAITING, None, "", False, False)),
    "unschedulable": (
        make_pod("Pending", conditions=UNSCHEDULABLE),
        (BaseState.WAITING, None, "Unschedulable", False, False),
    ),
    "creating": (
        make_pod("Pending", {"base": waiting("ContainerCreating")}),
        (BaseState.WAITING, None, "ContainerCreating", False, False),
    ),
    "initialising": (
        make_pod("Pending", {"base": waiting("PodInitializing")}, {"sync": waiting("CrashLoopBackOff")}),
        (BaseState.WAITING, None, "CrashLoopBackOff", False, False),
    ),
    "running": (make_pod("Running", {"base": RUNNING}), (BaseState.RUNNING, None, "", False, True)),
    "running, status missing": (make_pod("Running"), (BaseState.RUNNING, None, "", False, False)),
    "running behind a proxy": (
        make_pod("Running", {"proxy": RUNNING, "base": RUNNING}),
        (BaseState.RUNNING, None, "", False, True),
    ),
    "running while being drained": (
        make_pod("Running", {"base": RUNNING}, conditions=disrupted("EvictionByEvictionAPI"), deleting=True),
        (BaseState.RUNNING, None, "EvictionByEvictionAPI", True, True),
    ),
    "succeeded": (make_pod("Succeeded", {"base": ended(0)}), (BaseState.TERMINATED, 0, "Completed", False, True)),
    "succeeded, sidecar runs on": (
        make_pod("Running", {"proxy": RUNNING, "base": ended(0)}),
        (BaseState.TERMINATED, 0, "Completed", False, True),
    ),
    "succeeded, sidecar ended with 143": (
        make_pod("Failed", {"base": ended(0), "proxy": ended(143)}),
        (BaseState.TERMINATED, 0, "Completed", False, True),
    ),
    "succeeded, then past its deadline for a sidecar": (
        make_pod("Failed", {"base": ended(0), "proxy": ended(137)}, reason="DeadlineExceeded"),
        (BaseState.TERMINATED, 0, "Completed", False, True),
    ),
    "succeeded, then drained": (
        make_pod("Failed", {"base": ended(0)}, conditions=disrupted("EvictionByEvictionAPI")),
        (BaseState.TERMINATED, 0, "Completed", False, True),
    ),
    "succeeded, statuses missing": (make_pod("Succeeded"), (BaseState.TERMINATED, 0, "", False, False)),
    "failed": (make_pod("Failed", {"base": ended(3)}), (BaseState.TERMINATED, 3, "Error", False, True)),
    "failed, sidecar succeeded": (
        make_pod("Failed", {"proxy": ended(0), "base": ended(1)}),
        (BaseState.TERMINATED, 1, "Error", False, True),
    ),
    "out of memory": (
        make_pod("Failed", {"base": ended(137, "OOMKilled")}),
        (BaseState.TERMINATED, 137, "OOMKilled", False, True),
    ),
    "out of memory on a drained node": (
        make_pod("Failed", {"base": ended(137, "OOMKilled")}, conditions=disrupted("EvictionByEvictionAPI")),
        (BaseState.TERMINATED, 137, "OOMKilled", False, True),
    ),
    "killed by a drain, says the worker": (
        make_pod("Failed", {"base": ended(143, message=HELD)}, conditions=disrupted("EvictionByEvictionAPI")),
        (BaseState.TERMINATED, 143, "EvictionByEvictionAPI", True, True),
    ),
    "terminated, says the worker": (
        make_pod("Failed", {"base": ended(143, message=HELD)}),
        (BaseState.TERMINATED, 143, "TerminatedBySignal", False, True),
    ),
    "terminated, and killed after the grace period": (
        make_pod("Failed", {"base": ended(137, message=HELD)}),
        (BaseState.TERMINATED, 137, "TerminatedBySignal", False, True),
    ),
    "terminated, on a node that shuts down": (
        make_pod("Failed", {"base": ended(143, message=HELD)}, reason="Terminated"),
        (BaseState.TERMINATED, 143, "Terminated", True, True),
    ),
    "terminated, then out of memory": (
        make_pod("Failed", {"base": ended(137, "OOMKilled", HELD)}),
        (BaseState.TERMINATED, 137, "OOMKilled", False, True),
    ),
    "the task's process alone out of memory": (
        make_pod("Failed", {"base": ended(137, message='{"crosswind":1,"reason":"oom"}')}),
        (BaseState.TERMINATED, 137, "OOMKilled", False, True),
    ),
    "the task's process alone out of memory, on a drained node": (
        make_pod(
            "Failed",
            {"base": ended(137, message='{"crosswind":1,"reason":"oom"}')},
            conditions=disrupted("EvictionByEvictionAPI"),
        ),
        (BaseState.TERMINATED, 137, "OOMKilled", False, True),
    ),
    "succeeded after the signal": (
        make_pod("Succeeded", {"base": ended(0, message='{"crosswind":1}')}),
        (BaseState.TERMINATED, 0, "Completed", False, True),
    ),
    "killed by a drain": (
        make_pod("Failed", {"base": ended(143)}, conditions=disrupted("EvictionByEvictionAPI")),
        (BaseState.TERMINATED, 143, "EvictionByEvictionAPI", True, True),
    ),
    "preempted": (
        make_pod("Failed", {"base": ended(143)}, conditions=disrupted("PreemptionByScheduler")),
        (BaseState.TERMINATED, 143, "PreemptionByScheduler", True, True),
    ),
    "evicted before it started": (
        make_pod("Failed", reason="Evicted", message="low on memory"),
        (BaseState.TERMINATED, None, "Evicted", True, False),
    ),
    "evicted while it ran": (
        make_pod("Failed", {"base": ended(137)}, reason="Evicted"),
        (BaseState.TERMINATED, 137, "Evicted", True, True),
    ),
    "evicted for its own disk use": (
        make_pod("Failed", reason="Evicted", message='Usage of EmptyDir volume "x" exceeds the limit "1Gi".'),
        (BaseState.TERMINATED, None, "Evicted", False, False),
    ),
    "deadline": (
        make_pod("Failed", {"base": ended(137)}, reason="DeadlineExceeded"),
        (BaseState.TERMINATED, 137, "DeadlineExceeded", False, True),
    ),
    "deadline before it started": (
        make_pod("Failed", reason="DeadlineExceeded"),
        (BaseState.TERMINATED, None, "DeadlineExceeded", False, False),
    ),
    "node removed, base's state is stale": (
        make_pod("Failed", {"base": RUNNING}, conditions=disrupted("DeletionByPodGC")),
        (BaseState.TERMINATED, None, "DeletionByPodGC", True, True),
    ),
    "end not seen by containerd": (
        make_pod("Failed", {"base": ended(255, "Unknown")}),
        (BaseState.TERMINATED, None, "ContainerStatusUnknown", False, True),
    ),
    "exit code 255 of its own": (
        make_pod("Failed", {"base": ended(255, "Error")}),
        (BaseState.TERMINATED, 255, "Error", False, True),
    ),
    "end not seen": (
        make_pod("Failed", {"base": ended(137, "ContainerStatusUnknown")}),
        (BaseState.TERMINATED, None, "ContainerStatusUnknown", False, True),
    ),
    "node lost and pod marked": (
        make_pod("Running", {"base": RUNNING}, reason="NodeLost", deleting=True),
        (BaseState.GONE, None, "NodeLost", True, True),
    ),
    "node does not answer": (
        make_pod("Running", {"base": RUNNING}, reason="NodeLost"),
        (BaseState.RUNNING, None, "NodeLost", True, True),
    ),
    "not admitted": (make_pod("Failed", reason="OutOfcpu"), (BaseState.TERMINATED, None, "OutOfcpu", True, False)),
    "virtual node": (
        make_pod("Pending", reason="ProviderFailed"),
        (BaseState.TERMINATED, None, "ProviderFailed", True, False),
    ),
    "start error": (
        make_pod("Failed", {"base": ended(128, "StartError")}),
        (BaseState.TERMINATED, 128, "StartError", False, False),
    ),
    "init failed": (
        make_pod("Failed", {"base": waiting("PodInitializing")}, {"sync": ended(1)}),
        (BaseState.TERMINATED, None, "Error", False, False),
    ),
    "init failed, phase not yet": (
        make_pod("Pending", {"base": waiting("PodInitializing")}, {"sync": ended(1)}),
        (BaseState.TERMINATED, None, "Error", False, False),
    ),
    "init failed and is repeated": (
        make_pod("Pending", {"base": waiting("PodInitializing")}, {"sync": ended(1)}, policy="OnFailure"),
        (BaseState.WAITING, None, "PodInitializing", False, False),
    ),
    "native sidecar ended": (
        make_pod("Running", {"base": RUNNING}, {"proxy": ended(137)}, native=("proxy",)),
        (BaseState.RUNNING, None, "", False, True),
    ),
    "image missing": (
        make_pod("Pending", {"base": waiting("ErrImagePull", PULL)}),
        (BaseState.TERMINATED, None, "ErrImagePull", False, False),
    ),
    "image of an init container missing": (
        make_pod("Pending", {"base": waiting("PodInitializing")}, {"sync": waiting("ErrImagePull", PULL)}),
        (BaseState.TERMINATED, None, "ErrImagePull", False, False),
    ),
    "image of a sidecar missing": (
        make_pod("Running", {"base": RUNNING, "proxy": waiting("ErrImagePull", PULL)}),
        (BaseState.RUNNING, None, "", False, True),
    ),
    "image of a sidecar missing while base is created": (
        make_pod("Pending", {"base": waiting("ContainerCreating"), "proxy": waiting("ErrImagePull", PULL)}),
        (BaseState.WAITING, None, "ContainerCreating", False, False),
    ),
    "image missing behind a running sidecar": (
        make_pod("Running", {"base": waiting("ErrImagePull", PULL), "proxy": RUNNING}),
        (BaseState.TERMINATED, None, "ErrImagePull", False, False),
    ),
    "registry busy": (
        make_pod("Pending", {"base": waiting("ErrImagePull", "pull QPS exceeded")}),
        (BaseState.WAITING, None, "ErrImagePull", False, False),
    ),
    "registry out of reach": (
        make_pod("Pending", {"base": waiting("ErrImagePull", "dial tcp 10.0.0.1:443: i/o timeout")}),
        (BaseState.WAITING, None, "ErrImagePull", False, False),
    ),
    "back-off of an unknown cause": (
        make_pod("Pending", {"base": waiting("ImagePullBackOff", 'Back-off pulling image "x"')}),
        (BaseState.WAITING, None, "ImagePullBackOff", False, False),
    ),
    "back-off of a missing image": (
        make_pod("Pending", {"base": waiting("ImagePullBackOff", f'Back-off pulling image "x": ErrImagePull: {PULL}')}),
        (BaseState.TERMINATED, None, "ImagePullBackOff", False, False),
    ),
    "back-off of a busy registry": (
        make_pod("Pending", {"base": waiting("ImagePullBackOff", "Back-off: ErrImagePull: 429 Too Many Requests")}),
        (BaseState.WAITING, None, "ImagePullBackOff", False, False),
    ),
    "secret missing": (
        make_pod("Pending", {"base": waiting("CreateContainerConfigError", 'secret "x" not found')}),
        (BaseState.TERMINATED, None, "CreateContainerConfigError", False, False),
    ),
    "phase unknown": (make_pod("Unknown", {"base": RUNNING}), (BaseState.RUNNING, None, "", False, True)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_follows_from_base(name: str) -> None:
    pod, expected = CASES[name]
    verdict = judge(pod)
    assert (verdict.state, verdict.exit_code, verdict.reason, verdict.infrastructure, verdict.started) == expected


@pytest.mark.parametrize("name", CASES)
def test_the_order_of_containers_does_not_matter(name: str) -> None:
    pod = CASES[name][0]
    if "status" in pod:
        turned = pod | {"status": pod["status"] | {"containerStatuses": pod["status"]["containerStatuses"][::-1]}}
        assert judge(turned) == judge(pod)


def test_sidecars_that_hold_the_pod_are_named_native_ones_are_not() -> None:
    pod = make_pod(
        "Running", {"base": ended(0), "a": RUNNING, "b": ended(0), "c": RUNNING}, {"n": RUNNING}, native=("n",)
    )
    assert judge(pod).sidecars_running == ("a", "c")


def test_base_may_have_another_name() -> None:
    pod = make_pod("Running", {"base": RUNNING, "main": ended(4)})
    assert judge(pod, "main").exit_code == 4
    assert judge(pod, "main").sidecars_running == ("base",)


def test_an_init_container_called_base_is_not_the_base() -> None:
    pod = make_pod("Running", {"main": RUNNING}, {"base": ended(0)})
    assert judge(pod, "main").state is BaseState.RUNNING


@pytest.mark.parametrize(
    ("pod", "reason", "infrastructure"),
    [
        (make_pod("Running", {"base": RUNNING}, deleting=True), "Deleted", False),
        (
            make_pod("Running", {"base": RUNNING}, conditions=disrupted("DeletionByTaintManager")),
            "DeletionByTaintManager",
            True,
        ),
        (make_pod("Pending", conditions=UNSCHEDULABLE), "Unschedulable", False),
        ({}, "Deleted", False),
    ],
)
def test_a_pod_that_is_deleted_before_base_ended_is_gone(pod: dict, reason: str, infrastructure: bool) -> None:
    verdict = judge(pod, deleted=True)
    assert (verdict.state, verdict.reason, verdict.infrastructure) == (BaseState.GONE, reason, infrastructure)


def test_an_end_that_was_seen_outlives_the_pod() -> None:
    assert judge(make_pod("Running", {"base": ended(0), "proxy": RUNNING}, deleting=True), deleted=True).succeeded


@pytest.mark.parametrize(("fatal", "stage"), [(FATAL_REASONS, BaseState.TERMINATED), (frozenset(), BaseState.WAITING)])
def test_which_reasons_are_fatal_is_configured(fatal: frozenset[str], stage: BaseState) -> None:
    pod = make_pod("Pending", {"base": waiting("InvalidImageName")})
    assert judge(pod, fatal=fatal).state is stage
    backoff = make_pod("Pending", {"base": waiting("ImagePullBackOff")})
    assert judge(backoff, fatal={"ImagePullBackOff"}).state is BaseState.TERMINATED


@pytest.mark.parametrize(
    ("policy", "code", "first", "left_to_the_kubelet"),
    [
        ("Never", 1, BaseState.TERMINATED, BaseState.TERMINATED),
        ("OnFailure", 1, BaseState.TERMINATED, BaseState.WAITING),
        ("OnFailure", 0, BaseState.TERMINATED, BaseState.TERMINATED),
        ("Always", 0, BaseState.TERMINATED, BaseState.WAITING),
    ],
)
def test_bases_first_end_counts_unless_restarts_are_left_to_the_kubelet(
    policy: str, code: int, first: BaseState, left_to_the_kubelet: BaseState
) -> None:
    pod = make_pod("Running", {"base": ended(code)}, policy=policy)
    assert judge(pod).state is first
    assert judge(pod, restarts=True).state is left_to_the_kubelet


def test_a_restarted_base_has_ended_once() -> None:
    pod = make_pod("Running", {"base": RUNNING}, policy="OnFailure")
    pod["status"]["containerStatuses"][0] |= {"lastState": ended(137, "OOMKilled"), "restartCount": 1}
    assert (judge(pod).state, judge(pod).reason) == (BaseState.TERMINATED, "OOMKilled")
    assert judge(pod, restarts=True).state is BaseState.RUNNING


@given(any_pod, st.booleans(), st.booleans(), items, st.text(max_size=30))
def test_any_json_gets_a_verdict_and_a_cause(
    pod: object, deleted: bool, restarts: bool, events: list, text: str
) -> None:
    verdict = judge(pod, deleted=deleted, restarts=restarts)
    assert isinstance(verdict, Verdict)
    assert verdict.over or not deleted
    assert isinstance(why(pod, events, deleted=deleted), str)
    assert why_refused(text)


REGISTRY = 'failed to pull and unpack image "reg.example/app:1": failed to resolve reference: failed to do request: '


@pytest.mark.parametrize(
    "message",
    [
        REGISTRY + 'Head "https://reg.example/v2/app": dial tcp: lookup reg.example on 10.96.0.10:53: no such host',
        REGISTRY + "dial tcp: lookup reg.example on 10.96.0.10:53: server misbehaving",
        REGISTRY + "dial tcp: lookup reg.example: Temporary failure in name resolution",
        REGISTRY + "dial tcp 10.0.0.1:443: connect: no route to host",
        REGISTRY + "dial tcp 10.0.0.1:443: connect: network is unreachable",
        REGISTRY + "dial tcp 10.0.0.1:443: connect: host is down",
        REGISTRY + "dial tcp 10.0.0.1:443: connect: connection timed out",
        REGISTRY + "dial tcp 10.0.0.1:443: i/o timeout",
        REGISTRY + "net/http: TLS handshake timeout",
        REGISTRY + 'Get "https://reg.example/v2/": EOF',
        REGISTRY + "write tcp 10.0.0.1:443: write: broken pipe",
        REGISTRY + "http2: client connection lost",
        "unexpected status from HEAD request to https://reg.example/v2/app/manifests/1: 503 Service Unavailable",
        "reading manifest 1 in reg.example/app: received unexpected HTTP status: 502 Bad Gateway",
        "pulling image: unexpected status code 429",
    ],
)
def test_a_pull_that_failed_for_the_network_is_retried(message: str) -> None:
    pod = make_pod("Pending", {"base": waiting("ErrImagePull", message)})
    assert is_transient_pull(message)
    assert judge(pod).state is BaseState.WAITING


@pytest.mark.parametrize(
    "message",
    [
        'failed to resolve reference "reg.example/app:429": reg.example/app:429: not found',
        'failed to resolve reference "reg.example/app:503": pull access denied',
        "manifest unknown: sha256:1429503aa",
        "no matching manifest for linux/arm64 in the manifest list",
    ],
)
def test_a_pull_that_failed_for_the_image_is_fatal(message: str) -> None:
    assert not is_transient_pull(message)
    assert judge(make_pod("Pending", {"base": waiting("ErrImagePull", message)})).over


def test_the_workers_report_is_no_part_of_what_the_task_wrote() -> None:
    verdict = judge(make_pod("Failed", {"base": ended(1, message='{"crosswind":1,"peak":7}\nof the task')}))
    assert verdict.message == "of the task"
    assert verdict.report is not None
    assert verdict.report.peak_memory == 7
    assert judge(make_pod("Failed", {"base": ended(1, message="of the task")})).report is None
