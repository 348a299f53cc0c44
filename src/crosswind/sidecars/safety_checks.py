"""Safety checks before a pod's sidecars are ended, one predicate each: "" allows it, other text is the objection.

A reaper checks other people's pods by all of ``objections``. The executor and the operator know their own pods and
check only those of ``timing_objections``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from crosswind.pods.fields import (
    annotations_of,
    as_pod,
    containers_of,
    labels_of,
    metadata_of,
    spec_of,
    status_of,
    text,
)
from crosswind.pods.states import ContainerKind, ContainerReport, RuntimeState, container_reports
from crosswind.sidecars.catalog import KNOWN, KnownSidecar
from crosswind.sidecars.detection import is_injected
from crosswind.types import AnyPod, Container, Pod

__all__ = ["XCOM", "ReapScope", "is_shutdown_target", "objections", "spared_containers", "timing_objections"]

XCOM = "airflow-xcom-sidecar"
"""The container from which stock's KubernetesPodOperator reads a task's result."""

AIRFLOW_LABELS = MappingProxyType({"kubernetes_executor": "True", "kubernetes_pod_operator": "True"})


@dataclass(frozen=True, slots=True)
class ReapScope:
    """The pods that may be touched."""

    namespaces: frozenset[str]
    main: str = "base"
    """Name of the container that does the work."""
    labels: Mapping[str, str] = field(default_factory=lambda: AIRFLOW_LABELS)
    """A pod has at least one of these labels; an empty mapping allows every pod."""
    containers: frozenset[str] = frozenset()
    """Names of containers that are sidecars although no injector is known for them."""
    annotation: str = "crosswind/end-sidecars"
    """On a pod, its author's choice: ``"true"``, or names of containers, separated by commas."""


def objections(pod: AnyPod, scope: ReapScope) -> list[str]:
    """Return every objection to touching a pod that has another owner."""
    pod = as_pod(pod)
    scope_checks = [in_namespaces(pod, scope.namespaces), has_label(pod, scope.labels)]
    return [objection for objection in (*scope_checks, *timing_objections(pod, scope.main)) if objection]


def timing_objections(pod: AnyPod, main: str = "base", *, own: bool = False) -> Iterator[str]:
    """Yield the objections to ending a pod's sidecars now. ``own``: the caller knows that the pod's XCom was read."""
    pod = as_pod(pod)
    checks: list[Callable[[Pod, str], str]] = [main_is_over, inits_are_done, is_running, restart_allows]
    checks += [] if own else [xcom_is_read]
    yield from (objection for check in checks if (objection := check(pod, main)))


def in_namespaces(pod: Pod, namespaces: Collection[str]) -> str:
    """Allow only the listed namespaces."""
    namespace = text(metadata_of(pod).get("namespace"))
    return "" if namespace in namespaces else f"namespace {namespace} is not listed"


def has_label(pod: Pod, labels: Mapping[str, str]) -> str:
    """Allow only pods that carry one of the labels."""
    present = labels_of(pod)
    if not labels or any(present.get(key) == value for key, value in labels.items()):
        return ""
    return f"has none of the labels {', '.join(f'{key}={value}' for key, value in labels.items())}"


def main_is_over(pod: Pod, main: str) -> str:
    """Allow a pod whose main container has ended for good: an end before a restart does not count."""
    report = _main(pod, main)
    if report is None:
        return f"has no container {main}"
    return "" if report.state is RuntimeState.TERMINATED else f"container {main} is {report.state.value}"


def inits_are_done(pod: Pod, main: str) -> str:
    """Allow a pod whose init containers, native sidecars aside, have ended with 0."""
    for report in container_reports(pod, main):
        if report.kind is ContainerKind.INIT and (report.state is not RuntimeState.TERMINATED or report.exit_code != 0):
            return f"init container {report.name} is not done"
    return ""


def is_running(pod: Pod, main: str) -> str:
    """Allow a pod in phase Running whose deletion nobody requested."""
    if metadata_of(pod).get("deletionTimestamp"):
        return "is being deleted"
    phase = text(status_of(pod).get("phase"))
    return "" if phase == "Running" else f"phase is {phase or 'unknown'}"


def restart_allows(pod: Pod, main: str) -> str:
    """Allow ``Never``, and ``OnFailure`` after a success; otherwise the kubelet starts the main container again."""
    policy = text(spec_of(pod).get("restartPolicy")) or "Always"
    report = _main(pod, main)
    if policy == "Never" or (policy == "OnFailure" and report is not None and report.exit_code == 0):
        return ""
    return f"restartPolicy is {policy}: container {main} starts again"


def xcom_is_read(pod: Pod, main: str) -> str:
    """Allow a pod from which stock's operator has read the result, if it reads one from a sidecar."""
    waiting = any(
        report.name == XCOM and report.state is not RuntimeState.TERMINATED for report in container_reports(pod, main)
    )
    return f"{XCOM} still holds the task's result" if waiting else ""


def is_shutdown_target(pod: AnyPod, name: str, scope: ReapScope, known: Sequence[KnownSidecar] = KNOWN) -> bool:
    """Return whether a container is a sidecar to end: a known product injected it, or the author or scope names it.

    A container that a DAG's author wrote beside the main one may be a second worker.
    """
    pod = as_pod(pod)
    container = next((item for item in containers_of(pod) if item.get("name") == name), Container())
    choice = text(annotations_of(pod).get(scope.annotation))
    named = {part.strip() for part in choice.split(",")}
    chosen = choice == "true" or name in named or name in scope.containers
    return name != scope.main and (chosen or is_injected(pod, container, known))


def spared_containers(pod: AnyPod, scope: ReapScope, known: Sequence[KnownSidecar] = KNOWN) -> tuple[str, ...]:
    """Return the running containers that must not be ended; while there is one the pod cannot finish."""
    return tuple(
        report.name
        for report in container_reports(pod, scope.main)
        if report.kind is ContainerKind.ORDINARY
        and report.state is not RuntimeState.TERMINATED
        and not is_shutdown_target(pod, report.name, scope, known)
    )


def _main(pod: Pod, main: str) -> ContainerReport | None:
    return next((report for report in container_reports(pod, main) if report.kind is ContainerKind.BASE), None)
