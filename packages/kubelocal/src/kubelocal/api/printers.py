"""Objects as the rows that ``kubectl get`` prints: the server decides columns and cells (``as=Table``).

Source: ``pkg/printers/internalversion`` of Kubernetes 1.36.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from kubelocal.codec.kinds import Kind
from kubelocal.types import Json, Manifest

__all__ = ["human_duration", "pod_status", "table"]

Cells: TypeAlias = Callable[[Manifest], Sequence[Json]]
NONE, UNKNOWN = "<none>", "<unknown>"


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a kind and the function of their cells; ``wide`` ones appear with ``-o wide``."""

    columns: tuple[str, ...]
    cells: Cells
    wide: tuple[str, ...] = ()


def table(kind: Kind, objects: Sequence[Manifest], version: str, single: bool) -> Manifest:
    """Return objects as a Table; ``single``: for a GET of one object. ``version``: the resourceVersion."""
    layout = LAYOUTS.get(kind.kind, DEFAULT)
    rows = [
        {
            "cells": list(layout.cells(item)),
            "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]},
        }
        for item in objects
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"resourceVersion": objects[0]["metadata"].get("resourceVersion", version) if single else version},
        "columnDefinitions": [
            _column(name, i >= len(layout.columns)) for i, name in enumerate(layout.columns + layout.wide)
        ],
        "rows": rows,
    }


def _column(name: str, wide: bool) -> Manifest:
    return {
        "name": name,
        "type": "integer" if name in ("Data", "Secrets", "Count") else "string",
        "format": "name" if name == "Name" else "",
        "description": DESCRIPTIONS.get(name, ""),
        "priority": int(wide),
    }


# ---------------------------------------------------------------------------------------------- times


def human_duration(seconds: float) -> str:
    """Format a duration as kubectl does: ``45s``, ``2m3s``, ``5h10m``, ``3d4h``, ``2y5d``."""
    if seconds < -1:
        return "<invalid>"
    whole = max(int(seconds), 0)
    minutes, hours = whole // 60, whole // 3600
    days, years = hours // 24, hours // (24 * 365)
    steps = (
        (whole < 120, whole, "s", 0, ""),
        (minutes < 10, minutes, "m", whole % 60, "s"),
        (minutes < 180, minutes, "m", 0, ""),
        (hours < 8, hours, "h", minutes % 60, "m"),
        (hours < 48, hours, "h", 0, ""),
        (hours < 192, days, "d", hours % 24, "h"),
        (years < 2, days, "d", 0, ""),
        (years < 8, years, "y", days % 365, "d"),
        (True, years, "y", 0, ""),
    )
    large, unit, small, part = next(step[1:] for step in steps if step[0])
    return f"{large}{unit}{small}{part}" if small else f"{large}{unit}"


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _since(moment: str | None) -> str:
    return human_duration(time.time() - _seconds(moment)) if moment else UNKNOWN


