"""The Secrets that carry workloads to worker pods. One Secret serves a batch of pods; each pod mounts its own key.

The key is mounted read-only and in the base container alone. The Secret is not ``immutable`` and the mount is no
``subPath``, because the kubelet updates neither: a renewed token must reach a pod that still waits.
"""

from __future__ import annotations

import functools
import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources

from crosswind.errors import ConfigError
from crosswind.types import Manifest, Pod

__all__ = [
    "SECRET_LABELS",
    "SECRET_LIMIT",
    "SECRET_PREFIX",
    "SHIM_KEY",
    "SHIM_PATH",
    "WORKLOAD_DIRECTORY",
    "WORKLOAD_PATH",
    "WORKLOAD_VOLUME",
    "InlineWorkload",
    "SecretBatch",
    "SecretBatches",
    "SecretWorkload",
    "mounted_workload",
    "secrets_of",
    "split_payloads",
    "workload_secret",
    "workload_volume",
]

WORKLOAD_DIRECTORY = "/run/crosswind"
"""Where the Secret's key is mounted in the base container."""

WORKLOAD_PATH = f"{WORKLOAD_DIRECTORY}/workload.json"
"""The file that the worker reads."""

SHIM_KEY = "worker.py"
"""The Secret's key with the worker shim, once for all its pods. The other keys are unique ids."""

SHIM_PATH = f"{WORKLOAD_DIRECTORY}/{SHIM_KEY}"
"""The shim's file in the base container."""

SECRET_PREFIX = "crosswind-"  # noqa: S105 - of a name
"""First characters of the names of workload Secrets; sixteen hexadecimal digits follow."""

WORKLOAD_VOLUME = "crosswind-workload"
"""The volume's name."""

SECRET_LABELS: Mapping[str, str] = {
    "app.kubernetes.io/managed-by": "crosswind",
    "app.kubernetes.io/component": "workloads",
}
"""Set on every workload Secret, so that the sweep finds orphaned ones."""

SECRET_LIMIT = 900_000
"""Bytes of payload per Secret: Kubernetes allows 1 MiB of data, and etcd a request of 1.5 MiB, which is base64."""


@dataclass(frozen=True, slots=True)
class SecretWorkload:
    """The workload is the value of ``key`` in the Secret ``secret`` of the pod's namespace."""

    secret: str
    key: str
    shim: bool = False
    """Whether the worker shim is mounted beside it and runs the task."""


@dataclass(frozen=True, slots=True)
class InlineWorkload:
    """The workload is in the pod's arguments: everybody who may read pods can read its token."""

    json: str


def workload_secret(
    name: str,
    namespace: str,
    payloads: Mapping[str, bytes],
    labels: Mapping[str, str] | None = None,
    *,
    shim: bool = False,
) -> Manifest:
    """Return the Secret that carries ``payloads``, JSON by key, marked with ``labels`` and ``SECRET_LABELS``.

    ``shim``: it carries the worker shim too.

    Raises ``ConfigError`` when they exceed the limit of one Secret; ``split_payloads`` splits them.
    """
    size = sum(map(len, payloads.values()))
    if size > SECRET_LIMIT:
        raise ConfigError(
            f"Secret {namespace}/{name}: {size} bytes of workloads, a Secret takes {SECRET_LIMIT}; "
            "set [crosswind] workload_delivery = args if a single one is that large"
        )
    data = {key: b64encode(payload).decode() for key, payload in payloads.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {**(labels or {}), **SECRET_LABELS}},
        "type": "Opaque",
        "data": {**data, SHIM_KEY: _encoded_shim()} if shim else data,
    }


@functools.cache
def _encoded_shim() -> str:
    return b64encode((resources.files("crosswind.worker") / "shim.py").read_bytes()).decode()


def split_payloads(payloads: Mapping[str, bytes], limit: int = SECRET_LIMIT) -> Iterator[dict[str, bytes]]:
    """Split payloads, in order, into parts of at most ``limit`` bytes; a larger payload becomes a part of its own."""
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


