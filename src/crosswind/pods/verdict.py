"""Judges what a pod's status means for its task: the state of the base container, found by name, decides.

Every JSON gets a verdict, none an exception. The phase counts only where base's own state is missing: the kubelet
computes it from all regular containers, so a sidecar can keep it at Running for ever or turn it to Failed
(``kubelet_pods.go``, ``getPhase``).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple

from crosswind.pods.fields import as_pod, conditions_of, metadata_of, spec_of, status_of, text
from crosswind.pods.states import (
    ContainerKind,
    ContainerReport,
    RuntimeState,
    base_report,
    container_reports,
    running_containers,
)
from crosswind.pods.worker_report import OUT_OF_MEMORY, TERMINATED, WorkerReport, split_message
from crosswind.types import AnyPod, Pod, PodCondition

__all__ = [
    "DISRUPTION_CONDITIONS",
    "FATAL_REASONS",
    "INFRASTRUCTURE_REASONS",
    "TERMINATED_BY_SIGNAL",
    "BaseState",
    "Verdict",
    "is_transient_pull",
    "judge",
    "node_is_unready",
]

FATAL_REASONS = frozenset(
    {"CreateContainerConfigError", "ErrImagePull", "CreateContainerError", "ImageInspectError", "InvalidImageName"}
)
"""Default of ``[kubernetes_executor] worker_pod_pending_fatal_container_state_reasons``."""

INFRASTRUCTURE_REASONS = frozenset(
    {
        # of a pod, set by the kubelet or the node controller
        "Evicted",
        "NodeLost",
        "NodeShutdown",
        "Shutdown",
        "Terminated",
        "Preempting",
        "Preempted",
        "ProviderFailed",
        # of a pod that the kubelet did not admit to its node
        "UnexpectedAdmissionError",
        "NodeAffinity",
        "OutOfcpu",
        "OutOfmemory",
        "OutOfpods",
        "OutOfephemeral-storage",
        # of the condition DisruptionTarget
        "PreemptionByScheduler",
        "DeletionByTaintManager",
        "EvictionByEvictionAPI",
        "DeletionByPodGC",
        "TerminationByKubelet",
        # Kueue's condition, whose own reason is one of its controllers'
        "TerminationTarget",
    }
)
"""Reasons of a pod, or of its DisruptionTarget condition, that the task did not cause."""

DISRUPTION_CONDITIONS = ("DisruptionTarget", "TerminationTarget")
"""Conditions that announce that the cluster ends a pod: Kubernetes' own, and Kueue's, set before it deletes."""

TERMINATED_BY_SIGNAL = "TerminatedBySignal"
"""Reason of a worker that got a SIGTERM while its task ran, if neither pod nor node says why."""

# Messages of the kubelet's eviction manager for a pod that used more disk than its own limit: the task is to blame.
_UNSEEN_END = "ContainerStatusUnknown"

_OWN_FAULT = ("exceeds the limit", "exceeds the total limit", "exceeded its local ephemeral storage limit")

_TRANSIENT_PULLS = re.compile(
    r"pull qps exceeded|toomanyrequests|too many requests|timeout|timed out|deadline exceeded"
    # the network and DNS: while a node's resolver is down it answers "no such host" or "server misbehaving"
    r"|no such host|server misbehaving|temporary failure|temporarily unavailable|try again"
    r"|no route to host|(network|host) is (unreachable|down)|connection (refused|reset|closed|lost|aborted)"
    r"|broken pipe|unexpected eof|: eof\b|closed network connection|remote error: tls: internal error"
    # the registry, or a proxy in front of it; a number alone may be an image's tag
    r"|\b50[0234] (internal server error|bad gateway|service unavailable|gateway time)|no healthy upstream"
    r"|(status|code)\W{0,3}(429|50[0234])\b|\b429\b(?= *$|\W* too)",
    re.IGNORECASE,
)
"""Errors of an image pull that pass by themselves, as containerd, CRI-O, Go's net package and registries word them."""


