"""Eviction of pods that outgrow a limit on this machine's disk, after ``pkg/kubelet/eviction`` of Kubernetes.

The pod's worker owns the task of ``evict_when_full`` and cancels it when the pod ends.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from kubelocal.codec.quantities import amount
from kubelocal.kubelet.pod_volumes import mounted_volumes
from kubelocal.types import Manifest

__all__ = ["MONITOR_S", "evict_when_full", "limits_of"]

MONITOR_S = 10.0
"""The eviction manager's monitoring period."""


def limits_of(pod: Manifest) -> dict[str, str]:
    """Return the size limits of a pod's emptyDir volumes, by name; 0 is none."""
    size_limits = {volume["name"]: (volume.get("emptyDir") or {}).get("sizeLimit") for volume in mounted_volumes(pod)}
    return {name: str(limit) for name, limit in size_limits.items() if limit is not None and amount(str(limit)) > 0}


async def evict_when_full(pod: Manifest, folder: Path, evict: Callable[[str], None], every: float) -> None:
    """Look at the volumes below a folder, every so many seconds; have the pod evicted once one outgrows its limit."""
    limits = limits_of(pod)
    while limits:
        for name, limit in limits.items():
            # In a thread: walking a large folder would stop the loop.
            if await asyncio.to_thread(used_bytes, folder / name) > amount(limit):
                evict(f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". ')
                return
        await asyncio.sleep(every)


def used_bytes(folder: Path) -> int:
    """Return what a folder's files take on the disk; a file with two names counts once."""
    counted_files, total = set(), 0
    for path, folders, files in os.walk(folder):
        for name in (*folders, *files):
            try:
                entry = os.lstat(os.path.join(path, name))
            except OSError:  # gone meanwhile
                continue
            if (entry.st_dev, entry.st_ino) not in counted_files:
                counted_files.add((entry.st_dev, entry.st_ino))
                total += entry.st_blocks * 512
    return total
