"""The resource and verb that a request's path and method name, as the API server's RequestInfo has them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kubelocal.auth.users import User
from kubelocal.codec.kinds import GROUP_VERSIONS, KINDS, RESOURCES, Kind
from kubelocal.codec.status_errors import StatusError, failure, forbidden, method_not_allowed, no_such_resource

__all__ = ["RequestInfo", "check_verb", "parse_path", "path_forbidden", "request_verb", "verb_forbidden"]

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
class RequestInfo:
    """The resource that a path names. ``namespace``: None for all; ``name`` and ``subresource``: "" for none."""

    kind: Kind
    namespace: str | None
    name: str = ""
    subresource: str = ""

    @property
    def namespace_key(self) -> str:
        """The namespace under which the object is stored; "" for a cluster-scoped kind."""
        return self.namespace or ""


def parse_path(path: str) -> RequestInfo | None:
    """Parse a path; return None for a path outside the served groups; raise 404 for an unknown resource in one."""
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
    return RequestInfo(kind, namespace or None, name, part)


def _fits(kind: Kind, namespace: str, name: str) -> bool:
    """Whether the path has a namespace exactly where the kind needs one: only lists across namespaces have none."""
    return bool(namespace) or not name if kind.namespaced else not namespace


def request_verb(method: str, info: RequestInfo, *, watch: bool) -> str:
    """Return the verb as RBAC names it; raise 405 for a method that has none here."""
    verb = (OBJECT if info.name else COLLECTION).get(method)
    if verb is None:
        raise method_not_allowed()
    return "watch" if verb == "list" and watch else verb


def check_verb(info: RequestInfo, verb: str) -> None:
    """Raise 405 unless the resource supports this verb."""
    kind = info.kind
    if info.subresource:
        served = kind.parts[info.subresource].verbs
    elif info.name:
        served = tuple(kind_verb for kind_verb in kind.verbs if kind_verb not in {"create", "list", "deletecollection"})
    elif kind.namespaced and info.namespace is None:
        served = ("list", "watch")
    else:
        served = kind.verbs
    if verb not in served:
        raise method_not_allowed()


def verb_forbidden(user: User, verb: str, info: RequestInfo) -> StatusError:
    """403 with the message of Kubernetes' authorizer."""
    kind = info.kind
    resource = f"{kind.plural}/{info.subresource}" if info.subresource else kind.plural
    scope = f'in the namespace "{info.namespace}"' if info.namespace is not None else "at the cluster scope"
    why = f'User "{user.username}" cannot {verb} resource "{resource}" in API group "{kind.group}" {scope}'
    return forbidden(kind.kind, info.name, why)


def path_forbidden(user: User, verb: str, path: str) -> StatusError:
    """403 for a path that is not a resource."""
    return failure(403, "Forbidden", f'forbidden: User "{user.username}" cannot {verb} path "{path}"', {})
