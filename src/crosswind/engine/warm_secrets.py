"""What a waiting pod mounts: a Secret of its own with the worker's files and its key, and the volume of its claim."""

from __future__ import annotations

import functools
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from crosswind.engine.workload_secrets import SHIM_KEY, WORKLOAD_DIRECTORY, WORKLOAD_VOLUME
from crosswind.types import Json, Manifest

__all__ = [
    "CLAIM_VOLUME",
    "WORKLOAD_ANNOTATION",
    "WarmWorkload",
    "shim_facts",
    "warm_secret",
    "warm_volumes",
    "with_secret",
]

CLAIM_VOLUME, CLAIM_DIRECTORY, CLAIM_FILE = "crosswind-claim", "/run/crosswind-claim", "workload"
WORKLOAD_ANNOTATION = "crosswind/workload"
"""The sealed workload: the kubelet writes its value into the file that the worker waits for."""

_KEY_FILE = "key"
_ANY_SECRET = "crosswind-warm"  # noqa: S105 - a name
"""Stands for the Secret's name in a manifest, so that equal pods have equal manifests."""
_LABELS: Mapping[str, str] = {
    "app.kubernetes.io/managed-by": "crosswind",
    # Not "workloads": the sweep deletes those that no task's pod mounts. The garbage collector deletes these with
    # their pod, which owns them.
    "app.kubernetes.io/component": "warm-pods",
}


@dataclass(frozen=True, slots=True)
class WarmWorkload:
    """The workload comes later, by a claim."""

    preload: tuple[str, ...] = ()
    """Modules that the worker imports before it waits."""
    wait: int = 1260
    """Seconds without a claim after which the worker ends by itself: nobody else ends the waiting pods of a deployment
    that was shut down."""


def shim_facts(workload: WarmWorkload) -> dict[str, Json]:
    """Return the options that the shim needs to wait for a claim."""
    return {
        "claim": f"{CLAIM_DIRECTORY}/{CLAIM_FILE}",
        "key": f"{WORKLOAD_DIRECTORY}/{_KEY_FILE}",
        "preload": list(workload.preload),
        "wait": workload.wait,
    }


def warm_volumes() -> tuple[list[Manifest], list[Manifest]]:
    """Return the pod's volumes and the base container's mounts. ``with_secret`` gives the Secret its name."""
    item = {"path": CLAIM_FILE, "fieldRef": {"fieldPath": f"metadata.annotations['{WORKLOAD_ANNOTATION}']"}}
    # World-readable, as in a cold pod: the image or the template chooses the worker's user.
    volumes = [
        {"name": WORKLOAD_VOLUME, "secret": {"secretName": _ANY_SECRET, "defaultMode": 0o444}},
        {"name": CLAIM_VOLUME, "downwardAPI": {"items": [item], "defaultMode": 0o444}},
    ]
    mounts = [
        {"name": WORKLOAD_VOLUME, "mountPath": WORKLOAD_DIRECTORY, "readOnly": True},
        {"name": CLAIM_VOLUME, "mountPath": CLAIM_DIRECTORY, "readOnly": True},
    ]
    return volumes, mounts


def with_secret(spec: Manifest, name: str) -> Manifest:
    """Return a copy of a spec whose warm volume mounts the Secret ``name``."""
    volumes = [
        {**volume, "secret": {**volume["secret"], "secretName": name}}
        if volume.get("name") == WORKLOAD_VOLUME
        else volume
        for volume in spec.get("volumes") or ()
    ]
    return {**spec, "volumes": volumes}


def warm_secret(name: str, namespace: str, pod_uid: str, key: bytes, labels: Mapping[str, str]) -> Manifest:
    """Return the Secret of the waiting pod of this name and uid, which owns it."""
    owner = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pod_uid}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**labels, **_LABELS},
            "ownerReferences": [owner],
        },
        "type": "Opaque",
        "data": {**_worker_files(), _KEY_FILE: b64encode(key).decode()},
    }


@functools.cache
def _worker_files() -> Mapping[str, str]:
    """Return the files of ``crosswind.worker``, encoded: the shim, and what it imports from its own folder."""
    files = {file.name: file for file in resources.files("crosswind.worker").iterdir() if file.name.endswith(".py")}
    named = {SHIM_KEY if name == "shim.py" else name: file for name, file in files.items() if name != "__init__.py"}
    return {name: b64encode(file.read_bytes()).decode() for name, file in sorted(named.items())}
