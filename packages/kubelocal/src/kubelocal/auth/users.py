"""The user that a request acts as, and impersonation by headers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from kubelocal.codec.status_errors import forbidden

__all__ = ["ANONYMOUS", "Authenticator", "User", "impersonated"]


@dataclass(frozen=True, slots=True)
class User:
    """The user of a request. ``extra``: further attributes of the credentials."""

    username: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, Sequence[str]] = field(default_factory=dict)


ACCOUNT = "system:serviceaccount:"
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))

Authenticator: TypeAlias = Callable[[str], User | None]
"""Maps a bearer token to a user; None for an invalid or expired token."""


def impersonated(headers: Mapping[str, str], user: User, allowed: Callable[[str, str, str], bool]) -> User:
    """Return the user that the Impersonate headers of a request name, ``user`` without them.

    ``allowed``: whether ``user`` may impersonate (resource, namespace, name); raises 403 otherwise.
    """
    name = headers.get("impersonate-user", "")
    if not name:
        return user
    groups = tuple(group for group in headers.get("impersonate-group", "").split(",") if group)
    impersonations = [("users", "", name), *(("groups", "", group) for group in groups)]
    if name.startswith(ACCOUNT):
        namespace, _, account = name.removeprefix(ACCOUNT).partition(":")
        impersonations[0] = ("serviceaccounts", namespace, account)
        groups = groups or ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    for resource, within, target in impersonations:
        if not allowed(resource, within, target):
            scope = f'in the namespace "{within}"' if within else "at the cluster scope"
            why = f'User "{user.username}" cannot impersonate resource "{resource}" in API group "" {scope}'
            raise forbidden(resource, target, why)
    return ANONYMOUS if name == ANONYMOUS.username else User(name, (*groups, "system:authenticated"))
