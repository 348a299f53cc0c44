"""The client of one cluster: thin waiting code around ``requests`` and ``replies``."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Generic, Self, TypeAlias, TypeVar, Unpack

from crosswind.errors import Gone, Unreachable
from crosswind.kube import replies, requests, watching
from crosswind.kube.connecting import Credentials, FixedCredentials, borrow, load
from crosswind.kube.requests import LogOptions, Patch, Request, Selection
from crosswind.kube.resources import Resource
from crosswind.kube.transport import HttpTransport, Reply, Socket, Transport
from crosswind.kube.websockets import ExecResult, PortStream, converse
from crosswind.settings import KubeSettings
from crosswind.types import Json, Manifest, WatchEvent

__all__ = ["Client", "ExecResult", "Listing", "Patch", "PortStream"]

T = TypeVar("T")
Observe: TypeAlias = Callable[[Request, int, float], None]
"""Hears of a request, its HTTP status (0: no answer) and the seconds until the answer's head."""

_PAGE = 500
"""Objects per page of a list, as kubectl asks for."""

_LOG_SILENCE = 30.0
"""Seconds without a byte after which reading a log is given up; a long log may take longer as a whole."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """Objects of one consistent moment, or what was made of them, and the version to watch from."""

    items: list[T]
    version: str


class Client:
    """Speaks to one API server.

    Methods raise errors of ``crosswind.errors``: ``ApiError`` for a refusal, ``Unreachable`` when no answer came.
    ``async with await Client.connect(settings) as client:``, or with a transport of your own ``Client(transport)``.
    Belongs to the event loop in which it was made.
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
        self.host = host

    @classmethod
    async def connect(cls, settings: KubeSettings, observe: Observe | None = None) -> Self:
        """Read the credentials; ``KubeconfigError`` when they cannot be used. Does not speak to the server yet.

        ``observe`` hears of each request: its HTTP status, 0 where no answer came, and the seconds until it came.
        """
        server, credentials = await load(settings)
        transport = HttpTransport(server)
        credentials.moved = transport.use
        return cls(transport, credentials, host=server.url, observe=observe)

    @classmethod
    async def borrowing(cls, configuration: Json, settings: KubeSettings) -> Self:
        """Take server and credentials from a ``kubernetes.client.Configuration``."""
        server, credentials = borrow(configuration, settings)
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
        """Close all connections; streams that are open end with ``Unreachable``."""
        if isinstance(self._transport, HttpTransport):
            await self._transport.close()

    async def version(self) -> dict[str, str]:
        """Return ``/version``: ``major``, ``minor``, ``gitVersion``... Needs no permission."""
        return await self._manifest(requests.version())

    async def now(self) -> float:
        """Return the API server's own time, in seconds since 1970; this machine's when its answers have no date.

        Its clock is the one that processes on several machines share. Needs no permission.
        """
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
    ) -> Manifest:
        """Create an object and return it as stored.

        ``namespace``: default is the manifest's. ``field_validation``: Strict, Warn or Ignore; the server's default is
        Warn. Raises ``AlreadyExists``, ``Invalid``, ``QuotaExceeded`` and the others.
        """
        request = requests.create(
            resource, manifest, namespace=namespace, dry_run=dry_run, field_validation=field_validation
        )
        return await self._object(request)

    async def evict(self, pod: str, *, namespace: str, uid: str) -> None:
        """Ask for a pod's eviction: it goes as by ``delete``, unless a disruption budget forbids it.

        Raises ``NotFound``, ``Conflict`` (another uid), ``TooManyRequests`` (the budget) and the others.
        """
        options = {"preconditions": {"uid": uid}}
        metadata = {"name": pod, "namespace": namespace}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata, "deleteOptions": options}
        # the answer is a Status, no object
        await self._json(requests.create(Resource("", "v1", f"pods/{pod}/eviction", "Eviction"), body))

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Manifest:
        """Return an object; ``NotFound`` when there is none."""
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

        ``limit``: at most so many. ``version``: None reads what is current; "0" takes what the server has in its cache.
        """
        return await self.gather(resource, lambda item: item, limit=limit, version=version, **selection)

    async def gather(
        self,
        resource: Resource,
        take: Callable[[Manifest], T],
        *,
        limit: int | None = None,
        version: str | None = None,
        **selection: Unpack[Selection],
    ) -> Listing[T]:
        """Do what ``list`` does, but return what ``take`` makes of each object.

        For thousands of objects of which little is wanted: no more than a page of them is in memory. ``take`` sees
        objects again when the server forgets the moment of a list before its end.
        """
        kinds = {"apiVersion": resource.api_version, "kind": resource.kind}

        async def page(size: int | None, after: str = "") -> tuple[Listing[T], str]:
            request = requests.list_page(resource, limit=size, version=version, continue_from=after, **selection)
            found = await self._json(request)
            taken = [take({**kinds, **item}) for item in replies.listed(found, request)]
            return Listing(taken, watching.version_of(found)), found["metadata"].get("continue") or ""

        listing, after = await page(min(limit or _PAGE, _PAGE))
        while after and (limit is None or len(listing.items) < limit):
            try:
                more, after = await page(_PAGE, after)
                listing = Listing(listing.items + more.items, more.version)
            except Gone:  # the list took longer than the server remembers its moment: once more, in one piece
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
        """Yield the changes after ``version`` until the server closes, which it does after ``timeout`` seconds.

        Raises ``Gone`` when the version is too old, ``Unreachable`` when the connection breaks or nothing, not even a
        bookmark, came for ``silence`` seconds. Wrap it in ``contextlib.aclosing`` when you leave it early.
        """
        request = requests.watch(
            resource, version=version, timeout=timeout, bookmarks=bookmarks, silence=silence, **selection
        )
        async with self.open_watch(request) as events:
            async for event in events:
                yield event

    @contextlib.asynccontextmanager
    async def open_watch(self, request: Request) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Open a watch that ``requests.watch`` describes: inside the block the server has accepted it."""
        async with (
            self._stream(request) as reply,
            contextlib.aclosing(watching.events(reply.chunks(), request)) as events,
        ):
            yield events

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
        """Change some fields of an object and return the outcome."""
        request = requests.patch(resource, name, patch, namespace=namespace, how=how, subresource=subresource)
        return await self._object(request)

    async def replace(
        self, resource: Resource, manifest: Manifest, *, namespace: str | None = None, subresource: str = ""
    ) -> Manifest:
        """Write a whole object; ``Conflict`` when it has a ``resourceVersion`` that is no longer current."""
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
    ) -> Manifest:
        """Delete an object; returns it as it is now (a pod ends gracefully) or a Status.

        ``grace_period``: seconds, None is the object's own. ``uid``: ``Conflict`` when the name is another object's by
        now. ``propagation``: Background, Foreground or Orphan; a Job's pods are orphaned without it.
        """
        request = requests.delete(
            resource, name, namespace=namespace, grace_period=grace_period, uid=uid, propagation=propagation
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
        **options: Unpack[LogOptions],
    ) -> bytes:
        """Return a container's log as far as it is kept; b"" for a pod that is not on a node yet."""
        request = requests.log(pod, namespace=namespace, silence=_LOG_SILENCE, **options)
        async with self._stream(request) as reply:
            return await reply.read()

    def log_chunks(
        self,
        pod: str,
        *,
        namespace: str,
        **options: Unpack[LogOptions],
    ) -> AsyncGenerator[bytes]:
        """Yield what ``log`` returns in chunks, for logs of any length.

        Wrap it in ``contextlib.aclosing`` when you leave it early.
        """
        return self._chunks(requests.log(pod, namespace=namespace, silence=_LOG_SILENCE, **options))

    def follow_log(
        self,
        pod: str,
        *,
        namespace: str,
        **options: Unpack[LogOptions],
    ) -> AsyncGenerator[bytes]:
        """Yield a container's log in chunks, as it is written, until the container has ended.

        Wrap it in ``contextlib.aclosing`` when you leave it early.
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

        ``timeout``: seconds, after which ``Unreachable`` is raised and the command may go on. Needs the verbs get and
        create on ``pods/exec``. A command that cannot be started is an ``ApiError``.
        """
        request = requests.exec_in(pod, command, namespace=namespace, container=container, stdin=stdin is not None)
        try:
            async with asyncio.timeout(timeout), self._socket(request) as socket:
                return await converse(socket, stdin, request)
        except TimeoutError:
            raise Unreachable(f"{request}: {command[0]} did not end within {timeout:g} s") from None

    @contextlib.asynccontextmanager
    async def port_forward(self, pod: str, port: int, *, namespace: str) -> AsyncIterator[PortStream]:
        """Connect to a port inside a pod; what goes wrong there is told by the first ``receive``."""
        request = requests.port_forward(pod, port, namespace=namespace)
        async with self._socket(request) as socket:
            yield PortStream(socket, request)

    async def allowed(self, verb: str, resource: Resource, *, namespace: str | None, subresource: str = "") -> bool:
        """Return whether we may do ``verb``; ``namespace`` None asks for all namespaces. Needs no permission."""
        request = requests.access_review(verb, resource, namespace=namespace, subresource=subresource)
        return bool((await self._manifest(request)).get("status", {}).get("allowed"))  # no answer: no

    @contextlib.asynccontextmanager
    async def _socket(self, request: Request) -> AsyncIterator[Socket]:
        async with self._stream(request) as reply:
            if reply.socket is None:
                raise Unreachable(f"{request}: {self.host} does not speak WebSocket here; check any proxy in between")
            yield reply.socket

    async def _json(self, request: Request) -> Json:
        reply = await self._open(request)
        try:
            body = await reply.read()
        finally:
            await reply.close()
        return replies.decode(body, request)

    async def _manifest(self, request: Request) -> Manifest:
        """Return an answer that may be an object, a Status or a review; of anything else nothing."""
        return replies.mapping_of(await self._json(request))

    async def _object(self, request: Request) -> Manifest:
        return replies.object_of(await self._json(request), request)

    @contextlib.asynccontextmanager
    async def _stream(self, request: Request) -> AsyncIterator[Reply]:
        reply = await self._open(request)
        try:
            yield reply
        finally:
            await reply.close()

    async def _open(self, request: Request) -> Reply:
        """Send a request; when the credentials were refused and newer ones can be had, once more with those.

        When it did not reach the server, which turns out to be elsewhere by now, it is sent there.
        """
        used = await self._credentials.current()
        try:
            reply = await self._send(request, used)
        except Unreachable as error:
            if not await self._credentials.find() or error.sent:
                raise
            used = await self._credentials.current()
            reply = await self._send(request, used)
        if reply.status == 401 and await self._renews(used, reply):
            reply = await self._send(request, await self._credentials.current())
        if reply.status < 300:
            return reply
        try:
            body = await reply.read()
        finally:
            await reply.close()
        raise replies.error_of(request, reply.status, reply.headers, body)

    async def _renews(self, used: str | None, reply: Reply) -> bool:
        """Renew refused credentials; an answer that nobody reads any more, an error's too, is closed."""
        renewed = False
        try:
            renewed = await self._credentials.renew(used)
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
