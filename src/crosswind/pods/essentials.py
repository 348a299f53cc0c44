"""The part of a pod that is remembered of thousands: what ``judge`` and ``why`` read, and by what it is known."""

from __future__ import annotations

from typing import Any

from crosswind.types import Manifest

__all__ = ["essentials"]

_METADATA = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "labels")
_SPEC = ("nodeName", "restartPolicy", "activeDeadlineSeconds")
_CONTAINER = ("name", "image", "resources", "restartPolicy")


def essentials(pod: Manifest) -> Manifest:
    """Return a pod without its environment, volumes, probes and so on: a third of its size. Shares parts with it."""
    spec = pod["spec"]
    kept = _pick(spec, _SPEC)
    for kind in ("initContainers", "containers"):
        if declared := spec.get(kind):
            kept[kind] = [_pick(container, _CONTAINER) for container in declared]
    return {"metadata": _pick(pod["metadata"], _METADATA), "spec": kept, "status": pod.get("status") or {}}


def _pick(source: Manifest, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: source[name] for name in names if name in source}
