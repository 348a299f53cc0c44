"""Explains why a pod failed or waits, in one sentence for the task's author: the cause, then the fix.

The rules are data, tried in order; the last one repeats Kubernetes' own words. As for verdicts, every JSON gets an
answer, none an exception.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from crosswind.pods.field_names import EXECUTOR_FIELDS, FieldNames
from crosswind.pods.fields import as_events, as_pod, container_of, mapping, metadata_of, spec_of, text
from crosswind.pods.states import ContainerKind, ContainerReport, container_reports
from crosswind.pods.verdict import (
    FATAL_REASONS,
    TERMINATED_BY_SIGNAL,
    BaseState,
    Verdict,
    is_transient_pull,
    judge,
)
from crosswind.types import AnyPod, Container, Json, Pod, PodEvent

__all__ = ["exit_code_meaning", "is_known_refusal", "why", "why_refused"]

_MAX_QUOTED = 400
"""Characters of Kubernetes' own text in one sentence."""


@dataclass(frozen=True, slots=True)
class _Case:
    pod: Pod
    verdict: Verdict
    base: str
    fields: FieldNames
    events: tuple[PodEvent, ...]

    @property
    def name(self) -> str:
        return text(metadata_of(self.pod).get("name")) or "(unnamed)"

    @property
    def node(self) -> str:
        return text(spec_of(self.pod).get("nodeName")) or "its node"

    @property
    def quoted(self) -> str:
        """Kubernetes' own text in parentheses, to end a clause with; "" when there is none."""
        return f" ({_short(self.verdict.message)})" if self.verdict.message else ""

    def container(self, name: str) -> Container:
        """Return a container's spec, {} when there is none."""
        return container_of(self.pod, name)

    def event(self, *reasons: str) -> str:
        """Return the newest message among the pod's events of these reasons, "" when there is none."""
        matching = [event for event in self.events if event.get("reason") in reasons]
        return _short(text(max(matching, key=_event_time).get("message"))) if matching else ""


_Rule: TypeAlias = Callable[[_Case], str]


def why(
    pod: AnyPod,
    events: Iterable[Json] = (),
    *,
    base: str = "base",
    fatal: Iterable[str] = FATAL_REASONS,
    deleted: bool = False,
    fields: FieldNames = EXECUTOR_FIELDS,
) -> str:
    """Return one sentence on why the pod failed or waits; "" when it runs or ended well.

    ``events``: Event objects about the pod, in any order; they name causes that the status does not hold (volumes,
    networks). ``base``, ``fatal``, ``deleted``: as for ``verdict.judge``.
    ``fields``: the names of a pod's fields where the task is defined, for the fix.
    """
    verdict = judge(pod, base, fatal=frozenset(fatal), deleted=deleted)
    if verdict.succeeded or (verdict.state is BaseState.RUNNING and not verdict.reason):
        return ""
    case = _Case(as_pod(pod), verdict, base, fields, tuple(as_events(list(events))))
    return next((sentence for rule in _RULES if (sentence := rule(case))), "")


def why_refused(message: str, fields: FieldNames = EXECUTOR_FIELDS) -> str:
    """Return the cause and the fix for a pod that the API server refused, from the error's text.

    ``fields``: the names of a pod's fields where the task is defined, for the fix.
    """
    for pattern, cause in _REFUSALS:
        if match := re.search(pattern, message, re.IGNORECASE):
            groups = {name: value for name, value in match.groupdict().items() if value}
            return cause.format(**groups, message=_short(message), fields=fields)
    return f"the API server refused the pod: {_short(message)}"


def is_known_refusal(message: str) -> bool:
    """Return whether ``why_refused`` knows the cause of a message, and does not only repeat it."""
    return any(re.search(pattern, message, re.IGNORECASE) for pattern, _ in _REFUSALS)


def exit_code_meaning(code: int) -> str:
    """Return the meaning of an exit code, "" for one that only says that the command failed."""
    if code in _EXIT_CODES:
        return _EXIT_CODES[code]
    return f"ended by signal {code - 128}" if 128 < code <= 192 else ""


_EXIT_CODES: Mapping[int, str] = {
    2: "wrong use of the command",
    126: "the command is not executable",
    127: "the command was not found in the image",
    128: "the container could not be started",
    130: "interrupted (SIGINT)",
    132: "illegal instruction (SIGILL): built for another CPU",
    134: "aborted (SIGABRT)",
    135: "bus error (SIGBUS): often /dev/shm is full",
    137: "killed (SIGKILL): because the node ran out of memory, or after the grace period",
    139: "crashed (SIGSEGV)",
    141: "broken pipe (SIGPIPE)",
    143: "asked to end (SIGTERM)",
}

