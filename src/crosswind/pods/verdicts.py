"""What a pod's status means for its task. The base container decides, found by name, whatever else runs.

Total: any JSON gets a verdict. The phase serves only where base's own state is missing: it counts all regular
containers, so that a sidecar can keep it at Running for ever or turn it to Failed (``kubelet_pods.go``, ``getPhase``).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from crosswind.pods.states import ContainerReport, Kind, State, containers, mapping, mappings, text
from crosswind.types import Json

__all__ = ["FATAL_REASONS", "INFRASTRUCTURE_REASONS", "Stage", "Verdict", "is_transient_pull", "judge"]

FATAL_REASONS = frozenset(
    {"CreateContainerConfigError", "ErrImagePull", "CreateContainerError", "ImageInspectError", "InvalidImageName"}
)
"""Default of ``[kubernetes_executor] worker_pod_pending_fatal_container_state_reasons``."""

INFRASTRUCTURE_REASONS = frozenset(
    {
        # of a pod: kubelet and node controller
        "Evicted",
        "NodeLost",
        "NodeShutdown",
        "Shutdown",
        "Terminated",
        "Preempting",
        "Preempted",
        "ProviderFailed",
        # of a pod that the kubelet did not admit
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
    }
)
"""Reasons of a pod, or of its DisruptionTarget condition, that the task has no part in."""

# Texts of the kubelet's eviction manager for a pod that used more disk than it asked for itself.
_OWN_FAULT = ("exceeds the limit", "exceeds the total limit", "exceeded its local ephemeral storage limit")

_TRANSIENT_PULLS = re.compile(
    r"pull qps exceeded|toomanyrequests|too many requests|timeout|timed out|deadline exceeded"
    # the network and its names: a node's resolver that is away says "no such host" and "server misbehaving"
    r"|no such host|server misbehaving|temporary failure|temporarily unavailable|try again"
    r"|no route to host|(network|host) is (unreachable|down)|connection (refused|reset|closed|lost|aborted)"
    r"|broken pipe|unexpected eof|: eof\b|closed network connection|remote error: tls: internal error"
    # the registry, or a proxy before it; a number alone may be an image's tag
    r"|\b50[0234] (internal server error|bad gateway|service unavailable|gateway time)|no healthy upstream"
    r"|(status|code)\W{0,3}(429|50[0234])\b|\b429\b(?= *$|\W* too)",
    re.IGNORECASE,
)
"""Errors of an image pull that pass by themselves, in the words of containerd, CRI-O, Go's network and registries."""


class Stage(enum.Enum):
    """How far the base container has come."""

    WAITING = "waiting"
    """Not started, and it may still start."""
    RUNNING = "running"
    ENDED = "ended"
    """It terminated, or it never will run: the task's part of the pod is over, sidecars or not."""
    GONE = "gone"
    """The pod is gone, or its node is, and nobody saw base end."""


class Verdict(NamedTuple):
    """How a pod stands. ``reason`` is one word as Kubernetes has it, ``message`` its text; both may be ""."""

    stage: Stage
    exit_code: int | None = None
    """Of base; None while it has not ended, and when it never ran or its end was not seen."""
    reason: str = ""
    message: str = ""
    container: str = ""
    """The container that ``reason`` is about, "" for the pod itself."""
    sidecars_running: tuple[str, ...] = ()
    """Ordinary containers beside base that run: they hold the pod; native ones end by themselves."""
    infrastructure: bool = False
    """The cluster took the pod: eviction, preemption, node loss and shutdown. Never an out-of-memory kill."""
    started: bool = False
    """Base has run, or runs, as far as is known: also when the kubelet lost sight of its container."""
    deleting: bool = False
    """Somebody asked for the pod's deletion."""

    @property
    def over(self) -> bool:
        """Nothing more will come from base."""
        return self.stage in (Stage.ENDED, Stage.GONE)

    @property
    def succeeded(self) -> bool:
        """Base ended with exit code 0."""
        return self.stage is Stage.ENDED and self.exit_code == 0


