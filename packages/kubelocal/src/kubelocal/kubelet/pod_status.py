"""A pod's status from its spec and what was seen of its containers: phase, conditions, container statuses. Pure.

After ``pkg/kubelet/kubelet_pods.go`` (``getPhase``, ``generateAPIPodStatus``) and ``pkg/kubelet/status/generate.go`` of
Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from kubelocal.kubelet.pod_actions import ContainerEnd, ContainerRecord, Waiting, all_containers, is_sidecar
from kubelocal.types import Json, Manifest

__all__ = ["CONTAINER_LOST_MESSAGE", "Outlook", "conditions", "phase_of", "pod_status", "written_time"]

CONTAINER_LOST_MESSAGE = "The container could not be located when the pod was terminated"
CONTAINER_ID = "crosswind://"
POD_MESSAGE_BYTES = 12288
"""What the termination messages of a pod share, so that its status stays small: each container an equal part."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """The pod-level state in addition to the containers; times in seconds since 1970.

    ``over``: every container has ended and none will start again. ``phase``, ``reason``, ``message``: set when
    something other than the containers decides, such as a deadline.
    """

    now: float
    start_time: float
    host_ip: str
    pod_ip: str = ""
    sandbox: bool = False
    over: bool = False
    phase: str = ""
    reason: str = ""
    message: str = ""
    disruption: str = ""


def written_time(moment: float) -> str:
    """Write seconds since 1970 as the API does."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod_status(pod: Manifest, records: Mapping[str, ContainerRecord], outlook: Outlook) -> Manifest:
    """Return the whole status that the kubelet reports; conditions and fields of others are kept."""
    old = pod.get("status", {})
    records = (
        settled(pod, records, outlook.now) if outlook.over else {name: shown(sight) for name, sight in records.items()}
    )
    phase = outlook.phase or phase_of(pod, records, over=outlook.over)
    status: Manifest = {key: value for key, value in old.items() if key not in ("phase", "reason", "message")}
    status["phase"] = phase
    status |= {key: text for key in ("reason", "message") if (text := getattr(outlook, key))}
    status |= {"hostIP": outlook.host_ip, "hostIPs": [{"ip": outlook.host_ip}]}
    if outlook.pod_ip:
        status |= {"podIP": outlook.pod_ip, "podIPs": [{"ip": outlook.pod_ip}]}
    status["startTime"] = written_time(outlook.start_time)
    if "generation" in pod["metadata"]:
        status["observedGeneration"] = pod["metadata"]["generation"]
    status |= _container_statuses(pod, records)
    status["conditions"] = merged(old.get("conditions") or [], conditions(pod, records, outlook, phase), outlook.now)
    return status


def _container_statuses(pod: Manifest, records: Mapping[str, ContainerRecord]) -> Manifest:
    kinds = {
        "initContainerStatuses": "initContainers",
        "containerStatuses": "containers",
        "ephemeralContainerStatuses": "ephemeralContainers",
    }
    return {
        key: [container_status(pod, container, records[container["name"]], kind) for container in containers]
        for key, kind in kinds.items()
        if (containers := pod["spec"].get(kind))
    }


def shown(sight: ContainerRecord) -> ContainerRecord:
    """A container does not count as running before its postStart hook has ended."""
    if not sight.starting:
        return sight
    if sight.last is None:
        return ContainerRecord()
    return replace(sight, state="ended", ended=sight.last, waiting=Waiting("ContainerCreating"))


def settled(pod: Manifest, records: Mapping[str, ContainerRecord], now: float) -> dict[str, ContainerRecord]:
    """Of a pod that is over, count as lost what waits for another start (``TerminatePod`` of the status manager).

    Also what runs as far as is known: its end was not seen, because the work of its pod has failed.
    """
    has_started = any(records[container["name"]].state != "none" for container in pod["spec"]["containers"])
    result = {name: _unseen(sight, now) if sight.state == "running" else sight for name, sight in records.items()}
    for container in pod["spec"]["containers"]:
        sight = records[container["name"]]
        if has_started and sight.state == "none":
            ended = ContainerEnd(137, "ContainerStatusUnknown", CONTAINER_LOST_MESSAGE, 0.0, 0.0, "")
            result[container["name"]] = replace(sight, state="ended", ended=ended, waiting=None)
        elif sight.state == "ended":
            result[container["name"]] = replace(sight, waiting=None)
    return result


def _unseen(sight: ContainerRecord, now: float) -> ContainerRecord:
    ended = ContainerEnd(
        137, "ContainerStatusUnknown", CONTAINER_LOST_MESSAGE, sight.started_at, now, sight.container_id
    )
    return replace(sight, state="ended", ended=ended, ready=False, starting=False)


def phase_of(pod: Manifest, records: Mapping[str, ContainerRecord], *, over: bool) -> str:
    """Return the phase, from regular containers alone once they have begun."""
    sights = [records[container["name"]] for container in pod["spec"]["containers"]]
    ended = [sight.ended or sight.last for sight in sights if sight.state == "ended"]
    if over:
        return (
            "Succeeded"
            if len(ended) == len(sights)
            and all(ended_container and ended_container.code == 0 for ended_container in ended)
            else "Failed"
        )
    # what has ended for good stays Running until native sidecars have ended as well: then it is over
    return "Pending" if any(sight.state == "none" for sight in sights) else "Running"


