"""The requests that create, retire and adopt waiting pods. ``WarmPool`` owns the queue that sends them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias

from crosswind.engine.sealed_workload import new_nonce, pod_key
from crosswind.engine.waiting_pods import Pool, WaitingPod, read_waiting_pod
from crosswind.engine.warm_claim_patch import (
    CLAIM_LABEL,
    OWNER_LABEL,
    POOL_LABEL,
    SCOPE_LABEL,
    adopt_patch,
    retire_patch,
    waiting_metadata,
)
from crosswind.engine.warm_secrets import warm_secret, with_secret
from crosswind.errors import AlreadyExists, Conflict, CrosswindError, Invalid, NotFound
from crosswind.kube.client import Client
from crosswind.kube.requests import Patch
from crosswind.kube.resources import PODS, SECRETS
from crosswind.kube.retry import retry_transient
from crosswind.pods.fields import as_pod
from crosswind.types import Manifest, ObjectMeta

__all__ = ["AdoptPod", "CreatePod", "PoolRequest", "RetirePod", "WarmRequests"]

_SECRET_PATIENCE_S = 10.0
_PREFIX = "crosswind-warm-"


@dataclass(slots=True, eq=False)
class CreatePod:
    """Create one more pod of a pool."""

    pool: Pool
    made: WaitingPod | None = None
    """The pod, once it exists."""


@dataclass(slots=True, eq=False)
class RetirePod:
    """Delete a pod unless a scheduler claims it first."""

    pod: WaitingPod


@dataclass(slots=True, eq=False)
class AdoptPod:
    """Take over the pod of a dead scheduler."""

    pod: WaitingPod
    former_owner: str


PoolRequest: TypeAlias = CreatePod | RetirePod | AdoptPod


class WarmRequests:
    """Sends requests about waiting pods. ``secret``: see ``WarmSettings``. ``owner``: this scheduler, as a label."""

    def __init__(self, client: Client, secret: bytes, scope: str, owner: str) -> None:
        self._client = client
        self._secret = secret
        self._scope = scope
        self._owner = owner

    async def send(self, request: PoolRequest) -> None:
        """Carry out a request; raises ``CrosswindError``."""
        if isinstance(request, CreatePod):
            request.made = await self._create(request.pool)
        elif isinstance(request, RetirePod):
            await self._retire(request.pod)
        else:
            await self._adopt(request.pod, request.former_owner)

    async def _create(self, pool: Pool) -> WaitingPod:
        """Create a pod, then its Secret, which the pod owns: the garbage collector deletes both."""
        name, nonce, template = f"{_PREFIX}{secrets.token_hex(8)}", new_nonce(), pool.template
        fingerprint, namespace = template.fingerprint, template.namespace
        metadata = waiting_metadata(template.manifest["metadata"], name, fingerprint, nonce, self._owner, self._scope)
        manifest = {**template.manifest, "metadata": metadata, "spec": with_secret(template.manifest["spec"], name)}
        pod = await self._client.create(PODS, manifest, namespace=namespace, metadata_only=True)
        uid = pod["metadata"]["uid"]
        labels = {OWNER_LABEL: self._owner, SCOPE_LABEL: self._scope}
        secret = warm_secret(name, namespace, uid, pod_key(self._secret, nonce), labels)
        try:
            with contextlib.suppress(AlreadyExists):
                await retry_transient(
                    lambda: self._client.create(SECRETS, secret, namespace=namespace, metadata_only=True),
                    _SECRET_PATIENCE_S,
                )
        except CrosswindError:
            with contextlib.suppress(CrosswindError):
                await self._client.delete(PODS, name, namespace=namespace, uid=uid, metadata_only=True)
            raise
        stamped = {**pod, "metadata": {**pod["metadata"], "namespace": namespace}}
        return read_waiting_pod(as_pod(stamped), _now(), time.time())

    async def _retire(self, pod: WaitingPod) -> None:
        """Take a pod out of its pool, then delete it: a deletion alone might hit one that a rival has just claimed."""
        try:
            await self._client.patch(PODS, pod.name, retire_patch(pod.pool), namespace=pod.namespace, how=Patch.JSON)
        except (Invalid, NotFound):
            return  # it was claimed, or it is gone
        await self._delete(pod.name, pod.namespace, pod.uid)

    async def _adopt(self, pod: WaitingPod, former_owner: str) -> None:
        with contextlib.suppress(Invalid, NotFound):  # a sibling was faster, or it was claimed
            patch = adopt_patch(pod.pool, former_owner, self._owner)
            await self._client.patch(PODS, pod.name, patch, namespace=pod.namespace, how=Patch.JSON)

    async def sweep(self, namespaces: Collection[str | None]) -> None:
        """Delete the pods that were taken out of a pool by a scheduler that did not live to delete them."""
        labels = f"{SCOPE_LABEL}={self._scope},!{POOL_LABEL},!{CLAIM_LABEL}"
        for namespace in list(namespaces):
            listing = await self._client.list_mapped(PODS, _metadata, namespace=namespace, labels=labels)
            for metadata in listing.items:
                if "deletionTimestamp" not in metadata:
                    await self._delete(metadata["name"], metadata["namespace"], metadata["uid"])

    async def sweep_dead(self, namespaces: Collection[str | None], live: Collection[str]) -> None:
        """Delete the waiting pods of schedulers that are not among ``live``: none of this one's tasks needs them."""
        owners = ",".join(sorted({*live, self._owner}))
        labels = f"{SCOPE_LABEL}={self._scope},{POOL_LABEL},{OWNER_LABEL} notin ({owners})"
        for namespace in list(namespaces):
            for pod in (await self._client.list(PODS, namespace=namespace, labels=labels)).items:
                await self._retire(read_waiting_pod(as_pod(pod), _now(), time.time()))
        await self.sweep(namespaces)

    async def _delete(self, name: str, namespace: str, uid: str) -> None:
        with contextlib.suppress(NotFound, Conflict):  # it is gone; on a conflict another pod has its name
            await self._client.delete(PODS, name, namespace=namespace, uid=uid, metadata_only=True)


def _metadata(pod: Manifest) -> ObjectMeta:
    return as_pod(pod)["metadata"]


def _now() -> float:
    return asyncio.get_running_loop().time()