@dataclass(slots=True)
class SecretBatch:
    """One Secret and the pods that mount it."""

    name: str
    namespace: str
    minted_at: float
    """When its tokens were minted, in monotonic seconds."""
    users: dict[str, Callable[[], bytes]] = field(default_factory=dict)
    """The unique id of each pod that mounts it, with the function that mints the pod's payload again."""
    pending: bool = False
    """A request to create the Secret is under way, so it must not be deleted yet."""
    doubtful: bool = False
    """A request to create the Secret got no answer: it may exist."""
    failures: int = 0
    """Renewals of its tokens that failed in a row."""
    renew_at: float = -math.inf
    """Earliest time of the next renewal."""
    unread: set[str] = field(default_factory=set)
    """Users whose base container has not started, so that they still need a valid token."""
    adopted: bool = False
    """Another executor created it, whose pods may need it too."""
    unread_payloads: dict[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    """Users whose payload only the Secret holds, each with the function that renews its token."""


class SecretBatches:
    """The Secrets that this executor's pods need."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, str], SecretBatch] = {}

    def __contains__(self, namespaced_name: tuple[str, str]) -> bool:
        return namespaced_name in self._by_name

    def __len__(self) -> int:
        return len(self._by_name)

    def add(self, batch: SecretBatch) -> None:
        """Register a Secret that exists or is being created."""
        batch.unread = set(batch.users)
        self._by_name[batch.namespace, batch.name] = batch

    def adopt(self, namespace: str, name: str, unique_id: str, renew: Callable[[bytes], bytes] | None) -> None:
        """Register the Secret that an adopted pod mounts; its tokens may be of any age."""
        batch = self._by_name.setdefault(
            (namespace, name), SecretBatch(name, namespace, minted_at=-math.inf, adopted=True)
        )
        batch.users[unique_id] = bytes
        if renew is not None:
            batch.unread.add(unique_id)
            batch.unread_payloads[unique_id] = renew

    def mark_read(self, namespace: str, name: str, unique_id: str) -> None:
        """Record that a pod's base container has started and read its key."""
        if batch := self._by_name.get((namespace, name)):
            batch.unread.discard(unique_id)

    def release(self, namespace: str, name: str, unique_id: str) -> SecretBatch | None:
        """Record that a pod no longer needs its key; return the batch if no other pod needs it."""
        batch = self._by_name.get((namespace, name))
        if batch is None:
            return None
        batch.unread.discard(unique_id)
        batch.users.pop(unique_id, None)
        return self._remove_if_unused(batch)

    def creation_ended(self, batch: SecretBatch) -> SecretBatch | None:
        """Record that no request to create the Secret is under way; return the batch if no pod needs it."""
        batch.pending = False
        return self._remove_if_unused(batch)

    def _remove_if_unused(self, batch: SecretBatch) -> SecretBatch | None:
        if batch.users or batch.pending:
            return None
        return self._by_name.pop((batch.namespace, batch.name), None)

    def exists(self, namespace: str, name: str) -> bool:
        """Return whether a Secret exists, as far as the engine knows."""
        batch = self._by_name.get((namespace, name))
        return batch is not None and not batch.pending

    def pending(self) -> list[SecretBatch]:
        """Return the batches whose Secrets are being created."""
        return [batch for batch in self._by_name.values() if batch.pending]

    def stale(self, minted_before: float) -> Iterator[SecretBatch]:
        """Yield the batches with an old token that a pod still needs."""
        created = [batch for batch in self._by_name.values() if not batch.pending]
        return (batch for batch in created if batch.unread and batch.minted_at < minted_before)


def workload_volume(workload: SecretWorkload) -> tuple[Manifest, Manifest]:
    """Return the pod's volume and the base container's mount."""
    # World-readable, because the image or the template chooses the worker's user. No other container mounts the file.
    items = [{"key": workload.key, "path": "workload.json"}]
    if workload.shim:
        items.append({"key": SHIM_KEY, "path": SHIM_KEY})
    secret = {"secretName": workload.secret, "items": items, "defaultMode": 0o444}
    volume = {"name": WORKLOAD_VOLUME, "secret": secret}
    return volume, {"name": WORKLOAD_VOLUME, "mountPath": WORKLOAD_DIRECTORY, "readOnly": True}


def mounted_workload(pod: Pod) -> SecretWorkload | None:
    """Return the Secret and key that a pod mounts as its workload, None when it gets its workload another way."""
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        secret = volume.get("secret") if volume.get("name") == WORKLOAD_VOLUME else None
        if secret and (items := secret.get("items")):
            shim = any(item.get("key") == SHIM_KEY for item in items)
            return SecretWorkload(secret["secretName"], items[0]["key"], shim)
    return None


def secrets_of(pods: Iterable[Pod]) -> set[tuple[str, str]]:
    """Return namespace and name of every workload Secret that an unfinished pod mounts."""
    return {
        (pod["metadata"]["namespace"], mounted.secret)
        for pod in pods
        if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed") and (mounted := mounted_workload(pod))
    }
