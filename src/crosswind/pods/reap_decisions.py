"""Which pods of others a reaper ends, what speaks against the rest, and which steps it may take. Pure.

A pod is never chosen for what its containers are called: its namespace and label put it in scope, its main container is
named or the only one that is no sidecar, and every check of ``stop_checks`` must agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from crosswind.pods.known_sidecars import KNOWN, KnownSidecar
from crosswind.pods.recognising import is_injected
from crosswind.pods.states import ContainerReport, Kind, State, containers, mapping, mappings, text
from crosswind.pods.stop_checks import XCOM, Scope, in_namespaces, is_meant, is_running, moment, spared
from crosswind.pods.stop_plans import Step, StopPlan, Target, Way
from crosswind.settings import ReapSettings
from crosswind.types import Json, Manifest

__all__ = ["MAIN", "STAYS", "Decision", "careful", "decide", "rest", "resumed", "taken"]

MAIN = "crosswind/main-container"
"""Annotation of a pod: the container that does the work."""

STAYS = "SidecarStays"
"""Reason of the Event that says that nothing helped."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided on a pod. ``main``: its main container, "" when that is not known."""

    main: str
    never: tuple[str, ...] = ()
    """What speaks against it as it is."""
    not_yet: tuple[str, ...] = ()
    """What speaks against this moment."""

    @property
    def act(self) -> bool:
        """Whether its sidecars are to be ended now."""
        return not self.never and not self.not_yet

    def __str__(self) -> str:
        return "; ".join((*self.never, *self.not_yet))


def decide(pod: Manifest, scope: ReapSettings, known: Sequence[KnownSidecar] = KNOWN) -> Decision:
    """Decide on a pod as it is now."""
    if told := is_running(pod, ""):  # first, for most pods of a namespace have finished
        return Decision("", not_yet=(told,))
    main, objection = _main(pod, scope, known)
    checks = (in_namespaces(pod, scope.namespaces), is_airflows(pod, scope), own_network(pod), objection)
    never = tuple(filter(None, (*checks, restarts_itself(pod, main))))
    if not main or objection:
        return Decision(main, never)
    return Decision(main, never, tuple(_not_yet(pod, main, scope, known)))


def _not_yet(pod: Manifest, main: str, scope: ReapSettings, known: Sequence[KnownSidecar]) -> Iterator[str]:
    yield from moment(pod, main)
    second = spared(pod, _scope(scope, main), known)
    yield from (f"container {name} runs and may be a second worker" for name in second)
    if told := is_debugged(pod):
        yield told
    if not second and not any(_running(report) for report in containers(pod, main)):
        yield "no sidecar runs"


def is_airflows(pod: Manifest, scope: ReapSettings) -> str:
    """Airflow's executor and operator end their own pods; what a Job or another controller made is not theirs.

    ``KubernetesJobOperator`` puts the label of the pod operator on the pods of its Jobs.
    """
    labels, owners = _metadata(pod, "labels"), mappings(mapping(pod.get("metadata")).get("ownerReferences"))
    executors = "airflow-worker" in labels or labels.get("kubernetes_executor") == "True"
    controlled = any(one.get("controller") is True for one in owners)
    operators = labels.get("kubernetes_pod_operator") == "True" and not controlled
    if scope.airflow or not (executors or operators):
        return ""
    return f"belongs to Airflow's {'executor' if executors else 'pod operator'}"


def own_network(pod: Manifest) -> str:
    """On the node's network a port may be another pod's."""
    shared = mapping(pod.get("spec")).get("hostNetwork") is True
    return "uses its node's network: what listens there may be another pod's" if shared else ""


def restarts_itself(pod: Manifest, main: str) -> str:
    """A container's own restartPolicy counts before its pod's (KEP-5307)."""
    found = next((one for one in _declared(pod) if one.get("name") == main), {})
    own = found.get("restartPolicyRules") or found.get("restartPolicy") not in (None, "Never")
    return f"container {main} has rules of its own for restarts" if own else ""


def is_debugged(pod: Manifest) -> str:
    """A debug (ephemeral) container runs: somebody looks at the pod, which would end under their hands."""
    for status in mappings(mapping(pod.get("status")).get("ephemeralContainerStatuses")):
        if "terminated" not in mapping(status.get("state")):
            return f"debug container {status.get('name')} runs"
    return ""


