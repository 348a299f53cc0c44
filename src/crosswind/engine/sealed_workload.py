"""Seals a workload for one waiting pod: everybody who may read pods sees its annotations, and the workload has a token.

Pure but for random nonces. The pod's key follows from a secret that all schedulers share and from the nonce in the
pod's annotation, so that each scheduler can claim each pod. The pod mounts its own key and no other. The pod's uid is
the associated data: a workload that is sealed for one pod cannot be replayed to another.
"""

from __future__ import annotations

import secrets
from base64 import b64decode, b64encode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from crosswind.pods.naming import DEPLOYMENT_LABEL, team_label

__all__ = [
    "MAX_BYTES",
    "deployment_label",
    "deployment_scope",
    "new_nonce",
    "open_sealed",
    "owner_labels",
    "pod_key",
    "seal",
]

MAX_BYTES = 100_000
"""The largest workload that is sealed: all annotations of a pod together may have 262,144 bytes."""

_KEY_BYTES, _NONCE_BYTES = 32, 12
_KEY_PURPOSE, _SCOPE_PURPOSE = b"crosswind warm pod v1", b"crosswind warm scope v1"


def new_nonce() -> str:
    """Return the nonce of a new pod, 32 hexadecimal digits."""
    return secrets.token_hex(16)


def pod_key(shared_secret: bytes, nonce: str) -> bytes:
    """Return the key of the pod with this nonce, 32 bytes. Raises ``ValueError`` for a nonce that is no hexadecimal."""
    return _derive(shared_secret, bytes.fromhex(nonce), _KEY_PURPOSE, _KEY_BYTES)


def deployment_scope(shared_secret: bytes, team: str = "") -> str:
    """Return a label's value that the pods of one deployment, and of one team in it, have in common."""
    return _derive(shared_secret, team.encode(), _SCOPE_PURPOSE, 8).hex()


def deployment_label(shared_secret: bytes) -> dict[str, str]:
    """Return the label of the worker pods and workload Secrets of one deployment, {} without a secret."""
    return {DEPLOYMENT_LABEL: deployment_scope(shared_secret)} if shared_secret else {}


def owner_labels(shared_secret: bytes, team: str) -> dict[str, str]:
    """Return the labels of all pods and Secrets of one executor of a deployment: the deployment's and the team's.

    A task takes a waiting pod only if that equals the task's own pod, so both are made with these labels.
    """
    return {**team_label(team), **deployment_label(shared_secret)}


def seal(payload: bytes, key: bytes, uid: str) -> str:
    """Return a workload's JSON, sealed for the pod with this uid, as text: base64 of nonce and ciphertext."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return b64encode(nonce + AESGCM(key).encrypt(nonce, payload, uid.encode("ascii"))).decode()


def open_sealed(text: str, key: bytes, uid: str) -> bytes:
    """Return what was sealed. Raises ``ValueError`` if it was sealed for another pod, or changed."""
    sealed = b64decode(text, validate=True)
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], uid.encode("ascii"))
    except InvalidTag:
        raise ValueError(f"the workload was not sealed for pod {uid} with this key") from None


def _derive(secret: bytes, salt: bytes, purpose: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=purpose).derive(secret)