def _name(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def _age(manifest: Manifest) -> str:
    return _since(manifest["metadata"].get("creationTimestamp"))


# ---------------------------------------------------------------------------------------------- pods


@dataclass(slots=True)
class PodColumns:
    """The values of a pod's columns, computed from its containers."""

    status: str
    ready: int = 0
    total: int = 0
    restarts: int = 0
    last_restart: str = ""


def pod_status(pod: Manifest) -> PodColumns:
    """Summarise a pod for the columns STATUS, READY and RESTARTS."""
    spec, status = pod.get("spec", {}), pod.get("status", {})
    native = {c.get("name") for c in spec.get("initContainers", ()) if c.get("restartPolicy") == "Always"}
    line = PodColumns(
        status.get("reason") or status.get("phase", ""), total=len(spec.get("containers", ())) + len(native)
    )
    if _condition(status, "PodScheduled").get("reason") == "SchedulingGated":
        line.status = "SchedulingGated"
    initializing = _add_init_containers(line, spec, status, native)
    if not initializing or _condition(status, "Initialized").get("status") == "True":
        _add_containers(line, status, native)
    if "deletionTimestamp" in pod["metadata"]:
        if status.get("reason") == "NodeLost":
            line.status = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            line.status = "Terminating"
    return line


def _add_init_containers(line: PodColumns, spec: Manifest, status: Manifest, native: set[str | None]) -> bool:
    """Add the init containers up to the first that has not completed; return whether there is container."""
    for i, container in enumerate(status.get("initContainerStatuses", ())):
        _add_restarts(line, container)
        state = container.get("state", {})
        terminated = state.get("terminated")
        if terminated and terminated.get("exitCode") == 0:
            continue
        if container.get("name") in native and container.get("started"):
            line.ready += bool(container.get("ready"))
            continue
        waiting = state.get("waiting", {}).get("reason")
        if terminated:
            line.status = f"Init:{_ending(terminated)}"
        elif waiting and waiting != "PodInitializing":
            line.status = f"Init:{waiting}"
        else:
            line.status = f"Init:{i}/{len(spec.get('initContainers', ()))}"
        return True
    return False


def _add_containers(line: PodColumns, status: Manifest, native: set[str | None]) -> None:
    """Add the regular containers; of the init containers only native sidecars' restarts count now."""
    line.restarts, line.last_restart = 0, ""
    for container in status.get("initContainerStatuses", ()):
        if container.get("name") in native:
            _add_restarts(line, container)
    running = False
    for container in reversed(status.get("containerStatuses", ())):
        _add_restarts(line, container)
        state = container.get("state", {})
        if waiting := state.get("waiting", {}).get("reason"):
            line.status = waiting
        elif terminated := state.get("terminated"):
            line.status = _ending(terminated)
        elif container.get("ready") and "running" in state:
            running = True
            line.ready += 1
    if line.status == "Completed" and running:
        line.status = "Running" if _condition(status, "Ready").get("status") == "True" else "NotReady"


def _add_restarts(line: PodColumns, status: Manifest) -> None:
    line.restarts += status.get("restartCount", 0)
    ended = status.get("lastState", {}).get("terminated", {}).get("finishedAt") or ""
    line.last_restart = max(line.last_restart, ended)


def _ending(terminated: Manifest) -> str:
    if reason := terminated.get("reason"):
        return str(reason)
    signal = terminated.get("signal")
    return f"Signal:{signal}" if signal else f"ExitCode:{terminated.get('exitCode')}"


def _condition(status: Manifest, kind: str) -> Manifest:
    return next((item for item in status.get("conditions", ()) if item.get("type") == kind), {})


def _pod(pod: Manifest) -> Sequence[Json]:
    line, spec, status = pod_status(pod), pod.get("spec", {}), pod.get("status", {})
    ago = f" ({_since(line.last_restart)} ago)" if line.restarts and line.last_restart else ""
    gates = [gate.get("conditionType", "") for gate in spec.get("readinessGates", ())]
    passed = [gate for gate in gates if _condition(status, gate).get("status") == "True"]
    return (
        _name(pod),
        f"{line.ready}/{line.total}",
        line.status,
        f"{line.restarts}{ago}",
        _age(pod),
        status.get("podIP") or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        f"{len(passed)}/{len(gates)}" if gates else NONE,
    )


# ---------------------------------------------------------------------------------------------- other kinds


def _node(node: Manifest) -> Sequence[Json]:
    status, info = node.get("status", {}), node.get("status", {}).get("nodeInfo", {})
    ready = _condition(status, "Ready").get("status")
    words = ["Unknown" if ready is None else "Ready" if ready == "True" else "NotReady"]
    words += ["SchedulingDisabled"] if node.get("spec", {}).get("unschedulable") else []
    prefix = "node-role.kubernetes.io/"
    roles = sorted(key.removeprefix(prefix) for key in node["metadata"].get("labels", {}) if key.startswith(prefix))
    addresses = {item.get("type"): item.get("address", NONE) for item in status.get("addresses", ())}
    return (
        _name(node),
        ",".join(words),
        ",".join(roles) or NONE,
        _age(node),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE),
        *(info.get(field) or UNKNOWN for field in ("osImage", "kernelVersion", "containerRuntimeVersion")),
    )


def _job(job: Manifest) -> Sequence[Json]:
    spec, status = job["spec"], job.get("status", {})
    done, parallel = status.get("succeeded", 0), spec.get("parallelism", 1)
    completions = spec.get("completions") or (f"1 of {parallel}" if parallel > 1 else 1)
    end = status.get("completionTime") or _condition(status, "Failed").get("lastTransitionTime")
    start = status.get("startTime")
    took = "" if not start else human_duration((_seconds(end) if end else time.time()) - _seconds(start))
    return (_name(job), _job_status(job), f"{done}/{completions}", took, _age(job), *_made_of(spec))