class BaseState(enum.Enum):
    """The state of the base container."""

    WAITING = "waiting"
    """Not started, and it may still start."""
    RUNNING = "running"
    TERMINATED = "terminated"
    """It terminated, or it can never run: the task's part of the pod is over, whatever the sidecars do."""
    GONE = "gone"
    """The pod or its node is gone, and nobody saw base end."""


class Verdict(NamedTuple):
    """The state of a pod's task. ``reason`` is one word of Kubernetes' own, ``message`` its text; both may be ""."""

    state: BaseState
    exit_code: int | None = None
    """Exit code of base; None before base has ended, and when it never ran or its end was not observed."""
    reason: str = ""
    message: str = ""
    container: str = ""
    """The container that ``reason`` is about, "" for the pod itself."""
    sidecars_running: tuple[str, ...] = ()
    """Ordinary containers beside base that run and so hold the pod; the kubelet ends native sidecars by itself."""
    infrastructure: bool = False
    """The cluster ended the pod (eviction, preemption, loss or shutdown of the node). Never an out-of-memory kill."""
    started: bool = False
    """Base runs or has run, as far as is known; also when the kubelet lost track of its container."""
    deleting: bool = False
    """The pod's deletion was requested."""
    report: WorkerReport | None = None
    """The report that the worker shim in base wrote at its end."""

    @property
    def over(self) -> bool:
        """Whether base has ended, or will never run."""
        return self.state in (BaseState.TERMINATED, BaseState.GONE)

    @property
    def succeeded(self) -> bool:
        """Whether base ended with exit code 0."""
        return self.state is BaseState.TERMINATED and self.exit_code == 0


def judge(
    pod: AnyPod,
    base: str = "base",
    *,
    fatal: Collection[str] = FATAL_REASONS,
    deleted: bool = False,
    restarts: bool = False,
) -> Verdict:
    """Return the verdict on a pod.

    ``fatal``: reasons of waiting containers (base and init containers) that fail the task at once. A failed image pull
    whose cause passes by itself, such as a registry that is busy or out of reach, is not fatal: the kubelet retries.
    ``deleted``: the object is gone (the watch reported DELETED) and ``pod`` is its last state.
    ``restarts``: base's end does not count where the pod's ``restartPolicy`` restarts it. By default the first end
    counts, because a worker's second start cannot run the same task again.
    """
    pod = as_pod(pod)
    report = base_report(pod, base)
    verdict = _by_base(pod, report, restarts) or _by_phase(pod, report, base) or _while_pending(pod, base, fatal)
    return _if_gone(verdict, pod, deleted)._replace(
        sidecars_running=running_containers(pod, base),
        started=_has_started(report),
        deleting=bool(metadata_of(pod).get("deletionTimestamp")),
    )


def is_transient_pull(message: str) -> bool:
    """Return whether an image pull failed for a cause that passes by itself."""
    return _TRANSIENT_PULLS.search(message) is not None


def _by_base(pod: Pod, report: ContainerReport, restarts: bool) -> Verdict | None:
    """Judge by base's own state, if that is enough."""
    ended = report if report.state is RuntimeState.TERMINATED else None if restarts else report.last
    if ended is None or (restarts and _will_restart(pod, ended)):
        return _running(pod, report)
    unseen = _is_unseen_end(ended)
    code = None if unseen else ended.exit_code
    worker, written = split_message(ended.message)
    reason = _UNSEEN_END if unseen else _reason_of_end(ended, worker) if code != 0 else ended.reason
    blame_pod = code != 0 and reason != "OOMKilled"
    disrupted = _disruption(pod) if blame_pod else ""
    return Verdict(
        BaseState.TERMINATED,
        code,
        disrupted or (_status_text(pod, "reason") if blame_pod else "") or reason,
        written or (_status_text(pod, "message") if code != 0 else ""),
        ended.name,
        infrastructure=bool(disrupted),
        report=worker,
    )


def _is_unseen_end(ended: ContainerReport) -> bool:
    """Return whether nobody saw a container end.

    The kubelet reports ContainerStatusUnknown, and invents exit code 137. After a start of the node, containerd reports
    Unknown, and invents 255 (``unknownContainerStatus`` of its CRI plugin).
    """
    return ended.reason == _UNSEEN_END or (ended.reason == "Unknown" and ended.exit_code == 255)


