"""A pod's containers as the kubelet reports them, read without trust: any JSON gives an answer, none an exception."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from crosswind.pods.sidecars import is_native
from crosswind.types import Json

__all__ = ["ContainerReport", "Kind", "State", "containers", "held_by", "mapping", "mappings", "number", "text"]


class Kind(enum.Enum):
    """What a container is in its pod."""

    BASE = "base"
    ORDINARY = "ordinary"
    """A regular container beside base."""
    NATIVE = "native"
    """A native sidecar."""
    INIT = "init"


class State(enum.Enum):
    """The container's own state; UNKNOWN when the kubelet reports none."""

    UNKNOWN = "unknown"
    WAITING = "waiting"
    RUNNING = "running"
    TERMINATED = "terminated"


_STATES = tuple((state, state.value) for state in (State.TERMINATED, State.RUNNING, State.WAITING))


class ContainerReport(NamedTuple):
    """One container: what it is and how it is.

    ``reason``, ``message``, ``exit_code`` and ``signal`` are those of ``state``; ``last`` is how it ended before its
    restart, if it was restarted.
    """

    name: str
    kind: Kind
    state: State = State.UNKNOWN
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    restarts: int = 0
    last: ContainerReport | None = None


_MAPPING, _LIST = (dict, Mapping), (list, tuple)
"""Most mappings are dicts, and found to be at once. Made once: a pod is judged at each of its changes."""


def mapping(value: Json) -> Mapping[str, Any]:
    """Return ``value`` if it is a mapping, else an empty one."""
    return value if isinstance(value, _MAPPING) else {}


def mappings(value: Json) -> list[Mapping[str, Any]]:
    """Return the mappings in ``value`` if it is a list, else none."""
    return [item for item in value if isinstance(item, _MAPPING)] if isinstance(value, _LIST) else []


def text(value: Json) -> str:
    """Return ``value`` if it is text, else ""."""
    return value if isinstance(value, str) else ""


def number(value: Json) -> int | None:
    """Return ``value`` if it is a whole number, else None."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def containers(pod: Json, base: str) -> tuple[ContainerReport, ...]:
    """Return a report on each container of spec or status, init containers first; an init container is never base."""
    spec, status = mapping(mapping(pod).get("spec")), mapping(mapping(pod).get("status"))
    return (
        *_section(mappings(spec.get("initContainers")), mappings(status.get("initContainerStatuses")), None),
        *_section(mappings(spec.get("containers")), mappings(status.get("containerStatuses")), base),
    )


def held_by(pod: Json, base: str) -> tuple[str, ...]:
    """Return the ordinary containers beside ``base`` that have not ended: they keep the pod from its end."""
    reports = containers(pod, base)
    return tuple(one.name for one in reports if one.kind is Kind.ORDINARY and one.state is not State.TERMINATED)


def _section(
    declared: list[Mapping[str, Any]], statuses: list[Mapping[str, Any]], base: str | None
) -> Iterator[ContainerReport]:
    """Pair specs and statuses by name; a status without a spec counts too."""
    if not (declared or statuses):
        return
    reported = {text(status.get("name")): status for status in statuses}
    kinds = {text(container.get("name")): _kind(container, base) for container in declared}
    for name in reported:
        kinds.setdefault(name, _kind({"name": name}, base))
    for name, kind in kinds.items():
        yield _report(name, kind, reported.get(name, {}))


def _kind(container: Mapping[str, Any], base: str | None) -> Kind:
    if base is None:
        return Kind.NATIVE if is_native(container) else Kind.INIT
    return Kind.BASE if container.get("name") == base else Kind.ORDINARY


def _report(name: str, kind: Kind, status: Mapping[str, Any]) -> ContainerReport:
    before = mapping(status.get("lastState"))
    last = _state_report(name, kind, before, 0, None) if before else None
    if last is not None and last.state is not State.TERMINATED:
        last = None
    return _state_report(name, kind, mapping(status.get("state")), number(status.get("restartCount")) or 0, last)


def _state_report(
    name: str, kind: Kind, state: Mapping[str, Any], restarts: int, last: ContainerReport | None
) -> ContainerReport:
    for which, field in _STATES:
        if isinstance(detail := state.get(field), _MAPPING):
            return ContainerReport(
                name,
                kind,
                which,
                text(detail.get("reason")),
                text(detail.get("message")),
                number(detail.get("exitCode")),
                number(detail.get("signal")),
                restarts,
                last,
            )
    return ContainerReport(name, kind, restarts=restarts, last=last)