def _cron_job(cron_job: Manifest) -> Sequence[Json]:
    spec, status = cron_job["spec"], cron_job.get("status", {})
    last = status.get("lastScheduleTime")
    since = human_duration(time.time() - _seconds(last)) if last else NONE
    cells = (spec.get("schedule", ""), spec.get("timeZone") or NONE, str(bool(spec.get("suspend"))))
    made = _made_of(spec.get("jobTemplate", {}).get("spec", {}))
    return (_name(cron_job), *cells, len(status.get("active") or ()), since, _age(cron_job), *made)


def _daemon_set(daemon_set: Manifest) -> Sequence[Json]:
    spec, status = daemon_set["spec"], daemon_set.get("status", {})
    ready, available = "numberReady", "numberAvailable"
    numbers = ("desiredNumberScheduled", "currentNumberScheduled", ready, "updatedNumberScheduled", available)
    counts = [status.get(number, 0) for number in numbers]
    selector = _labels(spec.get("template", {}).get("spec", {}).get("nodeSelector"))
    return (_name(daemon_set), *counts, selector, _age(daemon_set), *_made_of(spec))


def _made_of(spec: Manifest) -> Sequence[Json]:
    """Return the last cells of a workload: names and images of its containers, and the selector."""
    containers = spec.get("template", {}).get("spec", {}).get("containers", ())
    names, images = (",".join(item.get(field, "") for item in containers) for field in ("name", "image"))
    return names, images, _labels(spec.get("selector", {}).get("matchLabels"))


def _replicated(*numbers: str, share: bool = True) -> Cells:
    """Return the cells of a kind with replicas: ready ones, then these numbers of its status."""

    def cells(manifest: Manifest) -> Sequence[Json]:
        spec, status = manifest["spec"], manifest.get("status", {})
        replicas, ready = spec.get("replicas", 1), status.get("readyReplicas", 0)
        counts = [status.get(number, 0) for number in numbers]
        counts = [f"{ready}/{replicas}", *counts] if share else [replicas, *counts, ready]
        return (_name(manifest), *counts, _age(manifest), *_made_of(spec))

    return cells


def _job_status(job: Manifest) -> str:
    status = job.get("status", {})
    states = (("Complete", "Complete"), ("Failed", "Failed"), ("Suspended", "Suspended"))
    ended = [word for kind, word in states if _condition(status, kind).get("status") == "True"]
    if ended and ended[0] != "Suspended":
        return ended[0]
    if "deletionTimestamp" in job["metadata"]:
        return "Terminating"
    later = ("FailureTarget", "SuccessCriteriaMet")
    return next(
        (kind for kind in later if _condition(status, kind).get("status") == "True"), ended[0] if ended else "Running"
    )


def _event(event: Manifest) -> Sequence[Json]:
    about, source = event.get("involvedObject", {}), event.get("source", {})
    first = event.get("firstTimestamp") or event.get("eventTime")
    last = event.get("series", {}).get("lastObservedTime") or event.get("lastTimestamp") or first
    reporter = [source.get("component") or event.get("reportingComponent", ""), source.get("host", "")]
    return (
        _since(last),
        event.get("type", ""),
        event.get("reason", ""),
        "/".join(part for part in (about.get("kind", "").lower(), about.get("name")) if part),
        event.get("message", "").strip(),
        about.get("fieldPath", ""),
        ", ".join(part for part in reporter if part),
        _since(first),
        event.get("series", {}).get("count") or event.get("count") or 1,
        _name(event),
    )


def _claim(claim: Manifest) -> Sequence[Json]:
    spec, status = claim.get("spec", {}), claim.get("status", {})
    state = "Terminating" if "deletionTimestamp" in claim["metadata"] else status.get("phase", "")
    bound = bool(spec.get("volumeName"))
    return (
        _name(claim),
        state,
        spec.get("volumeName", ""),
        status.get("capacity", {}).get("storage", "") if bound else "",
        _modes(status.get("accessModes")) if bound else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName", "<unset>"),
        _age(claim),
        spec.get("volumeMode", "<unset>"),
    )


def _service(service: Manifest) -> Sequence[Json]:
    spec = service.get("spec", {})
    ports = [
        f"{port['port']}{':' + str(port['nodePort']) if port.get('nodePort') else ''}/{port.get('protocol', 'TCP')}"
        for port in spec.get("ports", ())
    ]
    return (
        _name(service),
        spec.get("type", "ClusterIP"),
        spec.get("clusterIP") or NONE,
        ",".join(spec.get("externalIPs", ())) or spec.get("externalName") or NONE,
        ",".join(ports) or NONE,
        _age(service),
        _labels(spec.get("selector")),
    )