def _reason_of_end(ended: ContainerReport, worker: WorkerReport | None) -> str:
    """Return the kubelet's reason, unless the worker knows a better one: only the worker sees how its child ended."""
    if worker is None or ended.reason not in ("", "Error"):
        return ended.reason
    return {OUT_OF_MEMORY: "OOMKilled", TERMINATED: TERMINATED_BY_SIGNAL}.get(worker.reason, ended.reason)


def _running(pod: Pod, report: ContainerReport) -> Verdict | None:
    if report.state is not RuntimeState.RUNNING or _status_text(pod, "phase") in ("Failed", "Succeeded"):
        return None
    disrupted = _disruption(pod)
    return Verdict(BaseState.RUNNING, reason=disrupted, infrastructure=bool(disrupted))


def _will_restart(pod: Pod, ended: ContainerReport) -> bool:
    policy = text(spec_of(pod).get("restartPolicy"))
    finished = _status_text(pod, "phase") in ("Failed", "Succeeded")
    return not finished and (policy == "Always" or (policy == "OnFailure" and ended.exit_code != 0))


def _by_phase(pod: Pod, report: ContainerReport, base: str) -> Verdict | None:
    """Judge by the phase a pod that is over, or that runs while base's state is not reported."""
    phase = _status_text(pod, "phase")
    if phase == "Succeeded":
        return Verdict(BaseState.TERMINATED, 0, _status_text(pod, "reason"), _status_text(pod, "message"))
    if phase == "Failed":
        return _failed(pod, base)
    if phase == "Running" and report.state is RuntimeState.UNKNOWN:
        disrupted = _disruption(pod)
        return Verdict(BaseState.RUNNING, reason=disrupted, infrastructure=bool(disrupted))
    return None


def _failed(pod: Pod, base: str) -> Verdict:
    disrupted = _disruption(pod)
    reason = disrupted or _status_text(pod, "reason")
    init = None if reason else _failed_init(container_reports(pod, base))
    if init is not None:
        return _init_verdict(init)
    return Verdict(
        BaseState.TERMINATED, None, reason or "Failed", _status_text(pod, "message"), infrastructure=bool(disrupted)
    )


def _failed_init(reports: Iterable[ContainerReport]) -> ContainerReport | None:
    failed = (
        r for r in reports if r.kind is ContainerKind.INIT and r.state is RuntimeState.TERMINATED and r.exit_code != 0
    )
    return next(failed, None)


def _init_verdict(init: ContainerReport) -> Verdict:
    return Verdict(BaseState.TERMINATED, None, init.reason or "Error", init.message, init.name)


def _while_pending(pod: Pod, base: str, fatal: Collection[str]) -> Verdict:
    """Judge a pod whose base has not started."""
    reports = container_reports(pod, base) if _has_statuses(pod) else ()
    if text(spec_of(pod).get("restartPolicy")) == "Never" and (init := _failed_init(reports)) is not None:
        return _init_verdict(init)
    waiting = [r for r in reports if r.state is RuntimeState.WAITING and r.kind is not ContainerKind.ORDINARY]
    for report in waiting:
        if _is_fatal(report, fatal):
            return Verdict(BaseState.TERMINATED, None, report.reason, report.message, report.name)
    if (reason := _status_text(pod, "reason")) == "ProviderFailed":
        return Verdict(BaseState.TERMINATED, None, reason, _status_text(pod, "message"), infrastructure=True)
    return _waits_for(pod, waiting)


def _has_statuses(pod: Pod) -> bool:
    """Return whether the kubelet has reported a container; before it has the pod, none has a state."""
    status = status_of(pod)
    return bool(status.get("initContainerStatuses") or status.get("containerStatuses"))


