"""Builds requests to the API server, as values and without I/O."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict, Unpack
from urllib.parse import quote_plus

import orjson

from crosswind.kube.resources import PODS, SELF_SUBJECT_ACCESS_REVIEWS, Resource
from crosswind.types import Json, Manifest

__all__ = [
    "JSON",
    "LogSelection",
    "Patch",
    "Request",
    "Selection",
    "access_review",
    "create",
    "delete",
    "delete_collection",
    "document",
    "exec_in",
    "get",
    "list_page",
    "log",
    "patch",
    "port_forward",
    "replace",
    "version",
    "watch",
]

Query = tuple[tuple[str, str], ...]

WATCH_SILENCE = 120.0
"""Seconds without a byte after which a watch is dead: the API server sends a bookmark about once a minute."""

EXEC_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
"""WebSocket subprotocols of exec, best first; v5 can close stdin (KEP-4006)."""

PORT_FORWARD_PROTOCOLS = ("v4.channel.k8s.io",)
"""The only protocol that the kubelet offers for ports without SPDY."""


JSON = "application/json"

METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
"""Asks for an object's metadata alone; a server that cannot cut an object down answers with the whole one.

kube-apiserver 1.36 spends 17 % less CPU on the creations and deletions of a pod whose answers are cut: the answer to a
creation is 1 kB in place of 6. It refuses the form for ``deletecollection`` (406), even beside plain JSON.
"""


class Patch(enum.StrEnum):
    """The kind of a patch; the value is its content type."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"


class Selection(TypedDict, total=False):
    """Selects objects: of one ``namespace`` or (None, the default) of all, by selectors as in kubectl."""

    namespace: str | None
    labels: str
    fields: str


class LogSelection(TypedDict, total=False):
    """Selects a part of a log: the last lines, the last seconds, the first bytes, the run before the last restart.

    ``container`` is optional for a pod with one container. ``timestamps`` prefixes each line with its time.
    ``since_time`` (RFC 3339) is on the node's clock; the API server cuts it to whole seconds.
    """

    container: str | None
    tail_lines: int | None
    since_seconds: int | None
    since_time: str | None
    timestamps: bool
    limit_bytes: int | None
    previous: bool


class Request(NamedTuple):
    """One request.

    ``verb``, ``subject`` (``pods/exec``) and ``namespace`` are RBAC's names, for messages. ``timeout``: seconds for the
    whole exchange, None is the client's default; for a stream (with ``silence``) None means no limit. ``silence``:
    seconds without a byte after which a stream counts as dead, 0 for never. ``upgrade``: WebSocket subprotocols.
    ``accept``: the forms of an answer, best first.
    """

    method: str
    path: str
    query: Query = ()
    body: bytes | None = None
    content_type: str = "application/json"
    verb: str = "get"
    subject: str = ""
    group: str = ""
    namespace: str | None = None
    timeout: float | None = None
    silence: float | None = None
    upgrade: tuple[str, ...] = ()
    accept: str = JSON

    @property
    def target(self) -> str:
        """Path and query, encoded."""
        if not self.query:
            return self.path
        return self.path + "?" + "&".join(f"{key}={quote_plus(value)}" for key, value in self.query)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def version() -> Request:
    """Request the version of the API server."""
    return Request("GET", "/version")


def document(path: str) -> Request:
    """Request a document that is no object, such as ``/metrics`` or ``/readyz``."""
    return Request("GET", path)


def create(
    resource: Resource,
    manifest: Manifest,
    *,
    namespace: str | None = None,
    dry_run: bool = False,
    field_validation: str | None = None,
    metadata_only: bool = False,
) -> Request:
    """Create an object; ``namespace`` None takes the manifest's own."""
    namespace = _namespace_of(resource, manifest, namespace)
    query = _query(dryRun="All" if dry_run else None, fieldValidation=field_validation)
    accept = METADATA_ONLY if metadata_only else JSON
    return _request(resource, "create", "POST", namespace, query=query, body=orjson.dumps(manifest), accept=accept)


def get(resource: Resource, name: str, *, namespace: str | None = None) -> Request:
    """Read one object."""
    return _request(resource, "get", "GET", namespace, _named(resource, name))


def list_page(
    resource: Resource,
    *,
    limit: int | None = None,
    version: str | None = None,
    continue_from: str = "",
    **selection: Unpack[Selection],
) -> Request:
    """Read one page of a list. ``continue_from``: the token of the page before."""
    query = _query(
        **_selectors(selection),
        limit=limit,
        resourceVersion=None if continue_from else version,
        **{"continue": continue_from},
    )
    return _request(resource, "list", "GET", selection.get("namespace"), query=query)


def watch(
    resource: Resource,
    *,
    version: str,
    timeout: float,
    bookmarks: bool = True,
    silence: float = WATCH_SILENCE,
    **selection: Unpack[Selection],
) -> Request:
    """Follow changes after ``version`` for about ``timeout`` seconds, after which the server ends the stream."""
    seconds = max(1, round(timeout))
    query = _query(
        watch="true",
        resourceVersion=version,
        **_selectors(selection),
        timeoutSeconds=seconds,
        allowWatchBookmarks="true" if bookmarks else None,
    )
    namespace = selection.get("namespace")
    return _request(resource, "watch", "GET", namespace, query=query, timeout=seconds + 5.0, silence=silence)


