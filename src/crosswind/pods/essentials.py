"""Trims a pod to the fields that ``judge`` and ``why`` read and that identify it, for an index of thousands of pods.

A field that a verdict or a rule of ``causes`` begins to read must be added here.
"""

from __future__ import annotations

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
    """Return a fifth of a pod: no environment, volumes, probes, labels and so on. Shares its parts with ``pod``."""
    return {
        "metadata": _pick(pod["metadata"], _METADATA),
        "spec": _part(pod, "spec", _SPEC),
        "status": _part(pod, "status", _STATUS),
    }


def _part(pod: Manifest, name: str, fields: tuple[str, ...]) -> Manifest:
    whole = pod.get(name) or {}
    part = _pick(whole, fields)
    for key, item_fields in _LISTS[name].items():
        if items := whole.get(key):
            part[key] = [_pick(item, item_fields) for item in items]
    return part


def _pick(source: Manifest, names: tuple[str, ...]) -> Manifest:
    return {name: source[name] for name in names if name in source}
