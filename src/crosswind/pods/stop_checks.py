"""May a pod be touched? The safety checks before each action, one predicate each: "" for yes, else the objection.

For pods of others (a reaper's) all of ``objections``; the executor and the operator know their own pods and need those
of ``moment`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from crosswind.pods.known_sidecars import KNOWN, KnownSidecar
from crosswind.pods.recognising import is_injected
from crosswind.pods.states import ContainerReport, Kind, State, containers, mapping, mappings, text
from crosswind.types import Json

__all__ = ["XCOM", "Scope", "is_meant", "moment", "objections", "spared"]

XCOM = "airflow-xcom-sidecar"
"""Stock's KubernetesPodOperator reads a task's result from this container."""

AIRFLOW = MappingProxyType({"kubernetes_executor": "True", "kubernetes_pod_operator": "True"})


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose pods may be touched."""

    namespaces: frozenset[str]
    main: str = "base"
    """The container that does the work, by name."""
    labels: Mapping[str, str] = field(default_factory=lambda: AIRFLOW)
    """A pod has at least one of these; none: any pod."""
    containers: frozenset[str] = frozenset()
    """Names of containers that are sidecars although no injector is known for them."""
    annotation: str = "crosswind/end-sidecars"
    """On a pod, its author's word: ``"true"``, or names of containers with commas between."""


def objections(pod: Json, scope: Scope) -> list[str]:
    """Return all that speaks against touching a pod of somebody else."""
    ours = [in_namespaces(pod, scope.namespaces), has_label(pod, scope.labels)]
    return [told for told in (*ours, *moment(pod, scope.main)) if told]


def moment(pod: Json, main: str = "base", *, own: bool = False) -> Iterator[str]:
    """Yield what speaks against ending a pod's sidecars now; of an ``own`` pod we know whether its result is read."""
    checks: list[Callable[[Json, str], str]] = [main_is_over, inits_are_done, is_running, restart_allows]
    checks += [] if own else [xcom_is_read]
    yield from (told for check in checks if (told := check(pod, main)))


def in_namespaces(pod: Json, namespaces: Collection[str]) -> str:
    """Only namespaces that are listed."""
    found = text(mapping(mapping(pod).get("metadata")).get("namespace"))
    return "" if found in namespaces else f"namespace {found} is not listed"


def has_label(pod: Json, labels: Mapping[str, str]) -> str:
    """Only pods that carry one of the labels."""
    found = mapping(mapping(mapping(pod).get("metadata")).get("labels"))
    if not labels or any(found.get(key) == value for key, value in labels.items()):
        return ""
    return f"has none of the labels {', '.join(f'{key}={value}' for key, value in labels.items())}"


def main_is_over(pod: Json, main: str) -> str:
    """The main container, found by name, has ended for good: its last end, before a restart, does not count."""
    found = _main(pod, main)
    if found is None:
        return f"has no container {main}"
    return "" if found.state is State.TERMINATED else f"container {main} is {found.state.value}"


def inits_are_done(pod: Json, main: str) -> str:
    """All init containers but native sidecars have ended with 0."""
    for report in containers(pod, main):
        if report.kind is Kind.INIT and (report.state is not State.TERMINATED or report.exit_code != 0):
            return f"init container {report.name} is not done"
    return ""


def is_running(pod: Json, main: str) -> str:
    """The pod is Running and nobody deletes it."""
    if mapping(mapping(pod).get("metadata")).get("deletionTimestamp"):
        return "is being deleted"
    phase = text(mapping(mapping(pod).get("status")).get("phase"))
    return "" if phase == "Running" else f"phase is {phase or 'unknown'}"


def restart_allows(pod: Json, main: str) -> str:
    """``Never``; ``OnFailure`` after a success, since a failed main container starts again; ``Always`` never."""
    policy = text(mapping(mapping(pod).get("spec")).get("restartPolicy")) or "Always"
    found = _main(pod, main)
    if policy == "Never" or (policy == "OnFailure" and found is not None and found.exit_code == 0):
        return ""
    return f"restartPolicy is {policy}: container {main} starts again"


def xcom_is_read(pod: Json, main: str) -> str:
    """Stock's operator has read the result, if it takes one from a sidecar."""
    waiting = any(report.name == XCOM and report.state is not State.TERMINATED for report in containers(pod, main))
    return f"{XCOM} still holds the task's result" if waiting else ""


def is_meant(pod: Json, name: str, scope: Scope, known: Sequence[KnownSidecar] = KNOWN) -> bool:
    """Tell whether a container is a sidecar to end: injected by a known product, or named by author or scope.

    What a DAG's author wrote beside the main container may be a second worker.
    """
    container = next((one for one in _declared(pod) if one.get("name") == name), {})
    annotations = mapping(mapping(mapping(pod).get("metadata")).get("annotations"))
    word = text(annotations.get(scope.annotation))
    named = {part.strip() for part in word.split(",")}
    opted = word == "true" or name in named or name in scope.containers
    return name != scope.main and (opted or is_injected(mapping(pod), container, known))


def spared(pod: Json, scope: Scope, known: Sequence[KnownSidecar] = KNOWN) -> tuple[str, ...]:
    """Return the running containers that must not be ended; while there is one the pod cannot finish."""
    return tuple(
        report.name
        for report in containers(pod, scope.main)
        if report.kind is Kind.ORDINARY
        and report.state is not State.TERMINATED
        and not is_meant(pod, report.name, scope, known)
    )


def _main(pod: Json, main: str) -> ContainerReport | None:
    return next((report for report in containers(pod, main) if report.kind is Kind.BASE), None)


def _declared(pod: Json) -> list[Mapping[str, Json]]:
    return mappings(mapping(mapping(pod).get("spec")).get("containers"))
