"""The client of one API server: thin waiting code around ``requests`` and ``responses``.

The client starts no task: each call runs in its caller's task, and cancelling it ends the request. It repeats a request
only with renewed credentials after a 401, or at a new address when the server has moved. All other retries are the
caller's (``retry``).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Generic, Self, TypeAlias, TypeVar, Unpack

from crosswind.errors import Gone, Unreachable
from crosswind.kube import requests, responses, watch
from crosswind.kube.credentials import Credentials, FixedCredentials, load, load_from_configuration
from crosswind.kube.requests import LogSelection, Patch, Request, Selection
from crosswind.kube.resources import Resource
from crosswind.kube.transport import HttpTransport, Reply, Socket, Transport
from crosswind.kube.websockets import ExecResult, PortStream, converse
from crosswind.settings import KubeSettings
from crosswind.types import Json, Manifest, WatchEvent

__all__ = ["Client", "ExecResult", "Listing", "Observe", "Patch", "PortStream"]

T = TypeVar("T")
Observe: TypeAlias = Callable[[Request, int, float], None]
"""Called for each request with its HTTP status (0: no answer) and the seconds until the head of the answer."""

_PAGE_SIZE = 500
"""Objects per page of a list, as in kubectl."""

_LOG_SILENCE_S = 30.0
"""Time without a byte after which reading a log is given up; a long log may take longer as a whole."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """The objects of a list, or values made of them, and the version from which to watch."""

    items: list[T]
    version: str


class Client:
    """A client of one API server.

    Methods raise errors of ``crosswind.errors``: ``ApiError`` for a refusal, ``Unreachable`` when no answer came. Use
    ``async with await Client.connect(settings) as client:``, or ``Client(transport)`` with a transport of your own. A
    client belongs to the event loop in which it was created.
    """

    def __init__(
        self,
        transport: Transport,
        credentials: Credentials | None = None,
        *,
        host: str = "",
        observe: Observe | None = None,
    ) -> None:
        self._transport = transport
        self._observe = observe
        self._credentials = credentials or FixedCredentials()
        self._whole_answers = False
        self.host = host

    @classmethod
    async def connect(cls, settings: KubeSettings, observe: Observe | None = None) -> Self:
        """Read the credentials and return a client, without a request to the server.

        ``observe``: called for each request with its HTTP status, 0 when no answer came, and the seconds until the
        answer. Raises ``KubeconfigError`` when the credentials cannot be used.
        """
        server, credentials = await load(settings)
        transport = HttpTransport(server)
        credentials.moved = transport.use
        return cls(transport, credentials, host=server.url, observe=observe)

    @classmethod
    async def from_configuration(cls, configuration: Json, settings: KubeSettings) -> Self:
        """Return a client with the server and credentials of a ``kubernetes.client.Configuration``."""
        server, credentials = load_from_configuration(configuration, settings)
        transport = HttpTransport(server)
        credentials.moved = transport.use
        return cls(transport, credentials, host=server.url)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; open streams end with ``Unreachable``."""
        if isinstance(self._transport, HttpTransport):
            await self._transport.close()

    async def version(self) -> dict[str, str]:
        """Return ``/version``: ``major``, ``minor``, ``gitVersion``... Needs no permission."""
        return await self._manifest(requests.version())

    async def now(self) -> float:
        """Return the API server's time, in seconds since 1970; this machine's when its answers have no date.

        Processes on several machines share this one clock. Needs no permission.
        """
        # HTTP's Date, because Kubernetes has no API for its time. Whole seconds suffice for the callers.
        async with self._stream(requests.version()) as reply:
            await reply.read()
            stamp = reply.headers.get("Date", "")
        try:
            return parsedate_to_datetime(stamp).timestamp()
        except ValueError:
            return time.time()

    async def text(self, path: str) -> str:
        """Return a document that is no object, such as ``/metrics`` or ``/readyz``."""
        async with self._stream(requests.document(path)) as reply:
            return (await reply.read()).decode()

    async def create(
        self,
        resource: Resource,
        manifest: Manifest,
        *,
        namespace: str | None = None,
        dry_run: bool = False,
        field_validation: str | None = None,
        metadata_only: bool = False,
    ) -> Manifest:
        """Create an object and return it as stored.

        ``namespace``: the manifest's by default. ``field_validation``: Strict, Warn or Ignore; the server's default is
        Warn. ``metadata_only``: return only the metadata where the server can, which saves CPU there. Raises
        ``AlreadyExists``, ``Invalid``, ``QuotaExceeded`` and others.
        """
        request = requests.create(
            resource,
            manifest,
            namespace=namespace,
            dry_run=dry_run,
            field_validation=field_validation,
            metadata_only=metadata_only,
        )
        return await self._object(request)

    async def evict(self, pod: str, *, namespace: str, uid: str) -> None:
        """Request a pod's eviction, which deletes it unless a disruption budget forbids that.

        Raises ``NotFound``, ``Conflict`` (another uid), ``TooManyRequests`` (the budget) and others.
        """
        options = {"preconditions": {"uid": uid}}
        metadata = {"name": pod, "namespace": namespace}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata, "deleteOptions": options}
        # the answer is a Status, not an object
        await self._json(requests.create(Resource("", "v1", f"pods/{pod}/eviction", "Eviction"), body))

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Manifest:
        """Return an object; raise ``NotFound`` when there is none."""
        return await self._object(requests.get(resource, name, namespace=namespace))

    async def list(
        self,
        resource: Resource,
        *,
        limit: int | None = None,
        version: str | None = None,
        **selection: Unpack[Selection],
    ) -> Listing[Manifest]:
        """Return all objects that the selectors match, of one namespace or (None) of all, read page by page.

        ``limit``: the most to return. ``version``: None reads the current state, "0" the server's cache.
        """
        return await self.list_mapped(resource, lambda item: item, limit=limit, version=version, **selection)

    async def list_mapped(
        self,
        resource: Resource,
        take: Callable[[Manifest], T],
        *,
        limit: int | None = None,
        version: str | None = None,
        **selection: Unpack[Selection],
    ) -> Listing[T]:
        """List as ``list`` does, but return for each object the value that ``take`` makes of it.

        At most one page of objects is in memory, which matters for thousands of objects. ``take`` gets objects twice
        when the list must start again, because the server has compacted the version that its pages belong to.
        """
        kinds = {"apiVersion": resource.api_version, "kind": resource.kind}

        async def page(size: int | None, after: str = "") -> tuple[Listing[T], str]:
            request = requests.list_page(resource, limit=size, version=version, continue_from=after, **selection)
            content = await self._json(request)
            taken = [take({**kinds, **item}) for item in responses.listed(content, request)]
            return Listing(taken, watch.version_of(content)), content["metadata"].get("continue") or ""

        listing, after = await page(min(limit or _PAGE_SIZE, _PAGE_SIZE))
        # The pages of one list share a version (continue tokens), so that together they are one snapshot.
        while after and (limit is None or len(listing.items) < limit):
            try:
                more, after = await page(_PAGE_SIZE, after)
                listing = Listing(listing.items + more.items, more.version)
            except Gone:  # 410: the version of the first page was compacted meanwhile; list again, in one piece
                listing, after = await page(None)
        return Listing(listing.items[:limit], listing.version)

    async def watch(
        self,
        resource: Resource,
        *,
        version: str,
        timeout: float,
        bookmarks: bool = True,
        silence: float = requests.WATCH_SILENCE,
        **selection: Unpack[Selection],
    ) -> AsyncGenerator[WatchEvent]:
        """Yield the changes after ``version`` until the server ends the stream, after ``timeout`` seconds.

        Raises ``Gone`` when the version is too old, ``Unreachable`` when the connection breaks or nothing, not even a
        bookmark, arrives for ``silence`` seconds. Wrap it in ``contextlib.aclosing`` if you may leave it early.
        """
        request = requests.watch(
            resource, version=version, timeout=timeout, bookmarks=bookmarks, silence=silence, **selection
        )
        async with self.open_watch(request) as batches:
            async for events in batches:
                for event in events:
                    yield event

    @contextlib.asynccontextmanager
    async def open_watch(self, request: Request) -> AsyncIterator[AsyncIterator[Iterator[WatchEvent]]]:
        """Open a watch that ``requests.watch`` describes; inside the block the server has accepted it.

        Yields iterators of the events that arrived together: each asynchronous generator between connection and caller
        costs as much for one event as for twenty. An iterator raises what ``watch`` raises.
        """
        async with (
            self._stream(request) as reply,
            contextlib.aclosing(watch.batches(reply.chunks(), request)) as batches,
        ):
            yield batches

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Json,
        *,
        namespace: str | None = None,
        how: Patch = Patch.MERGE,
        subresource: str = "",
    ) -> Manifest:
        """Change some fields of an object and return the changed object."""
        request = requests.patch(resource, name, patch, namespace=namespace, how=how, subresource=subresource)
        return await self._object(request)

    async def replace(
        self, resource: Resource, manifest: Manifest, *, namespace: str | None = None, subresource: str = ""
    ) -> Manifest:
        """Write a whole object; raise ``Conflict`` when its ``resourceVersion`` is no longer current."""
        return await self._object(requests.replace(resource, manifest, namespace=namespace, subresource=subresource))

    async def delete(
        self,
        resource: Resource,
        name: str,
        *,
        namespace: str | None = None,
        grace_period: int | None = None,
        uid: str | None = None,
        propagation: str | None = None,
        metadata_only: bool = False,
    ) -> Manifest:
        """Delete an object; return its current state, since a pod ends gracefully, or a Status.

        ``grace_period``: seconds, None is the object's own. ``uid``: raise ``Conflict`` when the name now belongs to
        another object. ``propagation``: Background, Foreground or Orphan; without it a Job's pods are orphaned.
        ``metadata_only``: as in ``create``.
        """
        request = requests.delete(
            resource,
            name,
            namespace=namespace,
            grace_period=grace_period,
            uid=uid,
            propagation=propagation,
            metadata_only=metadata_only,
        )
        return await self._manifest(request)

    async def delete_collection(
        self, resource: Resource, *, grace_period: int | None = None, **selection: Unpack[Selection]
    ) -> None:
        """Delete all objects of a namespace that the selectors match."""
        await self._manifest(requests.delete_collection(resource, grace_period=grace_period, **selection))

    async def log(
        self,
        pod: str,
        *,
        namespace: str,
        **options: Unpack[LogSelection],
    ) -> bytes:
        """Return a container's log as far as the node keeps it; b"" for a pod that is not on a node yet."""
        request = requests.log(pod, namespace=namespace, silence=_LOG_SILENCE_S, **options)
        async with self._stream(request) as reply:
            return await reply.read()

    def log_chunks(
        self,
        pod: str,
        *,
        namespace: str,
        **options: Unpack[LogSelection],
    ) -> AsyncGenerator[bytes]:
        """Yield the content of ``log`` in chunks, for logs of any length.

        Wrap it in ``contextlib.aclosing`` if you may leave it early.
        """
        return self._chunks(requests.log(pod, namespace=namespace, silence=_LOG_SILENCE_S, **options))

    def follow_log(
        self,
        pod: str,
        *,
        namespace: str,
        **options: Unpack[LogSelection],
    ) -> AsyncGenerator[bytes]:
        """Yield a container's log in chunks, as it is written, until the container has ended.

        Wrap it in ``contextlib.aclosing`` if you may leave it early.
        """
        return self._chunks(requests.log(pod, namespace=namespace, follow=True, **options))

    async def _chunks(self, request: Request) -> AsyncGenerator[bytes]:
        async with self._stream(request) as reply, contextlib.aclosing(reply.chunks()) as chunks:
            async for chunk in chunks:
                yield chunk

    async def exec(
        self,
        pod: str,
        command: Sequence[str],
        *,
        namespace: str,
        container: str | None = None,
        stdin: bytes | None = None,
        timeout: float,
    ) -> ExecResult:
        """Run a command in a container and return its exit code and output.

        ``timeout``: seconds, after which ``Unreachable`` is raised; the command may continue. Needs the verbs get and
        create on ``pods/exec``. Raises ``ApiError`` for a command that cannot be started.
        """
        request = requests.exec_in(pod, command, namespace=namespace, container=container, stdin=stdin is not None)
        try:
            # The deadline covers the upgrade too: a kubelet that does not answer holds the connection open without an
            # error.
            async with asyncio.timeout(timeout), self._socket(request) as socket:
                return await converse(socket, stdin, request)
        except TimeoutError:
            raise Unreachable(f"{request}: {command[0]} did not end within {timeout:g} s") from None

    @contextlib.asynccontextmanager
    async def port_forward(self, pod: str, port: int, *, namespace: str) -> AsyncIterator[PortStream]:
        """Connect to a port inside a pod; errors inside the pod are raised by the first ``receive``."""
        request = requests.port_forward(pod, port, namespace=namespace)
        async with self._socket(request) as socket:
            yield PortStream(socket, request)

    async def allowed(self, verb: str, resource: Resource, *, namespace: str | None, subresource: str = "") -> bool:
        """Return whether we may do ``verb``; None as ``namespace`` is all namespaces. Needs no permission."""
        request = requests.access_review(verb, resource, namespace=namespace, subresource=subresource)
        return bool((await self._manifest(request)).get("status", {}).get("allowed"))  # an empty answer is a no

    @contextlib.asynccontextmanager
    async def _socket(self, request: Request) -> AsyncIterator[Socket]:
        async with self._stream(request) as reply:
            if reply.socket is None:
                raise Unreachable(f"{request}: {self.host} does not speak WebSocket here; check any proxy in between")
            yield reply.socket

    async def _json(self, request: Request) -> Json:
        reply = await self._open(request)
        try:
            # Closed in any case: a cancelled read leaves half an answer on the connection, which must not return to the
            # pool.
            body = await reply.read()
        finally:
            await reply.close()
        return responses.decode(body, request)

    async def _manifest(self, request: Request) -> Manifest:
        """Return an answer that may be an object, a Status or a review; {} for any other."""
        return responses.mapping_of(await self._json(request))

    async def _object(self, request: Request) -> Manifest:
        return responses.object_of(await self._json(request), request)

    @contextlib.asynccontextmanager
    async def _stream(self, request: Request) -> AsyncIterator[Reply]:
        reply = await self._open(request)
        try:
            yield reply
        finally:
            await reply.close()

    async def _open(self, request: Request) -> Reply:
        """Send a request, and send it once more in two cases.

        After a 401, with newer credentials, if there are any. After a failure to connect, to the server's new address,
        if the kubeconfig has one; not if the request may have reached the server, which could carry it out twice.
        """
        # Learnt from an earlier 406, see below: metadata-only answers are an optimisation that every caller can do
        # without.
        if self._whole_answers:
            request = request._replace(accept=requests.JSON)
        # Kept to compare: by the time of a 401 another request may have renewed the credentials already.
        used = await self._credentials.current()
        try:
            reply = await self._send(request, used)
        # Two attempts at most, and none that repeats an action: whether to retry for longer is the caller's decision.
        except Unreachable as error:
            if not await self._credentials.relocate() or error.sent:
                raise
            used = await self._credentials.current()
            reply = await self._send(request, used)
        if reply.status == 401 and await self._renews(used, reply):
            reply = await self._send(request, await self._credentials.current())
        if reply.status == 406 and request.accept != requests.JSON:
            # A proxy in between takes plain JSON only. Negotiation comes before the action: nothing was done yet.
            await reply.close()
            self._whole_answers = True
            return await self._open(request)
        if reply.status < 300:
            return reply
        try:
            body = await reply.read()
        finally:
            await reply.close()
        raise responses.error_of(request, reply.status, reply.headers, body)

    async def _renews(self, used: str | None, reply: Reply) -> bool:
        """Renew refused credentials; close the answer if it is not read, also when the renewal fails."""
        renewed = False
        try:
            renewed = await self._credentials.renew(used)
        # CancelledError too: without the close, the unread answer would hold its connection for ever.
        except BaseException:
            await reply.close()
            raise
        if renewed:
            await reply.close()
        return renewed

    async def _send(self, request: Request, authorization: str | None) -> Reply:
        if self._observe is None:
            return await self._transport.open(request, authorization)
        began = time.monotonic()
        try:
            reply = await self._transport.open(request, authorization)
        except Unreachable:
            self._observe(request, 0, time.monotonic() - began)
            raise
        self._observe(request, reply.status, time.monotonic() - began)
        return reply