def judge(
    pod: Json,
    base: str = "base",
    *,
    fatal: Collection[str] = FATAL_REASONS,
    deleted: bool = False,
    restarts: bool = False,
) -> Verdict:
    """Return how a pod stands.

    ``fatal``: reasons of waiting containers (base and init containers) for which the task fails at once; an image pull
    that failed for a passing cause (a registry that is busy or out of reach) is waited for nevertheless, the kubelet
    tries again. ``deleted``: the object is gone (the watch said DELETED), ``pod`` is the last that was seen.
    ``restarts``: leave an end of base that the pod's ``restartPolicy`` repairs to the kubelet. By default base's first
    end counts, because a worker's second start cannot run the same task again.
    """
    reports = containers(pod, base)
    chief = next((report for report in reports if report.kind is Kind.BASE), ContainerReport(base, Kind.BASE))
    verdict = (
        _on_base(pod, chief, restarts) or _on_phase(pod, chief, reports) or _on_pending(pod, chief, reports, fatal)
    )
    return _if_gone(verdict, pod, deleted)._replace(
        sidecars_running=tuple(
            report.name for report in reports if report.kind is Kind.ORDINARY and report.state is State.RUNNING
        ),
        started=_has_started(chief),
        deleting=bool(mapping(mapping(pod).get("metadata")).get("deletionTimestamp")),
    )


def is_transient_pull(message: str) -> bool:
    """Tell whether an image pull failed for a cause that passes by itself."""
    return _TRANSIENT_PULLS.search(message) is not None


def _on_base(pod: Json, chief: ContainerReport, restarts: bool) -> Verdict | None:
    """Judge by base's own state, if that says it all."""
    ended = chief if chief.state is State.TERMINATED else None if restarts else chief.last
    if ended is None or (restarts and _will_restart(pod, ended)):
        return _running(pod, chief)
    # ContainerStatusUnknown is the kubelet's word for "it was not seen to end": exit code 137 was made up.
    code = None if ended.reason == "ContainerStatusUnknown" else ended.exit_code
    blame_pod = code != 0 and ended.reason != "OOMKilled"
    disrupted = _disruption(pod) if blame_pod else ""
    return Verdict(
        Stage.ENDED,
        code,
        disrupted or (_status_text(pod, "reason") if blame_pod else "") or ended.reason,
        ended.message or (_status_text(pod, "message") if code != 0 else ""),
        ended.name,
        infrastructure=bool(disrupted),
    )


def _running(pod: Json, chief: ContainerReport) -> Verdict | None:
    if chief.state is not State.RUNNING or _status_text(pod, "phase") in ("Failed", "Succeeded"):
        return None
    disrupted = _disruption(pod)
    return Verdict(Stage.RUNNING, reason=disrupted, infrastructure=bool(disrupted))


def _will_restart(pod: Json, ended: ContainerReport) -> bool:
    policy = text(mapping(mapping(pod).get("spec")).get("restartPolicy"))
    finished = _status_text(pod, "phase") in ("Failed", "Succeeded")
    return not finished and (policy == "Always" or (policy == "OnFailure" and ended.exit_code != 0))


def _on_phase(pod: Json, chief: ContainerReport, reports: Iterable[ContainerReport]) -> Verdict | None:
    """Judge by the phase: the pod is over, or runs, and base's state is not reported."""
    phase = _status_text(pod, "phase")
    if phase == "Succeeded":
        return Verdict(Stage.ENDED, 0, _status_text(pod, "reason"), _status_text(pod, "message"))
    if phase == "Failed":
        return _failed(pod, reports)
    if phase == "Running" and chief.state is State.UNKNOWN:
        disrupted = _disruption(pod)
        return Verdict(Stage.RUNNING, reason=disrupted, infrastructure=bool(disrupted))
    return None


def _failed(pod: Json, reports: Iterable[ContainerReport]) -> Verdict:
    disrupted = _disruption(pod)
    reason = disrupted or _status_text(pod, "reason")
    init = None if reason else _failed_init(reports)
    if init is not None:
        return _init_verdict(init)
    return Verdict(Stage.ENDED, None, reason or "Failed", _status_text(pod, "message"), infrastructure=bool(disrupted))


