"""Decides on which pods a reaper acts, the objections to the others, and the steps that it may take.

The names of a pod's containers never select it. Its namespace and label put it in scope, its main container is named or
the only one that is no sidecar, and every check of ``safety_checks`` must allow it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from crosswind.pods.fields import (
    annotations_of,
    as_pod,
    containers_of,
    labels_of,
    mapping,
    mappings,
    metadata_of,
    owners_of,
    spec_of,
    status_of,
    text,
)
from crosswind.pods.states import ContainerKind, ContainerReport, RuntimeState, container_reports
from crosswind.settings import ReapSettings
from crosswind.sidecars.catalog import KNOWN, KnownSidecar
from crosswind.sidecars.detection import is_injected
from crosswind.sidecars.safety_checks import (
    XCOM,
    ReapScope,
    in_namespaces,
    is_running,
    is_shutdown_target,
    spared_containers,
    timing_objections,
)
from crosswind.sidecars.shutdown_plan import ShutdownPlan, ShutdownStep, ShutdownTarget, StepKind
from crosswind.types import AnyPod, Container, ContainerStatus, Pod, PodEvent

__all__ = [
    "MAIN_CONTAINER",
    "SIDECAR_STAYS",
    "ReapDecision",
    "decide",
    "pause_before_retry",
    "recorded_steps",
    "restrict_plan",
    "resume_plan",
]

MAIN_CONTAINER = "crosswind/main-container"
"""Annotation on a pod that names the container which does the work."""

SIDECAR_STAYS = "SidecarStays"
"""Reason of the Event on a sidecar that no step ended."""


@dataclass(frozen=True, slots=True)
class ReapDecision:
    """The decision on a pod. ``main``: its main container, "" when that is unknown."""

    main: str
    never: tuple[str, ...] = ()
    """Objections that hold for as long as the pod is as it is."""
    not_yet: tuple[str, ...] = ()
    """Objections that may pass."""

    @property
    def act(self) -> bool:
        """Whether its sidecars are to be ended now."""
        return not self.never and not self.not_yet

    def __str__(self) -> str:
        return "; ".join((*self.never, *self.not_yet))


def decide(pod: AnyPod, scope: ReapSettings, known: Sequence[KnownSidecar] = KNOWN) -> ReapDecision:
    """Decide on a pod as it is now."""
    pod = as_pod(pod)
    # checked first, because most pods of a namespace have finished
    if not_running := is_running(pod, ""):
        return ReapDecision("", not_yet=(not_running,))
    main, objection = _main(pod, scope, known)
    checks = (in_namespaces(pod, scope.namespaces), is_airflows(pod, scope), own_network(pod), objection)
    never = tuple(filter(None, (*checks, restarts_itself(pod, main))))
    if not main or objection:
        return ReapDecision(main, never)
    return ReapDecision(main, never, tuple(_not_yet(pod, main, scope, known)))


def _not_yet(pod: Pod, main: str, scope: ReapSettings, known: Sequence[KnownSidecar]) -> Iterator[str]:
    yield from timing_objections(pod, main)
    spared = spared_containers(pod, _scope(scope, main), known)
    yield from (f"container {name} runs and may be a second worker" for name in spared)
    if debugged := is_debugged(pod):
        yield debugged
    if not spared and not any(_running(report) for report in container_reports(pod, main)):
        yield "no sidecar runs"


def is_airflows(pod: Pod, scope: ReapSettings) -> str:
    """Refuse the pods of Airflow's executor and operator, which end their own pods.

    A pod of a Job or another controller is not theirs, whatever its labels: ``KubernetesJobOperator`` puts the label of
    the pod operator on the pods of its Jobs.
    """
    labels, owners = labels_of(pod), owners_of(pod)
    executors = "airflow-worker" in labels or labels.get("kubernetes_executor") == "True"
    controlled = any(owner.get("controller") is True for owner in owners)
    operators = labels.get("kubernetes_pod_operator") == "True" and not controlled
    if scope.airflow or not (executors or operators):
        return ""
    return f"belongs to Airflow's {'executor' if executors else 'pod operator'}"


def own_network(pod: Pod) -> str:
    """Refuse a pod on the node's network, where a port may be another pod's."""
    shared = spec_of(pod).get("hostNetwork") is True
    return "uses its node's network: what listens there may be another pod's" if shared else ""


def restarts_itself(pod: Pod, main: str) -> str:
    """Refuse a main container with a restartPolicy of its own, which overrides the pod's (KEP-5307)."""
    container = next((item for item in containers_of(pod) if item.get("name") == main), Container())
    own = container.get("restartPolicyRules") or container.get("restartPolicy") not in (None, "Never")
    return f"container {main} has rules of its own for restarts" if own else ""


def is_debugged(pod: Pod) -> str:
    """Refuse a pod with a running debug (ephemeral) container: a user is inspecting it."""
    statuses: list[ContainerStatus] = mappings(status_of(pod).get("ephemeralContainerStatuses"))
    for status in statuses:
        if "terminated" not in mapping(status.get("state")):
            return f"debug container {status.get('name')} runs"
    return ""


