"""The Node object of this machine, as a kubelet would register it."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime

from kubelocal.codec.kinds import VERSION
from kubelocal.settings import LocalSettings
from kubelocal.types import Manifest

__all__ = ["node_manifest"]

_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


def node_manifest(settings: LocalSettings, address: str, now: datetime | None = None) -> Manifest:
    """Return the node ``settings.node_name``, ready, with what this machine has or the settings say."""
    stamp = (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    name, system = settings.node_name, platform.system().lower()
    labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": system, "kubernetes.io/arch": machine}
    times = {"lastHeartbeatTime": stamp, "lastTransitionTime": stamp}
    room = _room(settings)
    status = {
        "capacity": room,
        "allocatable": room,
        "conditions": [
            {"type": kind, "status": value, **times, "reason": reason, "message": message}
            for kind, value, reason, message in _CONDITIONS
        ],
        "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
        "nodeInfo": {
            "architecture": machine,
            "operatingSystem": system,
            "kernelVersion": platform.release(),
            "osImage": platform.platform(terse=True),
            "containerRuntimeVersion": "crosswind://processes",
            "kubeletVersion": VERSION,
            "kubeProxyVersion": "",
            "machineID": name,
            "systemUUID": "",
            "bootID": "",
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {},
        "status": status,
    }


def _room(settings: LocalSettings) -> dict[str, str]:
    memory = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 1024}Ki"
    return {
        "cpu": settings.node_cpu or str(os.cpu_count() or 1),
        "memory": settings.node_memory or memory,
        "pods": str(settings.node_pods),
    }
