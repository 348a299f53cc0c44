"""What to do next for a pod, from its spec and what was seen of its containers: no clock, no process, no await.

After ``computePodActions`` of Kubernetes 1.36 (``pkg/kubelet/kuberuntime/kuberuntime_manager.go``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kubelocal.types import Manifest

__all__ = [
    "ContainerEnd",
    "ContainerRecord",
    "ContainerStop",
    "PodActions",
    "Waiting",
    "all_containers",
    "is_restarted",
    "is_sidecar",
    "next_actions",
    "stop_after",
]


SIGKILL_EXIT_CODE = 137


@dataclass(frozen=True, slots=True)
class ContainerEnd:
    """How one run of a container ended; times in seconds since 1970."""

    code: int
    reason: str
    message: str
    started_at: float
    finished_at: float
    container_id: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container does not run."""

    reason: str
    message: str = ""


@dataclass(slots=True)
class ContainerRecord:
    """What was seen of one container; times in seconds since 1970.

    ``image``: as it was when the present run began. ``restarts``: runs before the present one. ``startup``: what the
    startup probe says, None while it says nothing yet. ``starting``: its postStart hook runs. ``not_before``: back-off.
    """

    state: Literal["none", "running", "ended"] = "none"
    image: str = ""
    container_id: str = ""
    started_at: float = 0.0
    ended: ContainerEnd | None = None
    last: ContainerEnd | None = None
    restarts: int = 0
    startup: bool | None = None
    ready: bool = False
    healthy: bool = True
    starting: bool = False
    waiting: Waiting | None = None
    not_before: float = 0.0

    @property
    def started(self) -> bool:
        """Whether it runs and its startup probe, if it has one, has succeeded."""
        return self.state == "running" and self.startup is True and not self.starting


@dataclass(frozen=True, slots=True)
class ContainerStop:
    """A container to end; ``probe`` is the kind of probe that failed, or ""."""

    name: str
    message: str
    probe: str = ""


@dataclass(frozen=True, slots=True)
class PodActions:
    """What to do: containers to end, then containers to start in this order; or ``finish``: end the pod."""

    start: tuple[str, ...] = ()
    kill: tuple[ContainerStop, ...] = ()
    finish: bool = False


@dataclass(slots=True)
class _DraftActions:
    start: list[str] = field(default_factory=list)
    kill: list[ContainerStop] = field(default_factory=list)


def all_containers(pod: Manifest) -> dict[str, Manifest]:
    """Return init, regular and ephemeral containers by name, in this order."""
    spec = pod["spec"]
    kinds = ("initContainers", "containers", "ephemeralContainers")
    return {container["name"]: container for kind in kinds for container in spec.get(kind) or ()}


def is_sidecar(container: Manifest) -> bool:
    """Whether an init container is a native sidecar (KEP-753)."""
    return container.get("restartPolicy") == "Always"


def stop_after(pod: Manifest, name: str) -> list[str]:
    """Return the containers that must end before this one is stopped: those that a native sidecar serves.

    Native sidecars end in reverse order, after all others (KEP-753, "Termination of containers").
    """
    sidecars = [container["name"] for container in pod["spec"].get("initContainers") or () if is_sidecar(container)]
    if name not in sidecars:
        return []
    others = [other for other in all_containers(pod) if other not in sidecars]
    return others + sidecars[sidecars.index(name) + 1 :]


def is_restarted(pod: Manifest, container: Manifest, code: int) -> bool:
    """Whether a container that ended with this code starts again: by its own rules and policy, else by the pod's.

    After ``ContainerShouldRestart`` (KEP-5307, container restart rules).
    """
    policy = container.get("restartPolicy")
    if policy and any(_applies(rule, code) for rule in container.get("restartPolicyRules") or ()):
        return True
    policy = policy or pod["spec"].get("restartPolicy", "Always")
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def _applies(rule: Manifest, code: int) -> bool:
    codes = rule.get("exitCodes") or {}
    listed = code in (codes.get("values") or ())
    return rule.get("action") == "Restart" and listed == (codes.get("operator") == "In")


