"""The HTTP API: authenticates, authorizes, reads requests, and answers from the registry. All refusals end here."""

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

from crosswind.local import decoding, streaming
from crosswind.local.access import ANONYMOUS, Authenticator, User, impersonated, no_path_right, no_right
from crosswind.local.addresses import Address, check_served, locate, verb_of
from crosswind.local.applying import applied_object, apply, created_by, tracked
from crosswind.local.authorization import Authorizer
from crosswind.local.deleting import DeleteOptions, read_delete_options
from crosswind.local.documents import answer_document
from crosswind.local.kinds import BODIES, EVENTS, Kind
from crosswind.local.listing import Page, check_version, list_page, read_list_options
from crosswind.local.metrics import RequestCounter
from crosswind.local.negotiating import EventWriter, write_list, write_one
from crosswind.local.patching import APPLY, PATCHES, STRATEGIC
from crosswind.local.registry import RETURNED, ClusterRegistry, Owning
from crosswind.local.representations import check_new_event, rescaled, scale_of, shown, stored, stored_kind
from crosswind.local.requests import Call, as_json, read_body, read_headers, read_yaml, watch_options
from crosswind.local.reviews import review
from crosswind.local.schema import CUSTOM
from crosswind.local.seams import Runtime
from crosswind.local.selectors import Selector, select
from crosswind.local.statuses import (
    StatusError,
    bad_request,
    expired,
    forbidden,
    internal_error,
    success,
    unauthorized,
    unsupported_media_type,
)
from crosswind.local.store import Compacted, Entry
from crosswind.local.watching import WatchStream
from crosswind.types import Json, Manifest

__all__ = ["Api", "Minter", "make_app"]

Endpoint: TypeAlias = Callable[[Call, Receive], Awaitable[Response]]

STREAMED = frozenset({"log", "exec", "attach", "portforward"})
PRESERVED = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set"
    " propagationPolicy=Orphan to suppress this warning"
)
DONE = b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":201}'
_log = logging.getLogger(__name__)


class Minter(Protocol):
    """Answers a TokenRequest for a service account."""

    def issue(self, account: Manifest, request: Manifest) -> Manifest:
        """Return the request with its status filled in; raise 422 for a wrong one."""
        ...


