"""Why a pod failed or waits: one sentence for the task's author, cause first, then the mend.

Rules as data, tried in order; what no rule knows is told in Kubernetes' own words. Total on any JSON, as verdicts are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from crosswind.pods.authors import EXECUTOR, Author
from crosswind.pods.states import ContainerReport, Kind, containers, mapping, mappings, text
from crosswind.pods.verdicts import FATAL_REASONS, Stage, Verdict, is_transient_pull, judge
from crosswind.types import Json

__all__ = ["exit_code_meaning", "is_known_refusal", "why", "why_refused"]

_LONGEST = 400
"""Characters of Kubernetes' own text in one sentence."""


@dataclass(frozen=True, slots=True)
class _Case:
    pod: Mapping[str, Any]
    verdict: Verdict
    base: str
    author: Author
    events: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        return text(mapping(self.pod.get("metadata")).get("name")) or "(unnamed)"

    @property
    def spec(self) -> Mapping[str, Any]:
        return mapping(self.pod.get("spec"))

    @property
    def node(self) -> str:
        return text(self.spec.get("nodeName")) or "its node"

    @property
    def told(self) -> str:
        """Kubernetes' own text, as the end of a clause: `` (text)`` or ""."""
        return f" ({_short(self.verdict.message)})" if self.verdict.message else ""

    def container(self, name: str) -> Mapping[str, Any]:
        """Return a container's spec, {} when there is none."""
        every = (*mappings(self.spec.get("initContainers")), *mappings(self.spec.get("containers")))
        return next((container for container in every if container.get("name") == name), {})

    def event(self, *reasons: str) -> str:
        """Return the newest message among the pod's events of these reasons, ""."""
        found = [event for event in self.events if event.get("reason") in reasons]
        return _short(text(max(found, key=_event_time).get("message"))) if found else ""


_Rule: TypeAlias = Callable[[_Case], str]


def why(
    pod: Json,
    events: Iterable[Json] = (),
    *,
    base: str = "base",
    fatal: Iterable[str] = FATAL_REASONS,
    deleted: bool = False,
    author: Author = EXECUTOR,
) -> str:
    """Return one sentence on why the pod failed, or waits; "" when it runs, or ended well.

    ``events``: Event objects about the pod, in any order; they name causes that the status does not hold (volumes,
    networks). ``base``, ``fatal``, ``deleted``: as for ``verdicts.judge``.
    ``author``: whose words the mend has.
    """
    verdict = judge(pod, base, fatal=frozenset(fatal), deleted=deleted)
    if verdict.succeeded or (verdict.stage is Stage.RUNNING and not verdict.reason):
        return ""
    case = _Case(mapping(pod), verdict, base, author, tuple(mappings(list(events))))
    return next((sentence for rule in _RULES if (sentence := rule(case))), "")


def why_refused(message: str, author: Author = EXECUTOR) -> str:
    """Return cause and mend for a pod that the API server refused, from its error's text, in the author's words."""
    for pattern, cause in _REFUSALS:
        if match := re.search(pattern, message, re.IGNORECASE):
            groups = {name: value for name, value in match.groupdict().items() if value}
            return cause.format(**groups, message=_short(message), author=author)
    return f"the API server refused the pod: {_short(message)}"


def is_known_refusal(message: str) -> bool:
    """Whether ``why_refused`` has a cause for a message, rather than the message alone."""
    return any(re.search(pattern, message, re.IGNORECASE) for pattern, _ in _REFUSALS)


def exit_code_meaning(code: int) -> str:
    """Return what an exit code says, "" when it says nothing beyond failure."""
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
    137: "killed (SIGKILL): by the node for want of memory, or after the grace period",
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
            f"of its own; set {case.author.memory.format(base=case.base)} to what the task needs"
        )
    return (
        f"{case.base} was killed because it used more memory than its limit of {limit} (OOMKilled); raise "
        f"{case.author.memory_limit.format(base=case.base)}, or let it hold less at once"
    )


def _disrupted(case: _Case) -> str:
    template = _DISRUPTIONS.get(case.verdict.reason)
    return (
        template.format(node=case.node, told=case.told, reason=case.verdict.reason, author=case.author)
        if template
        else ""
    )