# --- rules for a pod --------------------------------------------------------------------------------------------------


def _out_of_memory(case: _Case) -> str:
    if case.verdict.reason != "OOMKilled":
        return ""
    resources = mapping(case.container(case.base).get("resources"))
    limit = mapping(resources.get("limits")).get("memory")
    if limit is None:
        return (
            f"{case.base} was killed because {case.node} ran out of memory (OOMKilled), and it has no limit "
            f"of its own; set {case.fields.memory.format(base=case.base)} to what the task needs"
        )
    return (
        f"{case.base} was killed because it used more memory than its limit of {limit} (OOMKilled); raise "
        f"{case.fields.memory_limit.format(base=case.base)}, or make the task hold less in memory"
    )


def _terminated(case: _Case) -> str:
    if case.verdict.reason != TERMINATED_BY_SIGNAL:
        return ""
    return (
        f"{case.base} was terminated (SIGTERM) while its task ran{case.quoted}, and the pod does not show the sender: "
        f"a user deleted the pod, or {case.node} stopped it; a later failure is not attributed to the task"
    )


def _disrupted(case: _Case) -> str:
    template = _DISRUPTIONS.get(case.verdict.reason)
    return (
        template.format(node=case.node, quoted=case.quoted, reason=case.verdict.reason, fields=case.fields)
        if template
        else ""
    )


_NOT_ADMITTED = (
    "{node} did not admit the pod ({reason}){quoted}: its capacity was used up when the pod arrived; nothing to fix in "
    "the task, a new pod is scheduled elsewhere"
)
_DISRUPTIONS: Mapping[str, str] = {
    "Evicted": (
        "{node} evicted the pod{quoted}; set {fields.own_requests} to "
        "what the task needs: "
        "pods that use more than they request go first"
    ),
    "TerminationByKubelet": (
        "{node} ended the pod to protect itself (memory, disk or shutdown){quoted}; set {fields.own_requests} "
        "to what the task needs"
    ),
    "PreemptionByScheduler": (
        "a pod of higher priority displaced this one on {node}{quoted}; give it a "
        "{fields.priority}, or the cluster more nodes"
    ),
    "Preempting": (
        "{node} ended the pod to make room for a critical one{quoted}; set {fields.requests} so that nodes "
        "are not overcommitted"
    ),
    "Preempted": "a pod of higher priority displaced this one on {node}{quoted}; give it a {fields.priority}",
    "EvictionByEvictionAPI": (
        "the pod was evicted by request, as draining {node} does (upgrade, autoscaler){quoted}; keep long "
        "tasks by the annotation "
        'cluster-autoscaler.kubernetes.io/safe-to-evict: "false" or a PodDisruptionBudget'
    ),
    "DeletionByTaintManager": (
        "{node} became unready or was tainted, and the pod was evicted{quoted}; nothing to fix in the "
        "task, look at the node"
    ),
    "DeletionByPodGC": ("{node} is gone (removed, or a spot machine reclaimed){quoted}; nothing to fix in the task"),
    "NodeLost": "{node} no longer answers{quoted}; nothing to fix in the task, look at the node",
    "NodeShutdown": "{node} is shutting down{quoted}; nothing to fix in the task",
    "Shutdown": "{node} is shutting down{quoted}; nothing to fix in the task",
    "Terminated": "{node} is shutting down{quoted}; nothing to fix in the task",
    "ContainerStatusUnknown": (
        "{node} lost track of base's container when its runtime restarted or crashed{quoted}; nothing to fix in the "
        "task"
    ),
    "ProviderFailed": "the virtual node {node} could not start the pod{quoted}; look at its provider",
    "TerminationTarget": (
        "Kueue ended the pod on {node}, for a workload of higher priority or another share{quoted}; nothing to fix in "
        "the task, look at its Workload"
    ),
    "DisruptionTarget": "the cluster removed the pod from {node}{quoted}; nothing to fix in the task",
    **dict.fromkeys(
        ("UnexpectedAdmissionError", "NodeAffinity", "OutOfcpu", "OutOfmemory", "OutOfpods", "OutOfephemeral-storage"),
        _NOT_ADMITTED,
    ),
}


def _deadline(case: _Case) -> str:
    if case.verdict.reason != "DeadlineExceeded":
        return ""
    limit = spec_of(case.pod).get("activeDeadlineSeconds", "its")
    return (
        f"the pod lived longer than its activeDeadlineSeconds ({limit}), waiting included; {case.fields.deadline}, "
        "or remove it and use the task's execution_timeout"
    )


