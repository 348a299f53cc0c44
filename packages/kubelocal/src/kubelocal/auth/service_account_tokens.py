"""Bearer tokens: the administrator's, and JSON Web Tokens of service accounts with audience, expiry and bound object.

Claims are those of Kubernetes' bound tokens (KEP-1205). They are signed with HS256, so that only this cluster can
verify them; a real API server signs with RS256 and publishes the public key.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any
from uuid import uuid4

import jwt

from kubelocal.auth.users import User
from kubelocal.codec import field_errors
from kubelocal.codec.status_errors import StatusError, bad_request, conflict, invalid
from kubelocal.interfaces import Registry
from kubelocal.registry.deletion import timestamp
from kubelocal.types import Json, Manifest

__all__ = ["AUDIENCE", "TokenIssuer"]

AUDIENCE = "https://kubernetes.default.svc.cluster.local"
ADMINISTRATOR = User("kubernetes-admin", ("system:masters", "system:authenticated"))
MIN_LIFETIME_S, MAX_LIFETIME_S, DEFAULT_LIFETIME_S = 600, 2**32, 3600  # seconds
_ALGORITHM = "HS256"


class TokenIssuer:
    """Issues the tokens of service accounts and authenticates bearer tokens.

    ``administrator``: the token with all permissions. ``key``: at least 32 secret bytes; by default random, so that
    tokens end with this object. ``clock``: seconds since 1970.
    """

    def __init__(
        self, registry: Registry, administrator: str, key: bytes = b"", clock: Callable[[], float] = time.time
    ) -> None:
        self._registry = registry
        self._administrator = administrator.encode()
        self._key = key or secrets.token_bytes(32)
        self._clock = clock
        self._claims = lru_cache(4096)(self._read)

    # issuing

    def issue(self, account: Manifest, request: Manifest) -> Manifest:
        """Answer a TokenRequest for a service account; raise 404, 409 or 422 for an invalid one."""
        spec = request.get("spec") or {}
        name, namespace = account["metadata"]["name"], account["metadata"]["namespace"]
        seconds = spec.get("expirationSeconds") or DEFAULT_LIFETIME_S
        if not MIN_LIFETIME_S <= seconds <= MAX_LIFETIME_S:
            detail = "less than 10 minutes" if seconds < MIN_LIFETIME_S else "larger than 2^32 seconds"
            cause = field_errors.invalid("spec.expirationSeconds", seconds, f"may not specify a duration {detail}")
            raise invalid("TokenRequest", "", [cause])
        audiences = spec.get("audiences") or [AUDIENCE]
        bound = spec.get("boundObjectRef")
        token, expiry = self.mint(account, audiences, seconds, self._bound(account, bound) if bound else None)
        metadata = {**request.get("metadata", {}), "name": name, "namespace": namespace}
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {**metadata, "creationTimestamp": timestamp(self._clock())},
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound},
            "status": {"token": token, "expirationTimestamp": timestamp(expiry)},
        }

    def mint(
        self, account: Manifest, audiences: Sequence[str], seconds: int, bound: Manifest | None = None
    ) -> tuple[str, float]:
        """Make a token without checks; return it and its expiry. ``bound``: the Pod or Secret that it is bound to."""
        metadata, now = account["metadata"], int(self._clock())
        about: Manifest = {"namespace": metadata["namespace"], "serviceaccount": _reference(account)}
        if bound is not None:
            about[bound["kind"].lower()] = _reference(bound)
            if node := bound.get("spec", {}).get("nodeName"):
                about["node"] = {"name": node}
        claims = {
            "aud": list(audiences),
            "exp": now + seconds,
            "iat": now,
            "iss": AUDIENCE,
            "jti": str(uuid4()),
            "kubernetes.io": about,
            "nbf": now,
            "sub": f"system:serviceaccount:{metadata['namespace']}:{metadata['name']}",
        }
        return jwt.encode(claims, self._key, _ALGORITHM), float(now + seconds)

    def _bound(self, account: Manifest, reference: Manifest) -> Manifest:
        """Return the object that a token is bound to; raise 400, 404 or 409 for an invalid reference."""
        kind, name = reference.get("kind", ""), reference.get("name", "")
        if kind not in ("Pod", "Secret"):
            raise bad_request(f"cannot bind token for serviceaccount to a type {kind}")
        bound = self._registry.get(kind, account["metadata"]["namespace"], name)
        uid, expected_uid = bound["metadata"]["uid"], reference.get("uid")
        if expected_uid and expected_uid != uid:
            detail = f"the UID in the bound object reference ({expected_uid}) does not match the UID in record"
            raise conflict(kind, name, f"{detail}. The object might have been deleted and then recreated")
        user = bound.get("spec", {}).get("serviceAccountName", "default")
        if kind == "Pod" and user != account["metadata"]["name"]:
            raise bad_request(f"cannot bind token to a Pod running with a different ServiceAccount name ({user})")
        return bound

    # authenticating

    def authenticate(self, token: str) -> User | None:
        """Return the user of a token; None if it is invalid or expired, or its account is deleted."""
        if hmac.compare_digest(token.encode(), self._administrator):
            return ADMINISTRATOR
        claims = self._claims(token)
        if claims is None or not claims["nbf"] <= self._clock() < claims["exp"] or AUDIENCE not in claims["aud"]:
            return None
        about = claims["kubernetes.io"]
        parts = {"serviceaccount": "ServiceAccount", "pod": "Pod", "secret": "Secret"}
        if all(self._lives(kind, about["namespace"], about[part]) for part, kind in parts.items() if part in about):
            return _user(claims)
        return None

    def _lives(self, kind: str, namespace: str, reference: Manifest) -> bool:
        try:
            live = self._registry.get(kind, namespace, reference["name"])
        except StatusError:
            return False
        return bool(live["metadata"]["uid"] == reference["uid"])

    def _read(self, token: str) -> Any:
        """Return the claims of a token that this cluster signed, else None.

        Time and audience are left to the caller, because the claims are cached and ``clock`` may be a test's.
        """
        try:
            return jwt.decode(
                token,
                self._key,
                [_ALGORITHM],
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False},
            )
        except jwt.InvalidTokenError:
            return None


def _reference(manifest: Manifest) -> Json:
    return {"name": manifest["metadata"]["name"], "uid": manifest["metadata"]["uid"]}


def _user(claims: Manifest) -> User:
    about = claims["kubernetes.io"]
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{about['namespace']}", "system:authenticated")
    extra: dict[str, Sequence[str]] = {"authentication.kubernetes.io/credential-id": [f"JTI={claims['jti']}"]}
    for part in ("pod", "node"):
        for field in ("name", "uid"):
            if value := about.get(part, {}).get(field):
                extra[f"authentication.kubernetes.io/{part}-{field}"] = [value]
    return User(claims["sub"], groups, about["serviceaccount"]["uid"], extra)