_NOT_ADMITTED = (
    "{node} did not take the pod ({reason}){told}: its room was gone when the pod arrived; nothing "
    "to mend in the task, a new "
    "pod finds another place"
)
_DISRUPTIONS: Mapping[str, str] = {
    "Evicted": (
        "{node} evicted the pod{told}; set {author.own_requests} to "
        "what the task needs: "
        "pods that use more than they request go first"
    ),
    "TerminationByKubelet": (
        "{node} ended the pod to save itself (memory, disk or shutdown){told}; set {author.own_requests} "
        "to what the task needs"
    ),
    "PreemptionByScheduler": (
        "a pod of higher priority took the place of this one on {node}{told}; give it a "
        "{author.priority}, or the cluster more nodes"
    ),
    "Preempting": (
        "{node} ended the pod to make room for a critical one{told}; set {author.requests} so that nodes "
        "are not overfull"
    ),
    "Preempted": "a pod of higher priority took the place of this one on {node}{told}; give it a {author.priority}",
    "EvictionByEvictionAPI": (
        "the pod was evicted by request, as draining {node} does (upgrade, autoscaler){told}; keep long "
        "tasks by the annotation "
        'cluster-autoscaler.kubernetes.io/safe-to-evict: "false" or a PodDisruptionBudget'
    ),
    "DeletionByTaintManager": (
        "{node} became unready or was tainted, and the pod had to go{told}; nothing to mend in the "
        "task, look at the node"
    ),
    "DeletionByPodGC": (
        "{node} is gone (removed, or a spot machine reclaimed){told}; nothing to mend in the task, retries help"
    ),
    "NodeLost": "{node} does not answer any more{told}; nothing to mend in the task, look at the node",
    "NodeShutdown": "{node} is shutting down{told}; nothing to mend in the task, retries help",
    "Shutdown": "{node} is shutting down{told}; nothing to mend in the task, retries help",
    "Terminated": "{node} is shutting down{told}; nothing to mend in the task, retries help",
    "ContainerStatusUnknown": (
        "{node} lost sight of base's container, by a restart or a crash of its runtime{told}; nothing to mend in the "
        "task, retries help"
    ),
    "ProviderFailed": "the virtual node {node} could not start the pod{told}; look at its provider",
    "DisruptionTarget": "the cluster took the pod from {node}{told}; nothing to mend in the task",
    **dict.fromkeys(
        ("UnexpectedAdmissionError", "NodeAffinity", "OutOfcpu", "OutOfmemory", "OutOfpods", "OutOfephemeral-storage"),
        _NOT_ADMITTED,
    ),
}


