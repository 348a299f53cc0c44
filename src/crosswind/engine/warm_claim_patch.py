"""The patches that change who a waiting pod belongs to. Pure.

Each is a JSON Patch (RFC 6902) that begins with a test: of several schedulers the first one succeeds, the others get
422. A test of resourceVersion would fail without a rival, because the kubelet's status writes change it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from crosswind.engine.pod_fingerprint import SAFE_TO_EVICT, PodIdentity
from crosswind.engine.warm_secrets import WORKLOAD_ANNOTATION
from crosswind.pods.naming import CLAIM_LABEL, POOL_LABEL
from crosswind.types import Json, Manifest

__all__ = [
    "CLAIM_LABEL",
    "NONCE_ANNOTATION",
    "OWNER_LABEL",
    "POOL_LABEL",
    "SCOPE_LABEL",
    "adopt_patch",
    "claim_patch",
    "retire_patch",
    "touch_patch",
    "waiting_metadata",
]

OWNER_LABEL = "crosswind/warm-owner"
"""The scheduler that keeps the pod, while it waits."""
SCOPE_LABEL = "crosswind/warm-scope"
"""Equal for the pods of one deployment and team."""
NONCE_ANNOTATION = "crosswind/nonce"
"""From which schedulers derive the pod's key."""
_TOUCH_ANNOTATION = "crosswind/touch"

_Patch = list[dict[str, Json]]


def waiting_metadata(metadata: Manifest, name: str, fingerprint: str, nonce: str, owner: str, scope: str) -> Manifest:
    """Return the metadata of a new waiting pod. ``metadata``: the template's."""
    labels = {POOL_LABEL: fingerprint, OWNER_LABEL: owner, SCOPE_LABEL: scope}
    annotations = {NONCE_ANNOTATION: nonce, SAFE_TO_EVICT: "true"}
    return {
        **metadata,
        "name": name,
        "labels": {**metadata["labels"], **labels},
        "annotations": {**metadata["annotations"], **annotations},
    }


def claim_patch(fingerprint: str, identity: PodIdentity, unique_id: str, sealed: str) -> _Patch:
    """Return the patch that makes a waiting pod the pod of a run."""
    labels = {**identity.labels, CLAIM_LABEL: unique_id}
    annotations = {**identity.annotations, WORKLOAD_ANNOTATION: sealed}
    return [
        _operation("test", "labels", POOL_LABEL, fingerprint),
        _operation("remove", "labels", POOL_LABEL),
        _operation("remove", "labels", OWNER_LABEL),
        *_additions("labels", labels),
        *_additions("annotations", annotations),
        _operation("remove", "annotations", SAFE_TO_EVICT)
        if identity.safe_to_evict is None
        else _operation("replace", "annotations", SAFE_TO_EVICT, identity.safe_to_evict),
    ]


def retire_patch(fingerprint: str) -> _Patch:
    """Return the patch after which nobody can claim a pod, so that it can be deleted."""
    return [_operation("test", "labels", POOL_LABEL, fingerprint), _operation("remove", "labels", POOL_LABEL)]


def adopt_patch(fingerprint: str, former_owner: str, owner: str) -> _Patch:
    """Return the patch by which a scheduler takes over a dead one's waiting pod."""
    return [
        _operation("test", "labels", POOL_LABEL, fingerprint),
        _operation("test", "labels", OWNER_LABEL, former_owner),
        _operation("replace", "labels", OWNER_LABEL, owner),
    ]


def touch_patch(uid: str) -> Manifest:
    """Return a merge patch that has the kubelet sync the pod once more, which renews its volumes."""
    return {"metadata": {"uid": uid, "annotations": {_TOUCH_ANNOTATION: "1"}}}


def _additions(part: str, values: Mapping[str, str]) -> Iterator[dict[str, Json]]:
    return (_operation("add", part, name, value) for name, value in values.items())


def _operation(name: str, part: str, key: str, value: str | None = None) -> dict[str, Json]:
    path = f"/metadata/{part}/{key.replace('~', '~0').replace('/', '~1')}"
    return {"op": name, "path": path} if value is None else {"op": name, "path": path, "value": value}
