"""From a path and a method to what is asked for: the kind, the object, its part and the verb."""

from __future__ import annotations

import re
from dataclasses import dataclass

from crosswind.local.kinds import GROUP_VERSIONS, KINDS, RESOURCES, Kind
from crosswind.local.statuses import method_not_allowed, no_such_resource

__all__ = ["Address", "check_served", "locate", "verb_of"]

PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<part>[^/]+))?)?/?"
)
NAMESPACE_PARTS = KINDS["Namespace"].parts
COLLECTION = {"GET": "list", "HEAD": "list", "POST": "create", "DELETE": "deletecollection"}
OBJECT = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}


@dataclass(frozen=True, slots=True)
class Address:
    """What a path names. ``namespace``: None for all; ``name`` and ``subresource``: "" for none."""

    kind: Kind
    namespace: str | None
    name: str = ""
    subresource: str = ""

    @property
    def place(self) -> str:
        """The namespace to look in: "" for a cluster-wide kind."""
        return self.namespace or ""


def locate(path: str) -> Address | None:
    """Read a path; None when it is none of a resource in a served group; raise 404 for an unknown resource."""
    match = PATH.fullmatch(path)
    if not match:
        return None
    group, version, namespace, plural, name, part = match.groups("")
    if (group, version) not in GROUP_VERSIONS:
        return None
    if namespace and not group and not name and plural in NAMESPACE_PARTS:
        plural, namespace, name, part = "namespaces", "", namespace, plural
    kind = RESOURCES.get((group, version, plural))
    if kind is None or not _fits(kind, namespace, name) or (part and part not in kind.parts):
        raise no_such_resource()
    return Address(kind, namespace or None, name, part)


def _fits(kind: Kind, namespace: str, name: str) -> bool:
    """Whether the path has a namespace just where the kind wants one: only lists go without."""
    return bool(namespace) or not name if kind.namespaced else not namespace


def verb_of(method: str, address: Address, *, watch: bool) -> str:
    """Return the verb that is asked for, as permissions name it; raise 405 for a method that means none here."""
    verb = (OBJECT if address.name else COLLECTION).get(method)
    if verb is None:
        raise method_not_allowed()
    return "watch" if verb == "list" and watch else verb


def check_served(address: Address, verb: str) -> None:
    """Raise 405 unless the address has this verb."""
    kind = address.kind
    if address.subresource:
        served = kind.parts[address.subresource].verbs
    elif address.name:
        served = tuple(one for one in kind.verbs if one not in {"create", "list", "deletecollection"})
    elif kind.namespaced and address.namespace is None:
        served = ("list", "watch")
    else:
        served = kind.verbs
    if verb not in served:
        raise method_not_allowed()