def _failed_init(reports: Iterable[ContainerReport]) -> ContainerReport | None:
    failed = (r for r in reports if r.kind is Kind.INIT and r.state is State.TERMINATED and r.exit_code != 0)
    return next(failed, None)


def _init_verdict(init: ContainerReport) -> Verdict:
    return Verdict(Stage.ENDED, None, init.reason or "Error", init.message, init.name)


def _on_pending(
    pod: Json, chief: ContainerReport, reports: tuple[ContainerReport, ...], fatal: Collection[str]
) -> Verdict:
    """Judge a pod whose base has not started."""
    policy = text(mapping(mapping(pod).get("spec")).get("restartPolicy"))
    if policy == "Never" and (init := _failed_init(reports)) is not None:
        return _init_verdict(init)
    waiting = [r for r in reports if r.state is State.WAITING and (r is chief or r.kind in (Kind.INIT, Kind.NATIVE))]
    for report in waiting:
        if _is_fatal(report, fatal):
            return Verdict(Stage.ENDED, None, report.reason, report.message, report.name)
    if (reason := _status_text(pod, "reason")) == "ProviderFailed":
        return Verdict(Stage.ENDED, None, reason, _status_text(pod, "message"), infrastructure=True)
    return _held_by(pod, waiting)


def _is_fatal(report: ContainerReport, fatal: Collection[str]) -> bool:
    if report.reason == "ErrImagePull":
        return report.reason in fatal and not is_transient_pull(report.message)
    if report.reason == "ImagePullBackOff" and report.reason not in fatal:
        # Since 1.31 the message ends with the pull's error. It stands in for the ErrImagePull that a watch may have
        # missed.
        cause = report.message.partition("ErrImagePull:")[2]
        return "ErrImagePull" in fatal and bool(cause) and not is_transient_pull(cause)
    return report.reason in fatal


def _held_by(pod: Json, waiting: Iterable[ContainerReport]) -> Verdict:
    """Say what a pod waits for: the scheduler, or the first container that says more than that it waits for others."""
    for condition in mappings(mapping(mapping(pod).get("status")).get("conditions")):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Verdict(Stage.WAITING, None, text(condition.get("reason")), text(condition.get("message")))
    told = sorted(waiting, key=lambda r: r.reason in ("", "PodInitializing", "ContainerCreating"))
    if told:
        return Verdict(Stage.WAITING, None, told[0].reason, told[0].message, told[0].name)
    return Verdict(Stage.WAITING, None, _status_text(pod, "reason"), _status_text(pod, "message"))


def _if_gone(verdict: Verdict, pod: Json, deleted: bool) -> Verdict:
    marked = mapping(mapping(pod).get("metadata")).get("deletionTimestamp")
    if verdict.over or not (deleted or marked):
        return verdict
    disrupted = _disruption(pod)
    if not deleted and disrupted != "NodeLost":
        return verdict
    why = verdict.reason if verdict.stage is Stage.WAITING else ""
    return Verdict(
        Stage.GONE,
        None,
        disrupted or why or "Deleted",
        _status_text(pod, "message") or verdict.message,
        infrastructure=bool(disrupted),
    )


def _disruption(pod: Json) -> str:
    """Return the infrastructure's reason for taking the pod, "" when it did not."""
    reason = _status_text(pod, "reason")
    if reason == "Evicted" and any(sign in _status_text(pod, "message") for sign in _OWN_FAULT):
        return ""
    if reason in INFRASTRUCTURE_REASONS:
        return reason
    for condition in mappings(mapping(mapping(pod).get("status")).get("conditions")):
        if condition.get("type") == "DisruptionTarget" and condition.get("status") == "True":
            return text(condition.get("reason")) or "DisruptionTarget"
    return ""


def _has_started(chief: ContainerReport) -> bool:
    if chief.last is not None or chief.state is State.RUNNING:
        return True
    return chief.state is State.TERMINATED and chief.reason not in ("StartError", "ContainerCannotRun")


def _status_text(pod: Json, field: str) -> str:
    return text(mapping(mapping(pod).get("status")).get(field))
