"""The HTTP API as an ASGI application: authenticates, authorizes, reads requests and answers from the registry.

Every ``StatusError`` that is raised below becomes a response here. A watch runs in the task of its request, which the
server owns; ``Api.close`` ends all of them, because a watch without a timeout would hold up the server's shutdown.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol, TypeAlias

import orjson
from orjson import JSONDecodeError
from starlette.requests import HTTPConnection
from starlette.responses import Response, StreamingResponse
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from kubelocal.api import pod_streams
from kubelocal.api.content_negotiation import EventWriter, write_list, write_object
from kubelocal.api.conversion import check_new_event, rescaled, scale_of, shown, stored, stored_kind
from kubelocal.api.introspection import answer_document
from kubelocal.api.request_info import RequestInfo, check_verb, parse_path, path_forbidden, request_verb, verb_forbidden
from kubelocal.api.request_metrics import RequestCounter
from kubelocal.api.request_parsing import ApiRequest, as_json, read_body, read_headers, read_yaml, watch_options
from kubelocal.auth.access_reviews import review
from kubelocal.auth.escalation import escalation_guard
from kubelocal.auth.rbac import Authorizer
from kubelocal.auth.users import ANONYMOUS, Authenticator, Impersonation, User, impersonated
from kubelocal.codec import decoder
from kubelocal.codec.kinds import BODIES, EVENTS, Kind
from kubelocal.codec.schema import CUSTOM
from kubelocal.codec.status_errors import (
    StatusError,
    bad_request,
    expired,
    forbidden,
    internal_error,
    success,
    unauthorized,
    unsupported_media_type,
)
from kubelocal.interfaces import Runtime
from kubelocal.registry.deletion import DeleteOptions, read_delete_options
from kubelocal.registry.generic_registry import KINDS_RETURNED_ON_DELETE, ClusterRegistry, Guard, OwnershipUpdate
from kubelocal.registry.patches import APPLY, PATCHES, STRATEGIC
from kubelocal.registry.server_side_apply import applied_object, apply, created_by, tracked
from kubelocal.storage.list_pages import ListPage, check_version, list_page, read_list_options
from kubelocal.storage.selectors import Selector, select
from kubelocal.storage.store import Compacted, Entry
from kubelocal.storage.watch_stream import WatchStream
from kubelocal.types import Json, Manifest

__all__ = ["Api", "TokenMinter", "make_app"]

Endpoint: TypeAlias = Callable[[ApiRequest, Receive], Awaitable[Response]]

STREAMED = frozenset({"log", "exec", "attach", "portforward"})
CHILDREN_PRESERVED = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set"
    " propagationPolicy=Orphan to suppress this warning"
)
CREATED_STATUS = b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":201}'
_log = logging.getLogger(__name__)


class TokenMinter(Protocol):
    """Answers a TokenRequest for a service account."""

    def issue(self, account: Manifest, request: Manifest) -> Manifest:
        """Return the request with its status; raise 422 for an invalid one."""
        ...


class Api:
    """The ASGI application; ``close`` ends the open watches, so that the server can shut down."""

    def __init__(
        self,
        registry: ClusterRegistry,
        runtime: Runtime,
        authenticator: Authenticator,
        authorizer: Authorizer,
        tokens: TokenMinter,
    ) -> None:
        self._registry = registry
        self._store = registry.store
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._tokens = tokens
        self._streams = Router(routes=pod_streams.routes(registry, runtime, self._permit))
        self._watches: set[WatchStream] = set()
        self._counter = RequestCounter()
        self._verbs: dict[str, Endpoint] = {
            "get": self._get,
            "list": self._list,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }

    def close(self) -> None:
        """End all watches."""
        for watch in self._watches:
            watch.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or carry a stream until it ends."""
        send = self._counter.watch(scope, send)
        try:
            await self._serve(scope, receive, send)
        except StatusError as refusal:
            await _refuse(refusal)(scope, receive, send)
        except Exception as problem:
            _log.exception("%s %s failed", scope.get("method", ""), scope["path"])
            await _refuse(internal_error(f"{type(problem).__name__}: {problem}"))(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = read_headers(scope)
        user = self._identify(headers)
        info = parse_path(scope["path"])
        if info is None:
            self._authorize_path(user, scope)
            if scope["path"] == "/metrics":
                await Response(self._counter.text(), media_type="text/plain; version=0.0.4")(scope, receive, send)
                return
            await answer_document(scope.get("method", "GET"), scope["path"], headers)(scope, receive, send)
            return
        request = ApiRequest(scope, headers, info, user)
        request.verb = request_verb(scope.get("method", "GET"), info, watch=request.watch)
        self._counter.name(scope, request.verb, info.kind.plural, info.subresource)
        self._authorize(user, request.verb, replace(info, name=_authorized_name(request)))
        check_verb(info, request.verb)
        if info.subresource in STREAMED:
            scope["user"] = user
            await self._streams(scope, receive, send)
        elif request.verb == "watch":
            await self._watch(request, scope, receive, send)
        else:
            response = await self._verbs[request.verb](request, receive)
            for warning in request.warnings:
                text = warning.replace("\\", "\\\\").replace('"', '\\"')
                response.headers.append("Warning", f'299 - "{text}"')
            await response(scope, receive, send)

    # authentication and authorization

    def _identify(self, headers: dict[str, str]) -> User:
        user = self._authenticate(headers)

        def allowed(part: Impersonation) -> bool:
            attributes = (part.group, part.resource, part.subresource, part.namespace, part.name)
            return self._authorizer.allowed(user, "impersonate", *attributes)

        return impersonated(headers, user, allowed)

    def _authenticate(self, headers: dict[str, str]) -> User:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if not token:
            return ANONYMOUS
        user = self._authenticator(token.strip()) if scheme.lower() == "bearer" else None
        if user is None:
            raise unauthorized()
        return user

    def _authorize(self, user: User, verb: str, info: RequestInfo) -> None:
        kind = info.kind
        attributes = (verb, kind.group, kind.plural, info.subresource, info.namespace_key, info.name)
        if not self._authorizer.allowed(user, *attributes):
            raise verb_forbidden(user, verb, info)

    def _authorize_path(self, user: User, scope: Scope) -> None:
        verb, path = scope.get("method", "GET").lower(), scope["path"]
        if not self._authorizer.allowed_path(user, verb, path):
            raise path_forbidden(user, verb, path)

    def _guard(self, request: ApiRequest) -> Guard | None:
        info = request.info
        return escalation_guard(self._authorizer, request.user, info.kind.kind, info.name)

    def _permit(self, connection: HTTPConnection, verb: str) -> None:
        """Raise 403 unless a stream's client may also use this verb; Kubernetes gives no reason here."""
        info = parse_path(connection.scope["path"])
        assert info is not None
        try:
            self._authorize(connection.scope["user"], verb, info)
        except StatusError as refusal:
            raise forbidden(info.kind.kind, info.name, "") from refusal

    # reading

    async def _get(self, request: ApiRequest, _: Receive) -> Response:
        info = request.info
        check_version(self._store, request.query.get("resourceVersion", ""))
        entry = self._registry.entry(info.kind.kind, info.namespace_key, info.name)
        if info.subresource == "scale":
            return self._scale(request, entry)
        return self._object(request, entry)

    async def _list(self, request: ApiRequest, _: Receive) -> Response:
        info, view = request.info, request.view
        options = read_list_options(request.query, _selector(request))
        page = list_page(self._store, info.kind, info.namespace, options)
        return _json(write_list(view, info.kind, page))

    async def _watch(self, request: ApiRequest, scope: Scope, receive: Receive, send: Send) -> None:
        kind, writer = request.info.kind, EventWriter(request.view, request.info.kind)
        options = watch_options(self._store, request.query)
        try:
            watch = WatchStream(
                self._store,
                kind.kind,
                request.info.namespace,
                _selector(request),
                options,
                writer.event,
                writer.bookmark,
            )
        except Compacted as compacted:
            line = {"type": "ERROR", "object": expired(str(compacted)).status}
            await _json(orjson.dumps(line) + b"\n")(scope, receive, send)
            return
        self._watches.add(watch)
        try:
            await StreamingResponse(watch.lines(), media_type="application/json")(scope, receive, send)
        finally:
            watch.close()
            self._watches.discard(watch)

    # writing

    async def _create(self, request: ApiRequest, receive: Receive) -> Response:
        info, body = request.info, await read_body(receive)
        if info.subresource:
            return self._create_part(request, body)
        manifest = self._decode(request, info.kind, body)
        if not info.kind.stored:
            return _json(orjson.dumps(review(info.kind, manifest, request.user, self._authorizer)), 201)
        check_new_event(info.kind, manifest)
        kind, manifest = stored_kind(info.kind), stored(info.kind, manifest)
        writer = request.writer
        entry = self._registry.add(
            kind,
            info.namespace_key,
            manifest,
            dry_run=request.dry_run,
            warnings=request.warnings,
            own=lambda fresh: created_by(kind, fresh, writer),
            guard=self._guard(request),
        )
        return self._object(request, entry, 201)

    def _create_part(self, request: ApiRequest, body: bytes) -> Response:
        info = request.info
        manifest = self._decode(request, BODIES[info.kind.parts[info.subresource].body], body)
        if info.subresource == "token":
            account = self._registry.get("ServiceAccount", info.namespace_key, info.name)
            return _json(orjson.dumps(self._tokens.issue(account, manifest)), 201)
        applied = (manifest.get("metadata") or {}).get("name") or info.name
        if applied != info.name:
            raise bad_request(f"name in URL does not match name in {manifest['kind']} object")
        if info.subresource == "binding":
            if not request.dry_run:
                self._registry.bind(info.namespace_key, info.name, manifest)
        else:
            options = read_delete_options(manifest.get("deleteOptions") or {}, {}, dry_run=request.dry_run)
            self._registry.evict(info.namespace_key, info.name, options)
        return _json(CREATED_STATUS, 201)

    async def _update(self, request: ApiRequest, receive: Receive) -> Response:
        info, body = request.info, await read_body(receive)
        if info.subresource == "scale":
            scale = self._decode(request, BODIES["Scale"], body)
            return self._scale(request, self._revise(request, lambda old: rescaled(old, scale)))
        manifest = self._decode(request, info.kind, body)
        entry, new = self._registry.replace(
            stored_kind(info.kind),
            info.namespace_key,
            info.name,
            stored(info.kind, manifest),
            subresource=info.subresource,
            dry_run=request.dry_run,
            warnings=request.warnings,
            own=_owning(request),
            guard=self._guard(request),
        )
        return self._object(request, entry, 201 if new else 200)

    async def _patch(self, request: ApiRequest, receive: Receive) -> Response:
        info = request.info
        # CustomResourceDefinitions have no merge keys, which a strategic merge patch needs.
        served = [media for media in PATCHES if media != STRATEGIC or f"V1{info.kind.kind}" not in CUSTOM]
        if request.media == APPLY and info.kind is not EVENTS:
            return await self._apply(request, receive)
        if request.media not in served:
            raise unsupported_media_type([*served, APPLY])
        patched_by = PATCHES[request.media]
        patch = _parse(await read_body(receive))
        if info.subresource == "scale":
            part = BODIES["Scale"]
            entry = self._revise(
                request, lambda old: rescaled(old, self._check(request, part, patched_by(scale_of(old), patch)))
            )
            return self._scale(request, entry)

        def make(old: Manifest) -> Manifest:
            before = shown(info.kind, Entry(old, 0)).object
            return stored(info.kind, self._check(request, info.kind, patched_by(before, patch)))

        return self._object(request, self._revise(request, make))

    async def _apply(self, request: ApiRequest, receive: Receive) -> Response:
        """Server-side apply: merge the body into the object, or create it, and record the owners of its fields."""
        info, kind, writer, force = request.info, request.info.kind, request.writer, request.forced
        applied, unknown = decoder.decode(kind, read_yaml(await read_body(receive)))
        metadata = applied.setdefault("metadata", {})
        metadata.setdefault("name", info.name)
        if "status" in kind.parts and info.subresource != "status":
            applied.pop("status", None)
        if metadata.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        if unknown or metadata["name"] != info.name:
            raise _unfit_to_apply(info, applied, unknown)
        if not info.subresource and not self._store.get(kind.kind, info.namespace_key, info.name):
            return self._create_applied(request, applied)
        owners: list[Json] = []

        def make(old: Manifest) -> Manifest:
            merged = apply(kind, old, applied, writer, force=force)
            owners.extend(merged["metadata"].get("managedFields", ()))
            return merged

        def own(_: Manifest, new: Manifest) -> Manifest:
            return {**new, "metadata": _with_owners(new["metadata"], owners)}

        return self._object(request, self._revise(request, make, own))

    def _create_applied(self, request: ApiRequest, applied: Manifest) -> Response:
        info, writer = request.info, request.writer
        self._authorize(request.user, "create", replace(info, name=""))
        owners = applied_object(info.kind, applied, writer)["metadata"].get("managedFields", [])
        entry = self._registry.add(
            info.kind,
            info.namespace_key,
            applied,
            dry_run=request.dry_run,
            warnings=request.warnings,
            own=lambda fresh: fresh.update(metadata=_with_owners(fresh["metadata"], owners)),
            guard=self._guard(request),
        )
        return self._object(request, entry, 201)

    def _revise(
        self, request: ApiRequest, make: Callable[[Manifest], Manifest], own: OwnershipUpdate | None = None
    ) -> Entry:
        """Store the state that ``make`` returns for the present one; a Scale changes the object itself."""
        info = request.info
        return self._registry.revise(
            stored_kind(info.kind),
            info.namespace_key,
            info.name,
            make,
            subresource="" if info.subresource == "scale" else info.subresource,
            dry_run=request.dry_run,
            warnings=request.warnings,
            own=own or _owning(request),
            guard=self._guard(request),
        )

    async def _delete(self, request: ApiRequest, receive: Receive) -> Response:
        info, kind = request.info, request.info.kind
        options = await _delete_options(request, receive)
        if kind.kind == "Job" and not options.propagation:
            request.warnings.append(CHILDREN_PRESERVED)
        entry, compacted = self._registry.erase(kind, info.namespace_key, info.name, options)
        if compacted and kind.kind not in KINDS_RETURNED_ON_DELETE:
            metadata = entry.object["metadata"]
            return _json(orjson.dumps(success(kind.kind, metadata["name"], metadata["uid"])))
        return self._object(request, entry)

    async def _delete_collection(self, request: ApiRequest, receive: Receive) -> Response:
        info, view = request.info, request.view
        options = await _delete_options(request, receive)
        erased = self._registry.erase_all(info.kind, info.namespace, _selector(request), options)
        return _json(write_list(view, info.kind, ListPage(erased, self._store.version)))

    # bodies

    def _decode(self, request: ApiRequest, kind: Kind, body: bytes) -> Manifest:
        manifest, warnings = decoder.decode(kind, as_json(kind, request.media, body), strict=request.strictness)
        request.warnings += warnings
        return manifest

    def _check(self, request: ApiRequest, kind: Kind, patched: Json) -> Manifest:
        manifest, warnings = decoder.check(kind, patched, strict=request.strictness)
        request.warnings += warnings
        return manifest

    def _scale(self, request: ApiRequest, entry: Entry) -> Response:
        return _json(
            write_object(request.view, BODIES["Scale"], Entry(scale_of(entry.object), entry.version), entry.version)
        )

    def _object(self, request: ApiRequest, entry: Entry, code: int = 200) -> Response:
        return _json(write_object(request.view, request.info.kind, entry, entry.version), code)


def _owning(request: ApiRequest) -> OwnershipUpdate:
    kind, writer = stored_kind(request.info.kind), request.writer
    return lambda old, new: tracked(kind, old, new, writer)


def _with_owners(metadata: Manifest, owners: list[Json]) -> Manifest:
    """Return metadata with these owners; without any the field is omitted, as Go does."""
    others = {key: value for key, value in metadata.items() if key != "managedFields"}
    return {**others, "managedFields": owners} if owners else others


def _unfit_to_apply(info: RequestInfo, applied: Manifest, unknown: list[str]) -> StatusError:
    metadata = applied.get("metadata") or {}
    if unknown:
        target = f"{info.namespace_key}/{info.name}; {applied['apiVersion']}, Kind={applied['kind']}"
        fields = ", ".join(f".{field.split(chr(34))[1]}: field not declared in schema" for field in unknown)
        return bad_request(f"failed to create typed patch object ({target}): {fields}")
    name = metadata.get("name", "")
    return bad_request(f"the name of the object ({name}) does not match the name on the URL ({info.name})")


def make_app(
    registry: ClusterRegistry,
    runtime: Runtime,
    authenticator: Authenticator,
    authorizer: Authorizer,
    tokens: TokenMinter,
) -> Api:
    """Return the ASGI application that serves the registry's objects and the runtime's streams.

    ``authenticator``: maps a bearer token to a user. ``tokens``: issues the tokens of service accounts.
    """
    return Api(registry, runtime, authenticator, authorizer, tokens)


def _authorized_name(request: ApiRequest) -> str:
    """Return the name that rules with ``resourceNames`` are held against: a list or watch of one name has it too.

    As ``NewRequestInfo`` of the API server; a collection is not deleted by name.
    """
    if request.verb not in ("list", "watch"):
        return request.info.name
    try:
        return select(request.info.kind, "", request.query.get("fieldSelector", "")).name or ""
    except StatusError:  # answered with 400, but only to those who may list everything
        return ""


def _selector(request: ApiRequest) -> Selector:
    return select(request.info.kind, request.query.get("labelSelector", ""), request.query.get("fieldSelector", ""))


async def _delete_options(request: ApiRequest, receive: Receive) -> DeleteOptions:
    body = await read_body(receive)
    applied = _parse(as_json(BODIES["DeleteOptions"], request.media, body)) if body else None
    return read_delete_options(applied if isinstance(applied, dict) else {}, request.query, dry_run=request.dry_run)


def _parse(body: bytes) -> Json:
    try:
        return orjson.loads(body) if body else None
    except JSONDecodeError as problem:
        raise bad_request(f"couldn't get version/kind; json parse error: {problem}") from problem


def _json(body: bytes, code: int = 200) -> Response:
    return Response(body, code, media_type="application/json")


def _refuse(refusal: StatusError) -> Response:
    response = _json(orjson.dumps(refusal.status), refusal.code)
    if refusal.retry_after is not None:
        response.headers["Retry-After"] = str(refusal.retry_after)
    if refusal.code == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