def restrict_plan(
    plan: ShutdownPlan, pod: AnyPod, main: str, scope: ReapSettings, known: Sequence[KnownSidecar] = KNOWN
) -> ShutdownPlan:
    """Skip the steps after which a pod counts as failed although its main container succeeded: a Job would repeat it.

    A step with unknown exit code is taken only for a container that author or scope names. Under ``OnFailure`` such a
    step never helps, because the kubelet restarts a sidecar that ends with another code than 0.
    """
    pod = as_pod(pod)
    report = next((item for item in container_reports(pod, main) if item.kind is ContainerKind.BASE), None)
    never = spec_of(pod).get("restartPolicy") == "Never"
    if report is None or report.exit_code != 0 or (scope.may_fail and never):
        return plan
    injected = {text(item.get("name")) for item in containers_of(pod) if is_injected(pod, item, known)}

    def restricted(target: ShutdownTarget) -> ShutdownTarget:
        accepted = (0,) if target.container in injected else (0, None)
        steps = (step if step.exit_code in accepted else _skipped(step, never) for step in target.steps)
        return replace(target, steps=tuple(steps))

    groups = tuple(tuple(restricted(target) for target in group) for group in plan.groups)
    return replace(plan, groups=groups, last=_skipped(plan.last, never))


def recorded_steps(events: Iterable[PodEvent], now: datetime) -> dict[str, float]:
    """Return the steps that Events on a pod record, each with its age in seconds.

    The key is ``ShutdownStep.note``, or ``SIDECAR_STAYS``.
    """
    ages: dict[str, float] = {}
    for event in events:
        if mapping(event.get("source")).get("component") != "crosswind":
            continue
        note = SIDECAR_STAYS if event.get("reason") == SIDECAR_STAYS else text(event.get("message"))
        ages[note] = min(ages.get(note, float("inf")), _age(event, now))
    return ages


def resume_plan(plan: ShutdownPlan, notes: Mapping[str, float]) -> ShutdownPlan:
    """Replace steps that were taken already by a wait for the rest of their time.

    Those of a round that ended with a sidecar that stays are taken again.
    """
    round_ended = notes.get(SIDECAR_STAYS, float("inf"))
    notes = {note: age for note, age in notes.items() if age < round_ended}

    def resumed(target: ShutdownTarget) -> ShutdownTarget:
        steps = (_rest_of(step, notes.get(step.note(target.container)[:1024])) for step in target.steps)
        return replace(target, steps=tuple(steps))

    return replace(plan, groups=tuple(tuple(resumed(target) for target in group) for group in plan.groups))


def pause_before_retry(notes: Mapping[str, float], retry: float) -> float:
    """Return the seconds until the next attempt on a pod with a sidecar that no step ended."""
    return max(0.0, retry - notes.get(SIDECAR_STAYS, float("inf")))


def _rest_of(step: ShutdownStep, age: float | None) -> ShutdownStep:
    if age is None or step.skip:
        return step
    reason = f"{step} was done {age:.0f} s ago"
    return ShutdownStep(StepKind.WAIT, max(0.0, step.deadline - age), reason, exit_code=step.exit_code)


def _skipped(step: ShutdownStep, never: bool) -> ShutdownStep:
    why = "the pod would count as failed" if never else "the container would start again"
    return step if step.skip else replace(step, skip=f"{why} though its main container succeeded")


def _age(event: PodEvent, now: datetime) -> float:
    try:
        return max(0.0, (now - datetime.fromisoformat(event["lastTimestamp"])).total_seconds())
    except (KeyError, TypeError, ValueError):
        return 0.0


def _main(pod: Pod, scope: ReapSettings, known: Sequence[KnownSidecar]) -> tuple[str, str]:
    """Return a pod's main container, or the objection when it cannot be determined."""
    names = [text(container.get("name")) for container in containers_of(pod)]
    if named := annotations_of(pod).get(MAIN_CONTAINER) or scope.main:
        return named, "" if named in names else f"has no container {named}"
    open_scope, bare = _scope(scope, ""), _without_true(pod)
    candidates = [name for name in names if name != XCOM and not is_shutdown_target(bare, name, open_scope, known)]
    if len(candidates) == 1:
        return candidates[0], ""
    listed = f"containers {', '.join(candidates)} could be" if candidates else "no container is"
    return "", f"{listed} the main one; name it in the annotation {MAIN_CONTAINER}"


def _without_true(pod: Pod) -> Pod:
    """Return the pod without annotations of value ``true``.

    The annotation that selects all sidecars selects every container but the main one, so it does not identify that one.
    """
    annotations = {key: value for key, value in annotations_of(pod).items() if value != "true"}
    return {**pod, "metadata": {**metadata_of(pod), "annotations": annotations}}


def _scope(scope: ReapSettings, main: str) -> ReapScope:
    return ReapScope(frozenset(scope.namespaces), main, {}, scope.sidecars)


def _running(report: ContainerReport) -> bool:
    return report.kind is ContainerKind.ORDINARY and report.state is not RuntimeState.TERMINATED