def patch(
    resource: Resource,
    name: str,
    change: Json,
    *,
    namespace: str | None = None,
    how: Patch = Patch.MERGE,
    subresource: str = "",
) -> Request:
    """Change some fields of an object."""
    body, subject = orjson.dumps(change), (_named(resource, name), subresource)
    return _request(resource, "patch", "PATCH", namespace, *subject, body=body, content_type=how.value)


def replace(resource: Resource, manifest: Manifest, *, namespace: str | None = None, subresource: str = "") -> Request:
    """Write a whole object; its ``resourceVersion``, if it has one, must still be the current one."""
    name = _named(resource, manifest.get("metadata", {}).get("name", ""))
    namespace = _namespace_of(resource, manifest, namespace)
    return _request(resource, "update", "PUT", namespace, name, subresource, body=orjson.dumps(manifest))


def delete(
    resource: Resource,
    name: str,
    *,
    namespace: str | None = None,
    grace_period: int | None = None,
    uid: str | None = None,
    propagation: str | None = None,
    metadata_only: bool = False,
) -> Request:
    """Delete an object. With ``uid``, an object of another uid is refused with 409."""
    options = _delete_options(grace_period, propagation)
    if uid is not None:
        options["preconditions"] = {"uid": uid}
    accept = METADATA_ONLY if metadata_only else JSON
    return _request(resource, "delete", "DELETE", namespace, _named(resource, name), body=_body(options), accept=accept)


def delete_collection(
    resource: Resource, *, grace_period: int | None = None, **selection: Unpack[Selection]
) -> Request:
    """Delete all objects that the selectors match."""
    namespace = selection.get("namespace")
    if resource.namespaced and not namespace:
        raise ValueError(f"deleting {resource.plural} of all namespaces at once is not possible: pass namespace=...")
    query = _query(**_selectors(selection))
    body = _body(_delete_options(grace_period, None))
    return _request(resource, "deletecollection", "DELETE", namespace, query=query, body=body)


def log(
    pod: str,
    *,
    namespace: str,
    follow: bool = False,
    silence: float = 0.0,
    **options: Unpack[LogSelection],
) -> Request:
    """Read a container's log."""
    query = _query(
        container=options.get("container"),
        follow="true" if follow else None,
        tailLines=options.get("tail_lines"),
        sinceSeconds=options.get("since_seconds"),
        sinceTime=options.get("since_time"),
        timestamps="true" if options.get("timestamps") else None,
        limitBytes=options.get("limit_bytes"),
        previous="true" if options.get("previous") else None,
    )
    return _request(PODS, "get", "GET", namespace, pod, "log", query=query, silence=silence)


def exec_in(pod: str, command: Sequence[str], *, namespace: str, container: str | None, stdin: bool) -> Request:
    """Run a command in a container, over a WebSocket."""
    query = _query(container=container, stdin="true" if stdin else None, stdout="true", stderr="true")
    query += tuple(("command", word) for word in command)
    return _request(PODS, "create", "GET", namespace, pod, "exec", query=query, silence=0.0, upgrade=EXEC_PROTOCOLS)


def port_forward(pod: str, port: int, *, namespace: str) -> Request:
    """Connect to a port inside a pod, over a WebSocket."""
    query = _query(ports=port)
    upgrade = PORT_FORWARD_PROTOCOLS
    return _request(PODS, "create", "GET", namespace, pod, "portforward", query=query, silence=0.0, upgrade=upgrade)


def access_review(verb: str, resource: Resource, *, namespace: str | None, subresource: str = "") -> Request:
    """Ask whether we may do something; ``namespace`` None asks for all namespaces."""
    attributes = {
        "verb": verb,
        "group": resource.group,
        "resource": resource.plural,
        "subresource": subresource,
        "namespace": namespace or "",
    }
    review = {
        "apiVersion": SELF_SUBJECT_ACCESS_REVIEWS.api_version,
        "kind": SELF_SUBJECT_ACCESS_REVIEWS.kind,
        "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
    }
    return create(SELF_SUBJECT_ACCESS_REVIEWS, review)


def _request(
    resource: Resource,
    verb: str,
    method: str,
    namespace: str | None,
    name: str = "",
    subresource: str = "",
    **rest: Any,
) -> Request:
    path = resource.path(namespace, name, subresource)
    subject = f"{resource.plural}/{subresource}" if subresource else resource.plural
    return Request(method, path, verb=verb, subject=subject, group=resource.group, namespace=namespace, **rest)


def _query(**values: str | int | None) -> Query:
    return tuple((key, str(value)) for key, value in values.items() if value is not None and value != "")


def _selectors(selection: Selection) -> dict[str, str]:
    return {"labelSelector": selection.get("labels", ""), "fieldSelector": selection.get("fields", "")}


def _named(resource: Resource, name: str) -> str:
    if not name:
        raise ValueError(f"a {resource.kind} needs a name here; without one the request would mean all of them")
    return name


def _namespace_of(resource: Resource, manifest: Manifest, namespace: str | None) -> str | None:
    namespace = namespace or manifest.get("metadata", {}).get("namespace")
    if resource.namespaced and not namespace:
        raise ValueError(f"a {resource.kind} needs a namespace: pass namespace=... or set metadata.namespace")
    return namespace


def _delete_options(grace_period: int | None, propagation: str | None) -> Manifest:
    options = {"gracePeriodSeconds": grace_period, "propagationPolicy": propagation}
    return {key: value for key, value in options.items() if value is not None}


def _body(options: Manifest) -> bytes | None:
    return orjson.dumps({"apiVersion": "v1", "kind": "DeleteOptions", **options}) if options else None