class Api:
    """The ASGI application; ``close`` ends the open watches, so that a server can shut down."""

    def __init__(
        self,
        registry: ClusterRegistry,
        runtime: Runtime,
        authenticator: Authenticator,
        authorizer: Authorizer,
        minter: Minter,
    ) -> None:
        self._registry = registry
        self._store = registry.store
        self._authenticator = authenticator
        self._authorizer = authorizer
        self._minter = minter
        self._streams = Router(routes=streaming.routes(registry, runtime, self._permit))
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
        """Answer one request, or carry one stream."""
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
        address = locate(scope["path"])
        if address is None:
            self._authorize_path(user, scope)
            if scope["path"] == "/metrics":
                await Response(self._counter.text(), media_type="text/plain; version=0.0.4")(scope, receive, send)
                return
            await answer_document(scope.get("method", "GET"), scope["path"], headers)(scope, receive, send)
            return
        call = Call(scope, headers, address, user)
        call.verb = verb_of(scope.get("method", "GET"), address, watch=call.watch)
        self._counter.name(scope, call.verb, address.kind.plural, address.subresource)
        self._authorize(user, call.verb, address)
        check_served(address, call.verb)
        if address.subresource in STREAMED:
            scope["user"] = user
            await self._streams(scope, receive, send)
        elif call.verb == "watch":
            await self._watch(call, scope, receive, send)
        else:
            response = await self._verbs[call.verb](call, receive)
            for warning in call.warnings:
                text = warning.replace("\\", "\\\\").replace('"', '\\"')
                response.headers.append("Warning", f'299 - "{text}"')
            await response(scope, receive, send)

    # who

    def _identify(self, headers: dict[str, str]) -> User:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if not token:
            return ANONYMOUS
        user = self._authenticator(token.strip()) if scheme.lower() == "bearer" else None
        if user is None:
            raise unauthorized()
        rights = self._authorizer
        return impersonated(
            headers,
            user,
            lambda resource, namespace, name: rights.allowed(user, "impersonate", "", resource, "", namespace, name),
        )

    def _authorize(self, user: User, verb: str, address: Address) -> None:
        kind = address.kind
        asked = (verb, kind.group, kind.plural, address.subresource, address.place, address.name)
        if not self._authorizer.allowed(user, *asked):
            raise no_right(user, verb, address)

    def _authorize_path(self, user: User, scope: Scope) -> None:
        verb, path = scope.get("method", "GET").lower(), scope["path"]
        if not self._authorizer.allowed_path(user, verb, path):
            raise no_path_right(user, verb, path)

    def _permit(self, connection: HTTPConnection, verb: str) -> None:
        """Raise 403 unless a stream's caller may also use this verb; Kubernetes leaves the reason out here."""
        address = locate(connection.scope["path"])
        assert address is not None
        try:
            self._authorize(connection.scope["user"], verb, address)
        except StatusError as refusal:
            raise forbidden(address.kind.kind, address.name, "") from refusal

    # reading

    async def _get(self, call: Call, _: Receive) -> Response:
        address = call.address
        check_version(self._store, call.query.get("resourceVersion", ""))
        entry = self._registry.entry(address.kind.kind, address.place, address.name)
        if address.subresource == "scale":
            return self._scale(call, entry)
        return self._object(call, entry)

    async def _list(self, call: Call, _: Receive) -> Response:
        address, view = call.address, call.view
        options = read_list_options(call.query, _selector(call))
        page = list_page(self._store, address.kind, address.namespace, options)
        return _json(write_list(view, address.kind, page))

    async def _watch(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        kind, writer = call.address.kind, EventWriter(call.view, call.address.kind)
        options = watch_options(self._store, call.query)
        try:
            watch = WatchStream(
                self._store,
                kind.kind,
                call.address.namespace,
                _selector(call),
                options,
                writer.event,
                writer.bookmark,
            )
        except Compacted as gone:
            line = {"type": "ERROR", "object": expired(str(gone)).status}
            await _json(orjson.dumps(line) + b"\n")(scope, receive, send)
            return
        self._watches.add(watch)
        try:
            await StreamingResponse(watch.lines(), media_type="application/json")(scope, receive, send)
        finally:
            watch.close()
            self._watches.discard(watch)

    # writing

    async def _create(self, call: Call, receive: Receive) -> Response:
        address, body = call.address, await read_body(receive)
        if address.subresource:
            return self._create_part(call, body)
        manifest = self._decode(call, address.kind, body)
        if not address.kind.stored:
            return _json(orjson.dumps(review(address.kind, manifest, call.user, self._authorizer)), 201)
        check_new_event(address.kind, manifest)
        kind, manifest = stored_kind(address.kind), stored(address.kind, manifest)
        writer = call.writer
        entry = self._registry.add(
            kind,
            address.place,
            manifest,
            dry_run=call.dry_run,
            warnings=call.warnings,
            own=lambda fresh: created_by(kind, fresh, writer),
        )
        return self._object(call, entry, 201)

    def _create_part(self, call: Call, body: bytes) -> Response:
        address = call.address
        manifest = self._decode(call, BODIES[address.kind.parts[address.subresource].body], body)
        if address.subresource == "token":
            account = self._registry.get("ServiceAccount", address.place, address.name)
            return _json(orjson.dumps(self._minter.issue(account, manifest)), 201)
        given = (manifest.get("metadata") or {}).get("name") or address.name
        if given != address.name:
            raise bad_request(f"name in URL does not match name in {manifest['kind']} object")
        if address.subresource == "binding":
            if not call.dry_run:
                self._registry.bind(address.place, address.name, manifest)
        else:
            options = read_delete_options(manifest.get("deleteOptions") or {}, {}, dry_run=call.dry_run)
            self._registry.evict(address.place, address.name, options)
        return _json(DONE, 201)

    async def _update(self, call: Call, receive: Receive) -> Response:
        address, body = call.address, await read_body(receive)
        if address.subresource == "scale":
            scale = self._decode(call, BODIES["Scale"], body)
            return self._scale(call, self._revise(call, lambda old: rescaled(old, scale)))
        manifest = self._decode(call, address.kind, body)
        entry, new = self._registry.replace(
            stored_kind(address.kind),
            address.place,
            address.name,
            stored(address.kind, manifest),
            subresource=address.subresource,
            dry_run=call.dry_run,
            warnings=call.warnings,
            own=_owning(call),
        )
        return self._object(call, entry, 201 if new else 200)

    async def _patch(self, call: Call, receive: Receive) -> Response:
        address = call.address
        # operators define their kinds without the merge keys that a strategic patch needs
        served = [media for media in PATCHES if media != STRATEGIC or f"V1{address.kind.kind}" not in CUSTOM]
        if call.media == APPLY and address.kind is not EVENTS:
            return await self._apply(call, receive)
        if call.media not in served:
            raise unsupported_media_type([*served, APPLY])
        patched_by = PATCHES[call.media]
        patch = _parse(await read_body(receive))
        if address.subresource == "scale":
            part = BODIES["Scale"]
            entry = self._revise(
                call, lambda old: rescaled(old, self._check(call, part, patched_by(scale_of(old), patch)))
            )
            return self._scale(call, entry)

        def make(old: Manifest) -> Manifest:
            before = shown(address.kind, Entry(old, 0)).object
            return stored(address.kind, self._check(call, address.kind, patched_by(before, patch)))

        return self._object(call, self._revise(call, make))

    async def _apply(self, call: Call, receive: Receive) -> Response:
        """Apply: merge what is given into the object, or create it, and keep who owns which field."""
        address, kind, writer, force = call.address, call.address.kind, call.writer, call.forced
        given, unknown = decoding.decode(kind, read_yaml(await read_body(receive)))
        metadata = given.setdefault("metadata", {})
        metadata.setdefault("name", address.name)
        if "status" in kind.parts and address.subresource != "status":
            given.pop("status", None)
        if metadata.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        if unknown or metadata["name"] != address.name:
            raise _unfit_to_apply(address, given, unknown)
        if not address.subresource and not self._store.get(kind.kind, address.place, address.name):
            return self._create_applied(call, given)
        owners: list[Json] = []

        def make(old: Manifest) -> Manifest:
            made = apply(kind, old, given, writer, force=force)
            owners.extend(made["metadata"]["managedFields"])
            return made

        def own(_: Manifest, new: Manifest) -> Manifest:
            return {**new, "metadata": {**new["metadata"], "managedFields": owners}}

        return self._object(call, self._revise(call, make, own))

    def _create_applied(self, call: Call, given: Manifest) -> Response:
        address, writer = call.address, call.writer
        self._authorize(call.user, "create", replace(address, name=""))
        owners = applied_object(address.kind, given, writer)["metadata"].get("managedFields", [])
        entry = self._registry.add(
            address.kind,
            address.place,
            given,
            dry_run=call.dry_run,
            warnings=call.warnings,
            own=lambda fresh: fresh["metadata"].__setitem__("managedFields", owners),
        )
        return self._object(call, entry, 201)

    def _revise(self, call: Call, make: Callable[[Manifest], Manifest], own: Owning | None = None) -> Entry:
        """Store what ``make`` makes of the object that is addressed; a Scale changes the object itself."""
        address = call.address
        return self._registry.revise(
            stored_kind(address.kind),
            address.place,
            address.name,
            make,
            subresource="" if address.subresource == "scale" else address.subresource,
            dry_run=call.dry_run,
            warnings=call.warnings,
            own=own or _owning(call),
        )

    async def _delete(self, call: Call, receive: Receive) -> Response:
        address, kind = call.address, call.address.kind
        options = await _delete_options(call, receive)
        if kind.kind == "Job" and not options.propagation:
            call.warnings.append(PRESERVED)
        entry, gone = self._registry.erase(kind, address.place, address.name, options)
        if gone and kind.kind not in RETURNED:
            metadata = entry.object["metadata"]
            return _json(orjson.dumps(success(kind.kind, metadata["name"], metadata["uid"])))
        return self._object(call, entry)

    async def _delete_collection(self, call: Call, receive: Receive) -> Response:
        address, view = call.address, call.view
        options = await _delete_options(call, receive)
        erased = self._registry.erase_all(address.kind, address.namespace, _selector(call), options)
        return _json(write_list(view, address.kind, Page(erased, self._store.version)))

    # forms

    def _decode(self, call: Call, kind: Kind, body: bytes) -> Manifest:
        manifest, warnings = decoding.decode(kind, as_json(kind, call.media, body), strict=call.strictness)
        call.warnings += warnings
        return manifest

    def _check(self, call: Call, kind: Kind, patched: Json) -> Manifest:
        manifest, warnings = decoding.check(kind, patched, strict=call.strictness)
        call.warnings += warnings
        return manifest

    def _scale(self, call: Call, entry: Entry) -> Response:
        return _json(write_one(call.view, BODIES["Scale"], Entry(scale_of(entry.object), entry.version), entry.version))

    def _object(self, call: Call, entry: Entry, code: int = 200) -> Response:
        return _json(write_one(call.view, call.address.kind, entry, entry.version), code)


def _owning(call: Call) -> Owning:
    kind, writer = stored_kind(call.address.kind), call.writer
    return lambda old, new: tracked(kind, old, new, writer)


def _unfit_to_apply(address: Address, given: Manifest, unknown: list[str]) -> StatusError:
    metadata = given.get("metadata") or {}
    if unknown:
        what = f"{address.place}/{address.name}; {given['apiVersion']}, Kind={given['kind']}"
        fields = ", ".join(f".{field.split(chr(34))[1]}: field not declared in schema" for field in unknown)
        return bad_request(f"failed to create typed patch object ({what}): {fields}")
    name = metadata.get("name", "")
    return bad_request(f"the name of the object ({name}) does not match the name on the URL ({address.name})")


def make_app(
    registry: ClusterRegistry, runtime: Runtime, authenticator: Authenticator, authorizer: Authorizer, minter: Minter
) -> Api:
    """Return the ASGI application that serves the registry's objects and the runtime's streams.

    ``authenticator``: turns a bearer token into a user. ``minter``: makes the tokens of service accounts.
    """
    return Api(registry, runtime, authenticator, authorizer, minter)


def _selector(call: Call) -> Selector:
    return select(call.address.kind, call.query.get("labelSelector", ""), call.query.get("fieldSelector", ""))


async def _delete_options(call: Call, receive: Receive) -> DeleteOptions:
    body = await read_body(receive)
    given = _parse(as_json(BODIES["DeleteOptions"], call.media, body)) if body else None
    return read_delete_options(given if isinstance(given, dict) else {}, call.query, dry_run=call.dry_run)


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