def careful(
    plan: StopPlan, pod: Manifest, main: str, scope: ReapSettings, known: Sequence[KnownSidecar] = KNOWN
) -> StopPlan:
    """Leave out the steps after which a pod counts as failed though its main container succeeded: a Job runs it again.

    A step with unknown exit code is left to those who name the container. Under ``OnFailure`` a sidecar that ends with
    another code than 0 starts again, whatever is allowed.
    """
    report = next((one for one in containers(pod, main) if one.kind is Kind.BASE), None)
    never = mapping(pod.get("spec")).get("restartPolicy") == "Never"
    if report is None or report.exit_code != 0 or (scope.may_fail and never):
        return plan
    surely = {text(one.get("name")) for one in _declared(pod) if is_injected(pod, one, known)}

    def chosen(target: Target) -> Target:
        unknown = () if target.container in surely else (None,)
        steps = (one if one.exit_code in (0, *unknown) else _skipped(one, never) for one in target.steps)
        return replace(target, steps=tuple(steps))

    groups = tuple(tuple(chosen(target) for target in group) for group in plan.groups)
    return replace(plan, groups=groups, last=_skipped(plan.last, never))


def taken(events: Iterable[Manifest], now: datetime) -> dict[str, float]:
    """Return what Events on a pod say was done, with its age in seconds: ``Step.note``, or ``STAYS``."""
    found: dict[str, float] = {}
    for event in events:
        if mapping(event.get("source")).get("component") != "crosswind":
            continue
        note = STAYS if event.get("reason") == STAYS else text(event.get("message"))
        found[note] = min(found.get(note, float("inf")), _age(event, now))
    return found


def resumed(plan: StopPlan, notes: Mapping[str, float]) -> StopPlan:
    """Let steps that were taken already only have the rest of their time."""

    def left(target: Target) -> Target:
        return replace(
            target, steps=tuple(_left(step, notes.get(step.note(target.container)[:1024])) for step in target.steps)
        )

    return replace(plan, groups=tuple(tuple(left(target) for target in group) for group in plan.groups))


def rest(notes: Mapping[str, float], retry: float) -> float:
    """Return the seconds until a pod whose sidecars stayed is tried again."""
    return max(0.0, retry - notes.get(STAYS, float("inf")))


def _left(step: Step, age: float | None) -> Step:
    if age is None or step.skip:
        return step
    told = f"{step} was done {age:.0f} s ago"
    return Step(Way.WAIT, max(0.0, step.deadline - age), told, exit_code=step.exit_code)


def _skipped(step: Step, never: bool) -> Step:
    why = "the pod would count as failed" if never else "the container would start again"
    return step if step.skip else replace(step, skip=f"{why} though its main container succeeded")


def _age(event: Manifest, now: datetime) -> float:
    try:
        return max(0.0, (now - datetime.fromisoformat(event["lastTimestamp"])).total_seconds())
    except (KeyError, TypeError, ValueError):
        return 0.0


def _main(pod: Manifest, scope: ReapSettings, known: Sequence[KnownSidecar]) -> tuple[str, str]:
    """Return a pod's main container, or why it cannot be told."""
    names = [text(one.get("name")) for one in _declared(pod)]
    if named := _metadata(pod, "annotations").get(MAIN) or scope.main:
        return named, "" if named in names else f"has no container {named}"
    open_scope, bare = _scope(scope, ""), _without_true(pod)
    left = [name for name in names if name != XCOM and not is_meant(bare, name, open_scope, known)]
    if len(left) == 1:
        return left[0], ""
    listed = f"containers {', '.join(left)} could be" if left else "no container is"
    return "", f"{listed} the main one: name it by annotation {MAIN}"


def _without_true(pod: Manifest) -> Manifest:
    """All sidecars, as an annotation may say, are all but the main one: that says nothing of which it is."""
    annotations = {key: word for key, word in _metadata(pod, "annotations").items() if word != "true"}
    return {**pod, "metadata": {**mapping(pod.get("metadata")), "annotations": annotations}}


def _scope(scope: ReapSettings, main: str) -> Scope:
    return Scope(frozenset(scope.namespaces), main, {}, scope.sidecars)


def _running(report: ContainerReport) -> bool:
    return report.kind is Kind.ORDINARY and report.state is not State.TERMINATED


def _declared(pod: Manifest) -> list[Mapping[str, Json]]:
    return mappings(mapping(pod.get("spec")).get("containers"))


def _metadata(pod: Manifest, field: str) -> Mapping[str, Json]:
    return mapping(mapping(pod.get("metadata")).get(field))