def container_status(pod: Manifest, container: Manifest, sight: ContainerRecord, kind: str) -> Manifest:
    """Return one container's status."""
    last = sight.last if sight.waiting is None or sight.state != "ended" else sight.ended
    status: Manifest = {
        "name": container["name"],
        "state": _state(pod, sight),
        "lastState": {"terminated": _terminated(pod, last)} if last else {},
        "ready": _is_ready(container, sight, init=kind == "initContainers"),
        "restartCount": sight.restarts,
        "image": sight.image or container["image"],
        "imageID": f"{CONTAINER_ID}{sight.image}" if sight.image else "",
    }
    if sight.container_id:
        status["containerID"] = CONTAINER_ID + sight.container_id
    if kind != "ephemeralContainers":
        status["started"] = sight.started
    return status


def _is_ready(container: Manifest, sight: ContainerRecord, *, init: bool) -> bool:
    """Whether a container counts as ready: an init container does once it has done its work."""
    if init and not is_sidecar(container):
        return sight.state == "ended" and sight.ended is not None and sight.ended.code == 0
    return sight.state == "running" and sight.ready


def _state(pod: Manifest, sight: ContainerRecord) -> Manifest:
    if sight.waiting is not None and sight.state != "running":
        text = {"reason": sight.waiting.reason, "message": sight.waiting.message}
        return {"waiting": {key: value for key, value in text.items() if value}}
    if sight.state == "running":
        return {"running": {"startedAt": written_time(sight.started_at)}}
    if sight.state == "ended" and sight.ended:
        return {"terminated": _terminated(pod, sight.ended)}
    return {"waiting": {"reason": "PodInitializing" if pod["spec"].get("initContainers") else "ContainerCreating"}}


def _terminated(pod: Manifest, ended: ContainerEnd) -> Manifest:
    state: Manifest = {"exitCode": ended.code, "reason": ended.reason}
    # of the last 4 KiB that a container wrote, the status manager keeps the first bytes (``normalizeStatus``)
    if message := ended.message.encode()[: POD_MESSAGE_BYTES // len(all_containers(pod))].decode(errors="ignore"):
        state["message"] = message
    state |= {"startedAt": written_time(ended.started_at), "finishedAt": written_time(ended.finished_at)}
    if ended.container_id:
        state["containerID"] = CONTAINER_ID + ended.container_id
    return state


def conditions(pod: Manifest, records: Mapping[str, ContainerRecord], outlook: Outlook, phase: str) -> list[Manifest]:
    """Return the kubelet's conditions, without times."""
    containers_ready = _containers_ready(pod, records, phase)
    result = [
        {"type": "PodReadyToStartContainers", "status": "True" if outlook.sandbox else "False"},
        {"type": "Initialized", **_initialized(pod, records, phase)},
        {"type": "Ready", **_ready(pod, containers_ready)},
        {"type": "ContainersReady", **containers_ready},
        {"type": "PodScheduled", "status": "True"},
    ]
    if outlook.disruption:
        detail = {"reason": "TerminationByKubelet", "message": outlook.disruption}
        result.append({"type": "DisruptionTarget", "status": "True", **detail})
    return result


def _initialized(pod: Manifest, records: Mapping[str, ContainerRecord], phase: str) -> dict[str, str]:
    inits = pod["spec"].get("initContainers") or []
    if phase == "Succeeded":
        return {"status": "True", "reason": "PodCompleted"}
    if any(records[container["name"]].state != "none" for container in pod["spec"]["containers"]):
        return {"status": "True"}
    incomplete = [container["name"] for container in inits if not _complete(container, records[container["name"]])]
    if not incomplete:
        return {"status": "True"}
    detail = f"containers with incomplete status: [{' '.join(incomplete)}]"
    return {"status": "False", "reason": "ContainersNotInitialized", "message": detail}


def _complete(container: Manifest, sight: ContainerRecord) -> bool:
    if is_sidecar(container):
        return sight.started
    return sight.state == "ended" and sight.ended is not None and sight.ended.code == 0


def _containers_ready(pod: Manifest, records: Mapping[str, ContainerRecord], phase: str) -> dict[str, str]:
    if phase in ("Succeeded", "Failed"):
        return {"status": "False", "reason": "PodCompleted" if phase == "Succeeded" else "PodFailed"}
    counted = [container for container in pod["spec"].get("initContainers") or () if is_sidecar(container)] + pod[
        "spec"
    ]["containers"]
    unready = [
        container["name"]
        for container in counted
        if not (records[container["name"]].state == "running" and records[container["name"]].ready)
    ]
    if not unready:
        return {"status": "True"}
    detail = f"containers with unready status: [{' '.join(unready)}]"
    return {"status": "False", "reason": "ContainersNotReady", "message": detail}


def _ready(pod: Manifest, containers_ready: Mapping[str, str]) -> dict[str, str]:
    if containers_ready["status"] != "True":
        return dict(containers_ready)
    statuses = {condition["type"]: condition["status"] for condition in pod.get("status", {}).get("conditions") or ()}
    unmet = []
    for gate in pod["spec"].get("readinessGates") or ():
        kind = gate["conditionType"]
        if kind not in statuses:
            unmet.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif statuses[kind] != "True":
            unmet.append(f'the status of pod readiness gate "{kind}" is not "True", but {statuses[kind]}')
    if unmet:
        return {"status": "False", "reason": "ReadinessGatesNotReady", "message": ", ".join(unmet)}
    return {"status": "True"}


def merged(old: Sequence[Manifest], new: Sequence[Manifest], now: float) -> list[Json]:
    """Join conditions: times stay where the status stays, those of others are kept, ours come first."""
    before = {condition["type"]: condition for condition in old}
    ours = []
    for condition in new:
        was = before.pop(condition["type"], None)
        same = was is not None and was["status"] == condition["status"]
        if condition["type"] == "PodScheduled" and was is not None and same:
            ours.append(was)
            continue
        since = was["lastTransitionTime"] if was is not None and same else written_time(now)
        ours.append({"lastProbeTime": None, "lastTransitionTime": since, **condition})
    return [*ours, *before.values()]
