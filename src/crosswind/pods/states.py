"""The containers of a pod as the kubelet reports them, for any JSON."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import NamedTuple

from crosswind.pods.fields import (
    JSON_OBJECT,
    as_pod,
    container_state,
    container_statuses_of,
    is_native,
    mappings,
    number,
    spec_of,
    status_of,
    text,
)
from crosswind.types import AnyPod, Container, ContainerState, ContainerStatus, Pod

__all__ = [
    "ContainerKind",
    "ContainerReport",
    "RuntimeState",
    "base_report",
    "container_reports",
    "holding_containers",
    "running_containers",
]


class ContainerKind(enum.Enum):
    """The part that a container plays in its pod."""

    BASE = "base"
    ORDINARY = "ordinary"
    """A regular container beside base: the pod runs for as long as it does."""
    NATIVE = "native"
    """A native sidecar (KEP-753): the kubelet ends it after the last regular container."""
    INIT = "init"


class RuntimeState(enum.Enum):
    """The field of a container's ``state`` that is set; UNKNOWN when the kubelet reports none."""

    UNKNOWN = "unknown"
    WAITING = "waiting"
    RUNNING = "running"
    TERMINATED = "terminated"


_STATES = tuple((state, state.value) for state in (RuntimeState.TERMINATED, RuntimeState.RUNNING, RuntimeState.WAITING))


class ContainerReport(NamedTuple):
    """One container: its kind and its state.

    ``reason``, ``message``, ``exit_code`` and ``signal`` are those of ``state``. ``last`` is how the container ended
    before its restart, None if it was not restarted.
    """

    name: str
    kind: ContainerKind
    state: RuntimeState = RuntimeState.UNKNOWN
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    restarts: int = 0
    last: ContainerReport | None = None


def container_reports(pod: AnyPod, base: str) -> tuple[ContainerReport, ...]:
    """Return a report on each container of spec or status, init containers first; an init container is never base."""
    pod = as_pod(pod)
    spec, status = spec_of(pod), status_of(pod)
    return (
        *_section(mappings(spec.get("initContainers")), mappings(status.get("initContainerStatuses")), None),
        *_section(mappings(spec.get("containers")), mappings(status.get("containerStatuses")), base),
    )


def base_report(pod: Pod, base: str) -> ContainerReport:
    """Return the report on ``base`` alone, as ``container_reports`` has it; state UNKNOWN where the pod has no base."""
    statuses = [status for status in container_statuses_of(pod) if status.get("name") == base]
    return _report(base, ContainerKind.BASE, statuses[-1] if statuses else {})


def holding_containers(pod: AnyPod, base: str) -> tuple[str, ...]:
    """Return the ordinary containers beside ``base`` that have not ended: they keep the pod from finishing."""
    return tuple(
        report.name
        for report in container_reports(pod, base)
        if report.kind is ContainerKind.ORDINARY and report.state is not RuntimeState.TERMINATED
    )


def running_containers(pod: Pod, base: str) -> tuple[str, ...]:
    """Return the ordinary containers beside ``base`` that run."""
    if all(status.get("name") == base for status in container_statuses_of(pod)):
        return ()  # most pods have base alone, and a report on each container costs more
    return tuple(
        report.name
        for report in container_reports(pod, base)
        if report.kind is ContainerKind.ORDINARY and report.state is RuntimeState.RUNNING
    )


def _section(declared: list[Container], statuses: list[ContainerStatus], base: str | None) -> Iterator[ContainerReport]:
    """Pair specs and statuses by name; a status without a spec counts too."""
    if not (declared or statuses):
        return
    reported = {text(status.get("name")): status for status in statuses}
    kinds = {text(container.get("name")): _kind(container, base) for container in declared}
    for name in reported:
        if name not in kinds:
            kinds[name] = _kind({"name": name}, base)
    for name, kind in kinds.items():
        yield _report(name, kind, reported.get(name, {}))


def _kind(container: Container, base: str | None) -> ContainerKind:
    if base is None:
        return ContainerKind.NATIVE if is_native(container) else ContainerKind.INIT
    return ContainerKind.BASE if container.get("name") == base else ContainerKind.ORDINARY


def _report(name: str, kind: ContainerKind, status: ContainerStatus) -> ContainerReport:
    before = container_state(status.get("lastState"))
    last = _state_report(name, kind, before, 0, None) if before else None
    if last is not None and last.state is not RuntimeState.TERMINATED:
        last = None
    return _state_report(
        name, kind, container_state(status.get("state")), number(status.get("restartCount")) or 0, last
    )


def _state_report(
    name: str, kind: ContainerKind, present: ContainerState, restarts: int, last: ContainerReport | None
) -> ContainerReport:
    for state, field in _STATES:
        if isinstance(detail := present.get(field), JSON_OBJECT):
            return ContainerReport(
                name,
                kind,
                state,
                text(detail.get("reason")),
                text(detail.get("message")),
                number(detail.get("exitCode")),
                number(detail.get("signal")),
                restarts,
                last,
            )
    return ContainerReport(name, kind, restarts=restarts, last=last)
