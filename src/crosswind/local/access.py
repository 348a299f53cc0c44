"""Who asks, and may they: what the API needs of authentication and authorization, and the words of a refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from crosswind.local.addresses import Address
from crosswind.local.statuses import StatusError, failure, forbidden

__all__ = ["ANONYMOUS", "Authenticator", "User", "impersonated", "no_path_right", "no_right"]


@dataclass(frozen=True, slots=True)
class User:
    """Who asks. ``extra``: what the credentials tell beyond name and groups."""

    username: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, Sequence[str]] = field(default_factory=dict)


ACCOUNT = "system:serviceaccount:"
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))

Authenticator: TypeAlias = Callable[[str], User | None]
"""Turns a bearer token into a user; None for a token that is wrong or expired."""


def impersonated(headers: Mapping[str, str], user: User, allowed: Callable[[str, str, str], bool]) -> User:
    """Return whom a request acts as by its Impersonate headers: ``user`` without them.

    ``allowed``: whether the user may impersonate (resource, namespace, name); raises 403 where not.
    """
    name = headers.get("impersonate-user", "")
    if not name:
        return user
    groups = tuple(group for group in headers.get("impersonate-group", "").split(",") if group)
    asked = [("users", "", name), *(("groups", "", group) for group in groups)]
    if name.startswith(ACCOUNT):
        namespace, _, account = name.removeprefix(ACCOUNT).partition(":")
        asked[0] = ("serviceaccounts", namespace, account)
        groups = groups or ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    for resource, within, one in asked:
        if not allowed(resource, within, one):
            scope = f'in the namespace "{within}"' if within else "at the cluster scope"
            why = f'User "{user.username}" cannot impersonate resource "{resource}" in API group "" {scope}'
            raise forbidden(resource, one, why)
    return ANONYMOUS if name == ANONYMOUS.username else User(name, (*groups, "system:authenticated"))


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