def _is_fatal(report: ContainerReport, fatal: Collection[str]) -> bool:
    if report.reason == "ErrImagePull":
        return report.reason in fatal and not is_transient_pull(report.message)
    if report.reason == "ImagePullBackOff" and report.reason not in fatal:
        # Since Kubernetes 1.31 the message ends with the pull's error. It stands in for an ErrImagePull that the watch
        # did not show, because the kubelet had moved on to the back-off.
        cause = report.message.partition("ErrImagePull:")[2]
        return "ErrImagePull" in fatal and bool(cause) and not is_transient_pull(cause)
    return report.reason in fatal


def _waits_for(pod: Pod, waiting: Iterable[ContainerReport]) -> Verdict:
    """Return what a pod waits for: the scheduler, or the first container with a reason of its own.

    PodInitializing and ContainerCreating only mean that the container waits for others.
    """
    for condition in conditions_of(pod):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Verdict(BaseState.WAITING, None, text(condition.get("reason")), text(condition.get("message")))
    first = min(waiting, key=lambda r: r.reason in ("", "PodInitializing", "ContainerCreating"), default=None)
    if first is not None:
        return Verdict(BaseState.WAITING, None, first.reason, first.message, first.name)
    return Verdict(BaseState.WAITING, None, _status_text(pod, "reason"), _status_text(pod, "message"))


def _if_gone(verdict: Verdict, pod: Pod, deleted: bool) -> Verdict:
    deletion_requested = metadata_of(pod).get("deletionTimestamp")
    if verdict.over or not (deleted or deletion_requested):
        return verdict
    disrupted = _disruption(pod)
    if not deleted and not _ends_unseen(pod, disrupted, never_began=verdict.state is BaseState.WAITING):
        return verdict
    waited_for = verdict.reason if verdict.state is BaseState.WAITING else ""
    return Verdict(
        BaseState.GONE,
        None,
        disrupted or waited_for or "Deleted",
        _status_text(pod, "message") or verdict.message,
        infrastructure=bool(disrupted),
    )


def _disruption(pod: Pod) -> str:
    """Return the reason for which the cluster ended the pod, "" when it did not."""
    status = status_of(pod)
    reason = text(status.get("reason"))
    if reason == "Evicted" and any(words in text(status.get("message")) for words in _OWN_FAULT):
        return ""
    if reason in INFRASTRUCTURE_REASONS:
        return reason
    for condition in conditions_of(pod):
        kind = text(condition.get("type"))
        if kind in DISRUPTION_CONDITIONS and condition.get("status") == "True":
            return (text(condition.get("reason")) if kind == "DisruptionTarget" else "") or kind
    return ""


def _ends_unseen(pod: Pod, disrupted: str, *, never_began: bool) -> bool:
    """Whether nobody may report the end of a pod that is being deleted: its kubelet no longer answers.

    The object of such a pod stays until the node is removed. Of a pod that had not started when its node went
    silent, the conditions do not show which node it is on. It need not be waited for: a kubelet that answers does not
    start a pod that is being deleted, and Airflow refuses the start of a worker that another one has preceded.
    """
    return disrupted == "NodeLost" or (disrupted == "DeletionByTaintManager" and (never_began or node_is_unready(pod)))


def node_is_unready(pod: Pod) -> bool:
    """Whether the control plane has found the pod's node not ready, as the pod's own conditions show it.

    The node controller then sets Ready to False and leaves everything else as the kubelet wrote it
    (``MarkPodsNotReady``). A kubelet that sets Ready to False gives a reason, and sets ContainersReady first. So nobody
    needs the right to read nodes. A pod whose sidecar was not ready before does not show it.
    """
    conditions = {text(condition.get("type")): condition for condition in conditions_of(pod)}
    none = PodCondition()
    ready, containers = conditions.get("Ready", none), conditions.get("ContainersReady", none)
    return ready.get("status") == "False" and not ready.get("reason") and containers.get("status") == "True"


def _has_started(report: ContainerReport) -> bool:
    if report.last is not None or report.state is RuntimeState.RUNNING:
        return True
    return report.state is RuntimeState.TERMINATED and report.reason not in ("StartError", "ContainerCannotRun")


def _status_text(pod: Pod, field: Literal["phase", "reason", "message"]) -> str:
    return text(status_of(pod).get(field))