def _deadline(case: _Case) -> str:
    if case.verdict.reason != "DeadlineExceeded":
        return ""
    limit = case.spec.get("activeDeadlineSeconds", "its")
    return (
        f"the pod lived longer than its activeDeadlineSeconds ({limit}), waiting included; {case.author.deadline}, "
        "or take it out and use the task's execution_timeout"
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
    secrets = case.author.pull_secrets
    start = f"image {image!r} of container {verdict.container} cannot be pulled{case.told}"
    if verdict.reason == "InvalidImageName":
        return f"image {image!r} of container {verdict.container} is no valid image name; write REGISTRY/NAME:TAG"
    if verdict.reason == "ErrImageNeverPull":
        return f"{start}; it is not on {case.node} and imagePullPolicy is Never: load it there or change the policy"
    if re.search(r"unauthori[sz]ed|authentication|forbidden|denied|403|401", verdict.message, re.IGNORECASE):
        return f"{start}; name a Secret with the registry's credentials in {secrets}, and check the image's name"
    if is_transient_pull(verdict.message):
        return f"{start}; the registry is busy or out of reach, Kubernetes tries again"
    return f"{start}; check its name and tag, and {secrets} if the registry is private"


def _missing_object(case: _Case) -> str:
    if case.verdict.reason not in ("CreateContainerConfigError", "CreateContainerError"):
        return ""
    message, namespace = case.verdict.message, text(mapping(case.pod.get("metadata")).get("namespace"))
    where = f" in namespace {namespace}" if namespace else ""
    start = f"container {case.verdict.container} cannot be created{case.told}"
    if match := re.search(r'(secret|configmap) "?([\w.-]+)"? not found', message, re.IGNORECASE):
        return f"{start}; create the {match[1].lower()} {match[2]}{where}, or mark the reference optional: true"
    if match := re.search(r"find key (\S+) in (secret|configmap) (\S+)", message, re.IGNORECASE):
        return f"{start}; add the key {match[1]} to the {match[2].lower()} {match[3]}, or correct the reference"
    if "runAsNonRoot" in message:
        return f"{start}; set {case.author.user}"
    return f"{start}; mend what it names in {case.author.spec}"


def _not_started(case: _Case) -> str:
    if case.verdict.reason not in ("StartError", "ContainerCannotRun", "RunContainerError"):
        return ""
    return (
        f"the command of container {case.verdict.container} could not be started{case.told}; check "
        f"command, args and that the image has the program{case.author.program}"
    )


def _init_failed(case: _Case) -> str:
    failed = case.verdict.container
    report = _report(case, failed)
    if case.verdict.stage is not Stage.ENDED or report is None or report.kind is not Kind.INIT:
        return ""
    return (
        f"init container {failed} failed{_with_code(report)}{case.told}, so base was never started; read its log: "
        f"kubectl logs {case.name} -c {failed}"
    )


def _sidecar_fails(case: _Case) -> str:
    verdict = case.verdict
    report = _report(case, verdict.container)
    if verdict.reason != "CrashLoopBackOff" or report is None or report.kind is not Kind.NATIVE:
        return ""
    ended = _with_code(report.last) if report.last else ""
    return (
        f"sidecar {verdict.container} fails again and again{ended}{case.told}, so base is not started; read its log: "
        f"kubectl logs {case.name} -c {verdict.container} --previous"
    )


def _unschedulable(case: _Case) -> str:
    if case.verdict.reason == "SchedulingGated":
        return "the pod is held back by a scheduling gate (a queue such as Kueue's); it starts when the gate is lifted"
    if case.verdict.reason != "Unschedulable":
        return ""
    message = case.verdict.message
    mends = [
        mend.format(author=case.author) for pattern, mend in _SCHEDULING if re.search(pattern, message, re.IGNORECASE)
    ]
    return f"no node takes the pod{case.told}; {' or '.join(mends[:2]) or 'see what the scheduler names'}"


_SCHEDULING = (
    (r"Insufficient|Too many pods", "lower {author.requests}, or give the cluster more or larger nodes"),
    (r"untolerated taint", "{author.toleration}"),
    (r"node affinity|node selector|didn't match", "{author.placement}"),
    (r"persistentvolumeclaim|volume node affinity|PersistentVolume", "check the persistentVolumeClaim and its zone"),
)


def _held_up(case: _Case) -> str:
    """What only events tell: volumes and the pod's network."""
    if case.verdict.over or case.verdict.stage is Stage.RUNNING:
        return ""
    if message := case.event("FailedMount", "FailedAttachVolume"):
        return f"a volume cannot be mounted ({message}); create what it names, or correct {case.author.volume}"
    if message := case.event("FailedCreatePodSandBox", "NetworkNotReady"):
        return f"the pod's network cannot be set up ({message}); look at {case.node} and its network plug-in"
    return ""


def _base_ended(case: _Case) -> str:
    verdict = case.verdict
    report = _report(case, case.base)
    if (
        verdict.stage is not Stage.ENDED
        or verdict.container != case.base
        or verdict.exit_code is None
        or report is None
    ):
        return ""
    return (
        f"{case.base} ended{_with_code(report.last if report.exit_code is None and report.last else report)}{case.told}"
    )


def _gone(case: _Case) -> str:
    if case.verdict.stage is not Stage.GONE:
        return ""
    when = "while the task ran" if case.verdict.started else "before base started"
    return f"pod {case.name} was deleted {when}; see who did it in the cluster's audit log or events"


def _own_words(case: _Case) -> str:
    verdict = case.verdict
    about = f"container {verdict.container}" if verdict.container else f"pod {case.name}"
    if verdict.stage is Stage.WAITING:
        return f"{about} waits: {verdict.reason}{case.told}" if verdict.reason else ""
    seen = "" if verdict.container else "; Kubernetes tells nothing about base"
    return f"{about} failed: {verdict.reason or 'no reason given'}{case.told}{seen}"


_RULES: tuple[_Rule, ...] = (
    _out_of_memory,
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
    _own_words,
)

# --- rules for a refusal ----------------------------------------------------------------------------------------------

_REFUSALS: tuple[tuple[str, str], ...] = (
    (
        r"exceeded quota: (?P<quota>[^,]+)",
        "the ResourceQuota {quota} of the namespace is used up ({message}); wait until other pods end, or raise it",
    ),
    (
        r"failed quota: (?P<quota>[^:]+): must specify (?P<what>[^\"]+)",
        "the ResourceQuota {quota} wants every container to state {what}; set it in {author.resources}",
    ),
    (
        r"(maximum|minimum) (?P<what>\S+) usage per (Container|Pod)",
        "a LimitRange of the namespace refuses the pod ({message}); set {what} in {author.resources} within its bounds",
    ),
    (
        r"violates PodSecurity \"?(?P<level>[^\"]+)\"?",
        "the namespace's Pod Security level {level} refuses the pod ({message}); mend the securityContext it names",
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
        "the service account {name} does not exist; create it, or correct {author.service_account}",
    ),
    (
        r"no PriorityClass with name (?P<name>\S+) was found",
        "the PriorityClass {name} does not exist; create it, or correct {author.priority}",
    ),
    (
        r"namespace (?P<name>\S+) because it is being terminated",
        "namespace {name} is being deleted; use another, or wait and create it anew",
    ),
    (
        r"namespaces \"?(?P<name>[\w.-]+)\"? not found",
        "namespace {name} does not exist; create it, or correct {author.namespace}",
    ),
    (
        r"is invalid: (?P<field>[\w.\[\]]+): ",
        "the pod is not valid ({message}); correct {field} in {author.spec}",
    ),
)


def _report(case: _Case, name: str) -> ContainerReport | None:
    return next((report for report in containers(case.pod, case.base) if report.name == name), None)


def _with_code(report: ContainerReport) -> str:
    if report.exit_code is None:
        return ""
    meaning = exit_code_meaning(report.exit_code)
    return f" with exit code {report.exit_code}" + (f" ({meaning})" if meaning else "")


def _event_time(event: Mapping[str, Any]) -> str:
    series = mapping(event.get("series"))
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return max(text(time) for time in times)


def _short(words: str) -> str:
    line = " ".join(words.split()).rstrip(".;")
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