def next_actions(pod: Manifest, records: Mapping[str, ContainerRecord]) -> PodActions:
    """Decide what to start and what to end. ``records`` holds every container of the pod.

    Back-off is ignored: the caller waits for ``ContainerRecord.not_before`` before a start.
    """
    draft = _DraftActions()
    for container in pod["spec"].get("ephemeralContainers") or ():
        if records[container["name"]].state == "none":
            draft.start.append(container["name"])
    initialized = _init_actions(pod, records, draft)
    if initialized is None:
        return PodActions(finish=True)
    if not initialized:
        return PodActions(tuple(draft.start), tuple(draft.kill))
    sidecars, draft.start = draft.start, []
    kept = [_keep(pod, container, records[container["name"]], draft) for container in pod["spec"]["containers"]]
    if not any(kept) and not draft.start:
        return PodActions(finish=True)
    return PodActions((*sidecars, *draft.start), tuple(draft.kill))


def _init_actions(pod: Manifest, records: Mapping[str, ContainerRecord], draft: _DraftActions) -> bool | None:
    """Whether the regular containers may run; None when they never will."""
    inits = pod["spec"].get("initContainers") or []
    has_started = any(records[container["name"]].state != "none" for container in pod["spec"]["containers"])
    for number, container in enumerate(inits):
        sight = records[container["name"]]
        passed = has_started or any(records[later["name"]].state != "none" for later in inits[number + 1 :])
        if is_sidecar(container):
            if not _sidecar_passes(container, sight, draft) and not passed:
                return False
        elif not has_started and not (sight.state == "ended" and sight.ended and sight.ended.code == 0):
            return _init_passes(pod, container, sight, draft)
    return True


def _sidecar_passes(container: Manifest, sight: ContainerRecord, draft: _DraftActions) -> bool:
    name = container["name"]
    if sight.state != "running":
        draft.start.append(name)
        return False
    failed = _failed_probe(sight)
    if failed:
        draft.kill.append(ContainerStop(name, f"Init container {name} failed {failed} probe", failed))
        draft.start.append(name)
    elif container["image"] != sight.image:
        draft.kill.append(ContainerStop(name, f"Container {name} definition changed, will be restarted"))
        draft.start.append(name)
    return sight.started and not failed


def _failed_probe(sight: ContainerRecord) -> str:
    return "startup" if sight.startup is False else "liveness" if not sight.healthy else ""


def _code(sight: ContainerRecord) -> int:
    return SIGKILL_EXIT_CODE if sight.ended is None else sight.ended.code


def _init_passes(pod: Manifest, container: Manifest, sight: ContainerRecord, draft: _DraftActions) -> bool | None:
    if sight.state == "ended" and not is_restarted(pod, container, _code(sight)):
        return None
    if sight.state != "running":
        draft.start.append(container["name"])
    return False


def _keep(pod: Manifest, container: Manifest, sight: ContainerRecord, draft: _DraftActions) -> bool:
    """Return whether a regular container keeps running unchanged; else add its action to the draft."""
    name = container["name"]
    if sight.state != "running":
        if sight.state == "none" or is_restarted(pod, container, _code(sight)):
            draft.start.append(name)
        return False
    changed = container["image"] != sight.image
    failed_probe = _failed_probe(sight)
    if not changed and not failed_probe:
        return True
    message = f"Container {name} definition changed" if changed else f"Container {name} failed {failed_probe} probe"
    if changed or is_restarted(pod, container, SIGKILL_EXIT_CODE):
        message += ", will be restarted"
        draft.start.append(name)
    draft.kill.append(ContainerStop(name, message, "" if changed else failed_probe))
    # killed and not restarted, it is looked at again when it has ended
    return name not in draft.start
