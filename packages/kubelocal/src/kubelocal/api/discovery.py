"""Discovery: the served groups, versions and resources.

The aggregated form (KEP-3352) is not served: kubectl requests it first and falls back to the plain one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from kubelocal.codec.kinds import BODIES, GROUP_VERSIONS, SERVED, VERSION, Kind, Subresource
from kubelocal.types import Manifest

__all__ = ["INFO", "api_group", "api_groups", "api_versions", "resources"]

"""The version of Kubernetes whose behaviour is served."""

INFO: Manifest = {
    "major": "1",
    "minor": "36",
    "gitVersion": VERSION,
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "python",
    "platform": "linux/amd64",
}
"""The response of ``/version``."""

GROUPS = tuple(dict.fromkeys(group for group, _ in GROUP_VERSIONS if group))


def api_versions(address: str) -> Manifest:
    """Answer ``/api``; ``address`` is the server's host and port."""
    by_client = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": by_client}


@cache
def api_groups() -> Manifest:
    """Answer ``/apis``."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in GROUPS]}


def api_group(name: str) -> Manifest | None:
    """Answer ``/apis/NAME``; None for an unknown group."""
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name)} if name in GROUPS else None


@cache
def resources(group: str, version: str) -> Manifest | None:
    """Answer ``/api/v1`` or ``/apis/GROUP/VERSION``; None for an unknown one."""
    if version != "v1" or (group and group not in GROUPS):
        return None
    listed = [entry for kind in _kinds(group) for entry in _entries(kind)]
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}


def _group(name: str) -> Manifest:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _kinds(group: str) -> list[Kind]:
    return sorted((kind for kind in SERVED if kind.group == group), key=lambda kind: kind.plural)


def _entries(kind: Kind) -> Iterator[Manifest]:
    """Describe a kind and its subresources, each as a resource of its own."""
    names = {"shortNames": list(kind.short_names)} if kind.short_names else {}
    groups = {"categories": list(kind.categories)} if kind.categories else {}
    yield {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": sorted(kind.verbs),
        **names,
        **groups,
    }
    for part in kind.subresources:
        yield {
            "name": f"{kind.plural}/{part.name}",
            "singularName": "",
            "namespaced": kind.namespaced,
            **_body(kind, part),
            "verbs": sorted(part.verbs),
        }


def _body(kind: Kind, part: Subresource) -> Manifest:
    """Return the kind of a subresource's requests and responses."""
    body = BODIES.get(part.body)
    if body is None or body.group == kind.group:
        return {"kind": part.body or kind.kind}
    return {"group": body.group, "version": body.version, "kind": body.kind}
