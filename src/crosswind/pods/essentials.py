"""The part of a pod that is remembered of thousands: what ``judge`` and ``why`` read, and by what it is known."""

from __future__ import annotations

from typing import Any

from crosswind.types import Manifest

__all__ = ["essentials"]

_METADATA = ("name", "namespace", "uid", "resourceVersion", "deletionTimestamp")
_SPEC = ("nodeName", "restartPolicy", "activeDeadlineSeconds")
_STATUS = ("phase", "reason", "message")
_LISTS = {
    "spec": dict.fromkeys(("initContainers", "containers"), ("name", "image", "resources", "restartPolicy")),
    "status": {
        "conditions": ("type", "status", "reason", "message"),
        "initContainerStatuses": ("name", "state", "lastState", "restartCount"),
        "containerStatuses": ("name", "state", "lastState", "restartCount"),
    },
}


def essentials(pod: Manifest) -> Manifest:
    """Return a pod without its environment, volumes, probes, labels and so on: a fifth of it. Shares parts with it."""
    return {
        "metadata": _pick(pod["metadata"], _METADATA),
        "spec": _part(pod, "spec", _SPEC),
        "status": _part(pod, "status", _STATUS),
    }


def _part(pod: Manifest, name: str, fields: tuple[str, ...]) -> dict[str, Any]:
    whole = pod.get(name) or {}
    part = _pick(whole, fields)
    for key, wanted in _LISTS[name].items():
        if items := whole.get(key):
            part[key] = [_pick(item, wanted) for item in items]
    return part


def _pick(source: Manifest, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: source[name] for name in names if name in source}