def _image(case: _Case) -> str:
    verdict = case.verdict
    if verdict.reason not in (
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "ImageInspectError",
    ):
        return ""
    image = text(case.container(verdict.container).get("image"))
    secrets = case.fields.pull_secrets
    start = f"image {image!r} of container {verdict.container} cannot be pulled{case.quoted}"
    if verdict.reason == "InvalidImageName":
        return f"image {image!r} of container {verdict.container} is not a valid image name; write REGISTRY/NAME:TAG"
    if verdict.reason == "ErrImageNeverPull":
        return f"{start}; it is not on {case.node} and imagePullPolicy is Never: load it there or change the policy"
    if re.search(r"unauthori[sz]ed|authentication|forbidden|denied|403|401", verdict.message, re.IGNORECASE):
        return f"{start}; name a Secret with the registry's credentials in {secrets}, and check the image's name"
    if is_transient_pull(verdict.message):
        return f"{start}; the registry is busy or unreachable; Kubernetes retries"
    return f"{start}; check its name and tag, and {secrets} if the registry is private"


def _missing_object(case: _Case) -> str:
    if case.verdict.reason not in ("CreateContainerConfigError", "CreateContainerError"):
        return ""
    message, namespace = case.verdict.message, text(metadata_of(case.pod).get("namespace"))
    where = f" in namespace {namespace}" if namespace else ""
    start = f"container {case.verdict.container} cannot be created{case.quoted}"
    if match := re.search(r'(secret|configmap) "?([\w.-]+)"? not found', message, re.IGNORECASE):
        return f"{start}; create the {match[1].lower()} {match[2]}{where}, or mark the reference optional: true"
    if match := re.search(r"find key (\S+) in (secret|configmap) (\S+)", message, re.IGNORECASE):
        return f"{start}; add the key {match[1]} to the {match[2].lower()} {match[3]}, or correct the reference"
    if "runAsNonRoot" in message:
        return f"{start}; set {case.fields.user}"
    return f"{start}; fix what it names in {case.fields.spec}"


def _not_started(case: _Case) -> str:
    if case.verdict.reason not in ("StartError", "ContainerCannotRun", "RunContainerError"):
        return ""
    return (
        f"the command of container {case.verdict.container} could not be started{case.quoted}; check "
        f"command, args and that the image has the program{case.fields.program}"
    )


def _init_failed(case: _Case) -> str:
    failed = case.verdict.container
    report = _report(case, failed)
    if case.verdict.state is not BaseState.TERMINATED or report is None or report.kind is not ContainerKind.INIT:
        return ""
    return (
        f"init container {failed} failed{_with_code(report)}{case.quoted}, so base was never started; read its log: "
        f"kubectl logs {case.name} -c {failed}"
    )


def _sidecar_fails(case: _Case) -> str:
    verdict = case.verdict
    report = _report(case, verdict.container)
    if verdict.reason != "CrashLoopBackOff" or report is None or report.kind is not ContainerKind.NATIVE:
        return ""
    ended = _with_code(report.last) if report.last else ""
    return (
        f"sidecar {verdict.container} fails again and again{ended}{case.quoted}, so base is not started; read its log: "
        f"kubectl logs {case.name} -c {verdict.container} --previous"
    )


def _unschedulable(case: _Case) -> str:
    if case.verdict.reason == "SchedulingGated":
        return "the pod is held back by a scheduling gate (a queue such as Kueue's); it starts when the gate is removed"
    if case.verdict.reason != "Unschedulable":
        return ""
    message = case.verdict.message
    fixes = [
        fix.format(fields=case.fields) for pattern, fix in _SCHEDULING if re.search(pattern, message, re.IGNORECASE)
    ]
    return f"no node accepts the pod{case.quoted}; {' or '.join(fixes[:2]) or 'see what the scheduler names'}"


_SCHEDULING = (
    (r"Insufficient|Too many pods", "lower {fields.requests}, or give the cluster more or larger nodes"),
    (r"untolerated taint", "{fields.toleration}"),
    (r"node affinity|node selector|didn't match", "{fields.placement}"),
    (r"persistentvolumeclaim|volume node affinity|PersistentVolume", "check the persistentVolumeClaim and its zone"),
)


def _held_up(case: _Case) -> str:
    """Explain what only events show: volumes and the pod's network."""
    if case.verdict.over or case.verdict.state is BaseState.RUNNING:
        return ""
    if message := case.event("FailedMount", "FailedAttachVolume"):
        return f"a volume cannot be mounted ({message}); create what it names, or correct {case.fields.volume}"
    if message := case.event("FailedCreatePodSandBox", "NetworkNotReady"):
        return f"the pod's network cannot be set up ({message}); look at {case.node} and its network plug-in"
    return ""