def _modes(modes: Sequence[str] | None) -> str:
    short = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
    return ",".join(short.get(mode, mode) for mode in modes or ())


def _labels(labels: dict[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE


def _plain(*columns: str, **cells: Callable[[Manifest], Any]) -> Layout:
    """Return the layout of name, cells and age."""
    return Layout(
        columns, lambda manifest: (_name(manifest), *(cell(manifest) for cell in cells.values()), _age(manifest))
    )


def _slice(endpoints: Manifest) -> Sequence[Json]:
    ports = ",".join(str(port.get("port", "")) for port in endpoints.get("ports") or ())
    addresses = ",".join(
        address for item in endpoints.get("endpoints") or () for address in item.get("addresses") or ()
    )
    return (
        _name(endpoints),
        endpoints.get("addressType", ""),
        ports or "<unset>",
        addresses or "<unset>",
        _age(endpoints),
    )


WORKLOAD = ("Containers", "Images", "Selector")
DEFAULT = _plain("Name", "Age")
LAYOUTS: dict[str, Layout] = {
    "Pod": Layout(
        ("Name", "Ready", "Status", "Restarts", "Age"), _pod, ("IP", "Node", "Nominated Node", "Readiness Gates")
    ),
    "Node": Layout(
        ("Name", "Status", "Roles", "Age", "Version"),
        _node,
        ("Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime"),
    ),
    "Namespace": _plain("Name", "Status", "Age", phase=lambda manifest: manifest.get("status", {}).get("phase", "")),
    "Job": Layout(("Name", "Status", "Completions", "Duration", "Age"), _job, WORKLOAD),
    "Secret": _plain(
        "Name",
        "Type",
        "Data",
        "Age",
        type=lambda manifest: manifest.get("type", ""),
        data=lambda manifest: len(manifest.get("data", ())),
    ),
    "ConfigMap": _plain(
        "Name", "Data", "Age", data=lambda manifest: len(manifest.get("data", ())) + len(manifest.get("binaryData", ()))
    ),
    "Event": Layout(
        ("Last Seen", "Type", "Reason", "Object", "Message"),
        _event,
        ("Subobject", "Source", "First Seen", "Count", "Name"),
    ),
    "ServiceAccount": _plain("Name", "Secrets", "Age", secrets=lambda manifest: len(manifest.get("secrets", ()))),
    "Lease": _plain(
        "Name", "Holder", "Age", holder=lambda manifest: manifest.get("spec", {}).get("holderIdentity", "")
    ),
    "PersistentVolumeClaim": Layout(
        ("Name", "Status", "Volume", "Capacity", "Access Modes", "StorageClass", "VolumeAttributesClass", "Age"),
        _claim,
        ("VolumeMode",),
    ),
    "Deployment": Layout(
        ("Name", "Ready", "Up-to-date", "Available", "Age"),
        _replicated("updatedReplicas", "availableReplicas"),
        WORKLOAD,
    ),
    "CronJob": Layout(
        ("Name", "Schedule", "Timezone", "Suspend", "Active", "Last Schedule", "Age"), _cron_job, WORKLOAD
    ),
    "DaemonSet": Layout(
        ("Name", "Desired", "Current", "Ready", "Up-to-date", "Available", "Node Selector", "Age"),
        _daemon_set,
        WORKLOAD,
    ),
    "ReplicaSet": Layout(
        ("Name", "Desired", "Current", "Ready", "Age"), _replicated("replicas", share=False), WORKLOAD
    ),
    "StatefulSet": Layout(("Name", "Ready", "Age"), lambda manifest: _replicated()(manifest)[:-1], WORKLOAD[:2]),
    "EndpointSlice": Layout(("Name", "AddressType", "Ports", "Endpoints", "Age"), _slice),
    "Service": Layout(("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age"), _service, ("Selector",)),
}
DESCRIPTIONS = {
    "Name": "Name must be unique within a namespace.",
    "Ready": "The aggregate readiness state of this pod for accepting traffic.",
    "Status": "The aggregate status of the object.",
    "Restarts": "The number of times the containers in this pod have been restarted "
    "and when the last container in this pod has restarted.",
    "Age": "CreationTimestamp is a timestamp representing the server time when this object was created.",
}
