"""A certificate authority of the cluster's own: kubectl sends a token only over TLS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import trustme

__all__ = ["Certificates", "issue"]

LIFETIME = timedelta(days=365)
CLOCK_SKEW = timedelta(days=1)  # clients whose clock is behind accept the certificate too
SERVICE_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")


@dataclass(frozen=True, slots=True)
class Certificates:
    """The certificates of authority and server and the server's key, as PEM."""

    authority: str
    server: str
    key: str


def issue(addresses: Sequence[str]) -> Certificates:
    """Make an authority and a server certificate for these IP addresses and the names of the Service kubernetes."""
    now = datetime.now(UTC)
    authority = trustme.CA(path_length=0, organization_name="crosswind-local")
    server = authority.issue_cert(
        *dict.fromkeys((*addresses, "127.0.0.1", "::1")),
        *SERVICE_NAMES,
        common_name="crosswind-local",
        organization_name="crosswind-local",
        not_before=now - CLOCK_SKEW,
        not_after=now + LIFETIME,
    )
    (certificate,) = server.cert_chain_pems
    return Certificates(
        authority.cert_pem.bytes().decode(), certificate.bytes().decode(), server.private_key_pem.bytes().decode()
    )