def _base_ended(case: _Case) -> str:
    verdict = case.verdict
    report = _report(case, case.base)
    if (
        verdict.state is not BaseState.TERMINATED
        or verdict.container != case.base
        or verdict.exit_code is None
        or report is None
    ):
        return ""
    ended = report.last if report.exit_code is None and report.last else report
    return f"{case.base} ended{_with_code(ended)}{case.quoted}"


def _gone(case: _Case) -> str:
    if case.verdict.state is not BaseState.GONE:
        return ""
    when = "while the task ran" if case.verdict.started else "before base started"
    return f"pod {case.name} was deleted {when}; see who did it in the cluster's audit log or events"


def _kubernetes_words(case: _Case) -> str:
    verdict = case.verdict
    about = f"container {verdict.container}" if verdict.container else f"pod {case.name}"
    if verdict.state is BaseState.WAITING:
        return f"{about} waits: {verdict.reason}{case.quoted}" if verdict.reason else ""
    unknown = "" if verdict.container else "; Kubernetes reports nothing about base"
    return f"{about} failed: {verdict.reason or 'no reason given'}{case.quoted}{unknown}"


_RULES: tuple[_Rule, ...] = (
    _out_of_memory,
    _terminated,
    _disrupted,
    _deadline,
    _image,
    _missing_object,
    _not_started,
    _init_failed,
    _sidecar_fails,
    _unschedulable,
    _held_up,
    _base_ended,
    _gone,
    _kubernetes_words,
)

# --- rules for a refusal ----------------------------------------------------------------------------------------------

_REFUSALS: tuple[tuple[str, str], ...] = (
    (
        r"exceeded quota: (?P<quota>[^,]+)",
        "the ResourceQuota {quota} of the namespace is used up ({message}); wait until other pods end, or raise it",
    ),
    (
        r"failed quota: (?P<quota>[^:]+): must specify (?P<what>[^\"]+)",
        "the ResourceQuota {quota} requires every container to specify {what}; set it in {fields.resources}",
    ),
    (
        r"(maximum|minimum) (?P<what>\S+) usage per (Container|Pod)",
        "a LimitRange of the namespace refuses the pod ({message}); set {what} in {fields.resources} within its bounds",
    ),
    (
        r"violates PodSecurity \"?(?P<level>[^\"]+)\"?",
        "the namespace's Pod Security level {level} refuses the pod ({message}); fix the securityContext it names",
    ),
    (
        r"failed calling webhook \"?(?P<hook>[^\"\s]+)\"?",
        "the admission webhook {hook} does not answer ({message}); look at its service",
    ),
    (
        r"admission webhook \"?(?P<hook>[^\"\s]+)\"? denied",
        "the admission webhook {hook} refuses the pod ({message}); change what it names, or ask its "
        "owner for an exception",
    ),
    (
        r"ValidatingAdmissionPolicy '?(?P<policy>[^' ]+)'?",
        "the admission policy {policy} refuses the pod ({message}); change what it names",
    ),
    (
        r"serviceaccount \"?(?P<name>[\w./-]+)\"? not found",
        "the service account {name} does not exist; create it, or correct {fields.service_account}",
    ),
    (
        r"no PriorityClass with name (?P<name>\S+) was found",
        "the PriorityClass {name} does not exist; create it, or correct {fields.priority}",
    ),
    (
        r"namespace (?P<name>\S+) because it is being terminated",
        "namespace {name} is being deleted; use another, or wait and create it again",
    ),
    (
        r"namespaces \"?(?P<name>[\w.-]+)\"? not found",
        "namespace {name} does not exist; create it, or correct {fields.namespace}",
    ),
    (
        r"is invalid: (?P<field>[\w.\[\]]+): ",
        "the pod is not valid ({message}); correct {field} in {fields.spec}",
    ),
)


def _report(case: _Case, name: str) -> ContainerReport | None:
    return next((report for report in container_reports(case.pod, case.base) if report.name == name), None)


def _with_code(report: ContainerReport) -> str:
    if report.exit_code is None:
        return ""
    meaning = exit_code_meaning(report.exit_code)
    return f" with exit code {report.exit_code}" + (f" ({meaning})" if meaning else "")


def _event_time(event: PodEvent) -> str:
    series = mapping(event.get("series"))
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return max(text(time) for time in times)


def _short(message: str) -> str:
    line = " ".join(message.split()).rstrip(".;")
    return line if len(line) <= _MAX_QUOTED else f"{line[: _MAX_QUOTED - 3]}..."
