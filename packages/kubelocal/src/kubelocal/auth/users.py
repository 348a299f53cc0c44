"""The user that a request acts as, and impersonation by headers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import unquote

from kubelocal.codec.status_errors import StatusError, bad_request, forbidden

__all__ = ["ANONYMOUS", "Authenticator", "Impersonation", "User", "impersonated"]


@dataclass(frozen=True, slots=True)
class User:
    """The user of a request. ``extra``: further attributes of the credentials."""

    username: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: dict[str, Sequence[str]] = field(default_factory=dict)


ACCOUNT = "system:serviceaccount:"
EXTRA = "impersonate-extra-"
AUTHENTICATION = "authentication.k8s.io"
AUTHENTICATED, UNAUTHENTICATED = "system:authenticated", "system:unauthenticated"
ANONYMOUS = User("system:anonymous", (UNAUTHENTICATED,))

Authenticator: TypeAlias = Callable[[str], User | None]
"""Maps a bearer token to a user; None for an invalid or expired token."""


@dataclass(frozen=True, slots=True)
class Impersonation:
    """One attribute of the user that a request acts as: the resource on which its own user needs ``impersonate``."""

    resource: str
    name: str
    namespace: str = ""
    group: str = ""
    subresource: str = ""


def impersonated(headers: Mapping[str, str], user: User, allowed: Callable[[Impersonation], bool]) -> User:
    """Return the user that the Impersonate headers of a request name, ``user`` without them.

    ``headers``: by lower-case name, the values of a repeated one on a line each. ``allowed``: whether ``user`` may
    impersonate this. Raises 403 otherwise, and 400 for headers that name no user. Source:
    ``endpoints/filters/impersonation`` of the API server.
    """
    name, uid = headers.get("impersonate-user", ""), headers.get("impersonate-uid", "")
    groups, extra = _values(headers.get("impersonate-group")), _extra(headers)
    impersonations = list(_impersonations(name, groups, uid, extra))
    if not impersonations:
        return user
    if not name:  # Kubernetes answers 500; as the own user the request would have more rights than it asks for
        requested = ", ".join(f"{part.resource} {part.name}" for part in impersonations)
        raise bad_request(f"requested [{requested}] without impersonating a user")
    for part in impersonations:
        if not allowed(part):
            raise _impersonation_forbidden(user, part)
    if name.startswith(ACCOUNT) and not groups:
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{impersonations[0].namespace}")
    usual = UNAUTHENTICATED if name == ANONYMOUS.username else AUTHENTICATED
    if not {AUTHENTICATED, UNAUTHENTICATED} & set(groups):
        groups = (*groups, usual)
    return User(name, groups, uid, extra)


def _impersonations(
    name: str, groups: Sequence[str], uid: str, extra: Mapping[str, Sequence[str]]
) -> Iterator[Impersonation]:
    if name.startswith(ACCOUNT):
        namespace, _, account = name.removeprefix(ACCOUNT).partition(":")
        yield Impersonation("serviceaccounts", account, namespace)
    elif name:
        yield Impersonation("users", name)
    yield from (Impersonation("groups", group) for group in groups)
    for key, values in extra.items():
        yield from (Impersonation("userextras", value, "", AUTHENTICATION, key) for value in values)
    if uid:
        yield Impersonation("uids", uid, "", AUTHENTICATION)


def _extra(headers: Mapping[str, str]) -> dict[str, Sequence[str]]:
    """Return the extra attributes; their keys are percent-encoded where a header's name could not hold them."""
    named = ((header.removeprefix(EXTRA), text) for header, text in headers.items() if header.startswith(EXTRA))
    return {unquote(key): _values(text) for key, text in named}


def _values(text: str | None) -> tuple[str, ...]:
    return () if text is None else tuple(text.split("\n"))


def _impersonation_forbidden(user: User, part: Impersonation) -> StatusError:
    resource = f"{part.resource}/{part.subresource}" if part.subresource else part.resource
    scope = f'in the namespace "{part.namespace}"' if part.namespace else "at the cluster scope"
    why = f'User "{user.username}" cannot impersonate resource "{resource}" in API group "{part.group}" {scope}'
    return forbidden(f"{part.resource}.{part.group}" if part.group else part.resource, part.name, why)
