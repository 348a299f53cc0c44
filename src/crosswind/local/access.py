"""Who asks, and may they: what the API needs of authentication and authorization, and the words of a refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from crosswind.local.addresses import Address
from crosswind.local.statuses import StatusError, failure, forbidden

__all__ = ["ANONYMOUS", "Authenticator", "User", "no_path_right", "no_right"]


@dataclass(frozen=True, slots=True)
class User:
    """Who asks. ``extra``: what the credentials tell beyond name and groups."""

    username: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, Sequence[str]] = field(default_factory=dict)


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))

Authenticator: TypeAlias = Callable[[str], User | None]
"""Turns a bearer token into a user; None for a token that is wrong or expired."""


def no_right(user: User, verb: str, address: Address) -> StatusError:
    """403 in the words of Kubernetes' authorizer."""
    kind = address.kind
    resource = f"{kind.plural}/{address.subresource}" if address.subresource else kind.plural
    scope = f'in the namespace "{address.namespace}"' if address.namespace is not None else "at the cluster scope"
    why = f'User "{user.username}" cannot {verb} resource "{resource}" in API group "{kind.group}" {scope}'
    return forbidden(kind.kind, address.name, why)


def no_path_right(user: User, verb: str, path: str) -> StatusError:
    """403 for what is no resource."""
    return failure(403, "Forbidden", f'forbidden: User "{user.username}" cannot {verb} path "{path}"', {})
