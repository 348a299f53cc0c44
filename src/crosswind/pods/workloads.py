"""How a worker gets to know its task: a file from a Secret, one Secret for many pods, one key for each.

Each pod mounts its own key alone, read-only, and in the base container only. The Secret is no ``immutable`` one and the
file no ``subPath``: a token that is renewed while the pod waits then reaches it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from crosswind.errors import ConfigError
from crosswind.types import Manifest

__all__ = [
    "SECRET_LABELS",
    "SECRET_LIMIT",
    "SECRET_PREFIX",
    "WORKLOAD_DIRECTORY",
    "WORKLOAD_PATH",
    "WORKLOAD_VOLUME",
    "InlineWorkload",
    "SecretWorkload",
    "batches",
    "mounted_workload",
    "secrets_of",
    "workload_secret",
    "workload_volume",
]

WORKLOAD_DIRECTORY = "/run/crosswind"
"""Where the Secret's key is mounted in the base container."""

WORKLOAD_PATH = f"{WORKLOAD_DIRECTORY}/workload.json"
"""The file that the worker reads."""

SECRET_PREFIX = "crosswind-"  # noqa: S105 - of a name
"""What the names of workloads' Secrets begin with; sixteen hexadecimal digits follow."""

WORKLOAD_VOLUME = "crosswind-workload"
"""The volume's name."""

SECRET_LABELS: Mapping[str, str] = {
    "app.kubernetes.io/managed-by": "crosswind",
    "app.kubernetes.io/component": "workloads",
}
"""On every workload Secret, so that leftovers can be found."""

SECRET_LIMIT = 900_000
"""Bytes of payload in one Secret: Kubernetes allows 1 MiB of data, and etcd 1.5 MiB of object in base64."""


@dataclass(frozen=True, slots=True)
class SecretWorkload:
    """The workload is the value of ``key`` in the Secret ``secret`` of the pod's namespace."""

    secret: str
    key: str


@dataclass(frozen=True, slots=True)
class InlineWorkload:
    """The workload stands in the pod's arguments: whoever may read pods can read its token."""

    json: str


def workload_secret(
    name: str, namespace: str, payloads: Mapping[str, bytes], labels: Mapping[str, str] | None = None
) -> Manifest:
    """Return the Secret that carries ``payloads``, JSON by key, marked with ``labels`` and ``SECRET_LABELS``.

    Raises ``ConfigError`` when they are larger than one Secret may be; ``batches`` cuts them to size.
    """
    size = sum(map(len, payloads.values()))
    if size > SECRET_LIMIT:
        raise ConfigError(
            f"Secret {namespace}/{name}: {size} bytes of workloads, a Secret takes {SECRET_LIMIT}; "
            "set [crosswind] workload_delivery = args if a single one is that large"
        )
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {**(labels or {}), **SECRET_LABELS}},
        "type": "Opaque",
        "data": {key: b64encode(payload).decode() for key, payload in payloads.items()},
    }


def batches(payloads: Mapping[str, bytes], limit: int = SECRET_LIMIT) -> Iterator[dict[str, bytes]]:
    """Cut payloads into parts of at most ``limit`` bytes, in their order; one that is larger is a part of its own."""
    part: dict[str, bytes] = {}
    size = 0
    for key, payload in payloads.items():
        if part and size + len(payload) > limit:
            yield part
            part, size = {}, 0
        part[key] = payload
        size += len(payload)
    if part:
        yield part


def workload_volume(workload: SecretWorkload) -> tuple[Manifest, Manifest]:
    """Return the pod's volume and the base container's mount."""
    # Readable for all: the worker's user is the image's or the template's choice, and no other container mounts it.
    secret = {
        "secretName": workload.secret,
        "items": [{"key": workload.key, "path": "workload.json"}],
        "defaultMode": 0o444,
    }
    volume = {"name": WORKLOAD_VOLUME, "secret": secret}
    return volume, {"name": WORKLOAD_VOLUME, "mountPath": WORKLOAD_DIRECTORY, "readOnly": True}


def mounted_workload(pod: Manifest) -> SecretWorkload | None:
    """Return the part of a Secret that a pod mounts as its workload, None when it has its workload otherwise."""
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        secret = volume.get("secret") if volume.get("name") == WORKLOAD_VOLUME else None
        if secret and secret.get("items"):
            return SecretWorkload(secret["secretName"], secret["items"][0]["key"])
    return None


def secrets_of(pods: Iterable[Manifest]) -> set[tuple[str, str]]:
    """Return namespace and name of every workload Secret that a pod which is not over mounts."""
    return {
        (pod["metadata"]["namespace"], mounted.secret)
        for pod in pods
        if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed") and (mounted := mounted_workload(pod))
    }
