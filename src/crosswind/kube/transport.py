"""Carries one request to an API server and returns the answer: the protocol, and its implementation by aiohttp.

Every failure below HTTP becomes ``Unreachable``; no error of aiohttp leaves this module. The transport starts no task.
A request that is cancelled closes its connection, since the answer may still be on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import weakref
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Protocol

import aiohttp
from yarl import URL

from crosswind import __version__
from crosswind.errors import Unreachable
from crosswind.kube.requests import Request

__all__ = ["HttpTransport", "Reply", "Server", "Socket", "Transport"]

_IDLE_TIMEOUT_S = 60.0
"""Time for which an unused connection is kept; load balancers silently drop connections that are idle for minutes."""

_SHUTDOWN_S = 0.02
"""Time for the loop to notice that sockets were shut down."""

_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""TCP keep-alive detects a vanished peer after a minute, also on a watch or log without traffic."""


class Socket(Protocol):
    """A WebSocket that carries binary messages. ``protocol``: the subprotocol that the server chose, or ""."""

    protocol: str

    async def send(self, message: bytes) -> None:
        """Send one message."""
        ...

    async def receive(self) -> bytes | None:
        """Return the next message; None when the server has closed."""
        ...


class Reply(Protocol):
    """An answer whose body may still be on its way."""

    @property
    def status(self) -> int:
        """The HTTP code."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers."""
        ...

    @property
    def socket(self) -> Socket | None:
        """The WebSocket of an upgraded request."""
        ...

    async def read(self) -> bytes:
        """Return the whole body."""
        ...

    def chunks(self) -> AsyncGenerator[bytes]:
        """Yield the body as it comes."""
        ...

    async def close(self) -> None:
        """Return the connection to the pool, or end it when the body was not read to its end."""
        ...


class Transport(Protocol):
    """Carries requests to an API server."""

    async def open(self, request: Request, authorization: str | None) -> Reply:
        """Send a request and return the head of the answer; raise ``Unreachable`` when none comes."""
        ...


@dataclass(frozen=True, slots=True)
class Server:
    """The address of an API server and the settings for connecting. ``source``: where they were read, for messages."""

    url: str
    source: str = ""
    tls: ssl.SSLContext | None = None
    tls_server_name: str | None = None
    proxy: str | None = None
    connect_timeout: float = 10.0
    request_timeout: float = 30.0

    def __str__(self) -> str:
        return f"{self.url} ({self.source})" if self.source else self.url


class HttpTransport:
    """Sends requests over kept-alive connections to one API server. Create and close it inside the running loop."""

    def __init__(self, server: Server) -> None:
        self.use(server)
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        # Weak: a transport that nobody uses any more must not be kept for the case of a fork.
        _open.add(self)
        self._session = aiohttp.ClientSession(
            # The loop would decompress compressed lists, which costs more than sending them inside a cluster.
            headers={"User-Agent": f"crosswind/{__version__}", "Accept-Encoding": "identity"},
            connector=aiohttp.TCPConnector(
                limit=0,  # the callers bound their requests; one limit for all would let watches starve them
                keepalive_timeout=_IDLE_TIMEOUT_S,
                socket_factory=self._make_socket,
            ),
            read_bufsize=2**18,
            raise_for_status=_keep_refusal,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def use(self, server: Server) -> None:
        """Send later requests to another server, or to the same one with other TLS settings or another proxy.

        aiohttp pools connections by address and TLS context, so those to the former server are not used again.
        """
        self.server = server
        self._ordinary = aiohttp.ClientTimeout(total=server.request_timeout, connect=server.connect_timeout)

    async def open(self, request: Request, authorization: str | None) -> Reply:
        """Send a request and return the head of the answer; raise ``Unreachable`` when none comes."""
        # Per request, not on the session: the token changes while the session lives.
        headers = {"Authorization": authorization} if authorization else {}
        if self._session.closed:
            raise Unreachable(f"{request}: the connection to {self.server.url} was closed on our side", sent=False)
        with _TranslatedErrors(self.server, request):
            if request.upgrade:
                return await self._upgrade(request, headers)
            return await self._send(request, headers)

    async def close(self) -> None:
        """Close all connections, those in the middle of the TLS shutdown too: they could outlive the loop."""
        # aiohttp closes transports, but TLS sockets wait for the peer's close_notify and would end after the loop.
        await self._session.close()
        for open_socket in list(self._sockets):
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
        await asyncio.sleep(_SHUTDOWN_S if self._sockets else 0)

    def abandon(self) -> None:
        """Close the file descriptors but not the connections, in a forked child, which has copies of its parent's."""
        for inherited in list(self._sockets):
            with contextlib.suppress(OSError):
                # The descriptor only: closing the transport would send TLS's close_notify on a connection that the
                # parent still uses.
                os.close(inherited.detach())

    def _make_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        new_socket = _keepalive_socket(address)
        self._sockets.add(new_socket)
        return new_socket

    async def _send(self, request: Request, headers: dict[str, str]) -> Reply:
        headers["Accept"] = request.accept
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        response = await self._session.request(
            request.method,
            URL(self.server.url + request.target, encoded=True),
            data=request.body,
            headers=headers,
            proxy=self.server.proxy,
            ssl=self.server.tls or True,
            server_hostname=self.server.tls_server_name,
            timeout=self._timeout(request),
            # An API server redirects none of these requests. A proxy that does would send our token elsewhere.
            allow_redirects=False,
            raise_for_status=False,
        )
        return _HttpReply(response, self.server, request)

    async def _upgrade(self, request: Request, headers: dict[str, str]) -> Reply:
        # without "Accept: application/json", to which the kubelet answers 406
        try:
            # aiohttp has no limit for the answer to an upgrade.
            async with asyncio.timeout(self.server.connect_timeout + self.server.request_timeout):
                websocket = await self._session.ws_connect(
                    URL(self.server.url + request.target, encoded=True),
                    protocols=request.upgrade,
                    headers=headers,
                    proxy=self.server.proxy,
                    ssl=self.server.tls or True,
                    server_hostname=self.server.tls_server_name,
                    timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                    max_msg_size=2**26,
                )
        except _Refused as refused:
            return refused.reply
        return _SocketReply(_HttpSocket(websocket, self.server, request))

    def _timeout(self, request: Request) -> aiohttp.ClientTimeout:
        if request.silence is None and request.timeout is None:
            return self._ordinary
        connect = self.server.connect_timeout
        if request.silence is None:
            return aiohttp.ClientTimeout(total=request.timeout, connect=connect)
        # A stream has no total limit unless the caller sets one; a silent peer ends it.
        return aiohttp.ClientTimeout(total=request.timeout, connect=connect, sock_read=request.silence or None)


_open: weakref.WeakSet[HttpTransport] = weakref.WeakSet()


def _abandon_all() -> None:
    """Close the copies of our sockets in a forked child, such as a worker of LocalExecutor.

    While the child holds a copy, the API server does not notice that we have closed the connection.
    """
    for transport in list(_open):
        transport.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


class _HttpReply:
    socket = None

    def __init__(self, response: aiohttp.ClientResponse, server: Server, request: Request) -> None:
        self.status = response.status
        self.headers = response.headers
        self._response, self._server, self._request = response, server, request

    async def read(self) -> bytes:
        with _TranslatedErrors(self._server, self._request):
            return await self._response.read()

    async def chunks(self) -> AsyncGenerator[bytes]:
        with _TranslatedErrors(self._server, self._request):
            async for chunk in self._response.content.iter_any():
                yield chunk

    async def close(self) -> None:
        connection = self._response.connection
        if connection is not None and connection.transport is not None:
            connection.transport.abort()  # a TLS shutdown waits for the server and could outlive the loop
        self._response.close()


class _SocketReply:
    status = 101

    def __init__(self, socket: _HttpSocket) -> None:
        self.headers: Mapping[str, str] = {}
        self.socket = socket

    async def read(self) -> bytes:
        return b""

    async def chunks(self) -> AsyncGenerator[bytes]:
        while (message := await self.socket.receive()) is not None:
            yield message

    async def close(self) -> None:
        await self.socket.close()


class _HttpSocket:
    def __init__(self, websocket: aiohttp.ClientWebSocketResponse, server: Server, request: Request) -> None:
        self._websocket, self._server, self._request = websocket, server, request
        self.protocol = websocket.protocol or ""

    async def send(self, message: bytes) -> None:
        with _TranslatedErrors(self._server, self._request):
            await self._websocket.send_bytes(message)

    async def receive(self) -> bytes | None:
        with _TranslatedErrors(self._server, self._request):
            message = await self._websocket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            return bytes(message.data)
        if message.type is aiohttp.WSMsgType.TEXT:
            return str(message.data).encode()
        # aiohttp reports a broken connection as a message, where readers of a stream expect an error.
        if message.type is aiohttp.WSMsgType.ERROR:
            raise Unreachable(f"{self._request}: the stream from {self._server.url} broke off") from message.data
        return None

    async def close(self) -> None:
        await self._websocket.close()


class _Refused(Exception):
    """The server answered a WebSocket request without an upgrade; aiohttp's own error does not keep the body."""

    def __init__(self, reply: Reply) -> None:
        self.reply = reply


@dataclass(frozen=True)
class _ReadReply:
    status: int
    headers: Mapping[str, str]
    body: bytes
    socket: Socket | None = None

    async def read(self) -> bytes:
        return self.body

    async def chunks(self) -> AsyncGenerator[bytes]:
        yield self.body

    async def close(self) -> None:
        pass


async def _keep_refusal(response: aiohttp.ClientResponse) -> None:
    """Raise ``_Refused``. Called for WebSocket requests alone: the other requests switch it off."""
    if response.status != 101:
        raise _Refused(_ReadReply(response.status, response.headers, await response.read()))


def _keepalive_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    new_socket = socket.socket(family, kind, protocol)
    new_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):  # macOS has other names for some of them
            new_socket.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return new_socket


_UNSENT = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
"""Failures before there is a connection; certificate and DNS errors are subclasses of the first."""


class _TranslatedErrors:
    """Translates the errors of aiohttp, sockets and TLS into ``Unreachable``, with the server and the reason.

    No generator of contextlib: that costs three times as much, twice for each request.
    """

    __slots__ = ("_request", "_server")

    def __init__(self, server: Server, request: Request) -> None:
        self._server, self._request = server, request

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            return
        server, request = self._server, self._request
        if isinstance(error, aiohttp.ClientHttpProxyError):
            raise Unreachable(
                f"{request}: the proxy on the way to {server} refused: {error.status} {error.message}", sent=False
            ) from None
        if isinstance(error, aiohttp.ClientResponseError):
            # not chained, because its repr holds our request headers and so the token
            raise Unreachable(f"{request}: {server} does not speak proper HTTP: {error.message}") from None
        if isinstance(error, (aiohttp.ClientError, OSError)):
            sent = not isinstance(error, _UNSENT)
            raise Unreachable(f"{request}: {_explain(server, request, error)}", sent=sent) from error
        # "Session is closed", "Connection closed.": closed while this request waited
        if isinstance(error, RuntimeError) and "closed" in str(error):
            raise Unreachable(f"{request}: the connection to {server} was closed on our side") from error


def _explain(server: Server, request: Request, error: Exception) -> str:
    """Return one sentence on what happened, and on what to check where the cause is certain."""
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"the proxy on the way to {server} cannot be reached ({_word(error.os_error)})"
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return f"{server} does not answer: no connection within {server.connect_timeout:g} s{_CHECK}"
    if isinstance(error, aiohttp.SocketTimeoutError) and request.silence:
        return f"{server} sent nothing for {request.silence:g} s"
    if isinstance(error, TimeoutError):
        return f"{server} did not answer in time"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"{server} presented a certificate that is not trusted: {_certificate(error.certificate_error)}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the host of {server} has no address ({_word(error.os_error)}){_CHECK}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"{server} does not answer: {_word(error.os_error)}{_CHECK}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return f"{server} closed the connection without an answer"
    if isinstance(error, aiohttp.ClientPayloadError):
        return f"{server} closed the connection in the middle of its answer"
    return f"the connection to {server} broke: {_word(error)}"


_CHECK = "; check that the cluster runs and that the address is right"


def _word(error: BaseException) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "WRONG_VERSION_NUMBER":
            return 'it does not speak TLS there; is the address "http://..."?'
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, ConnectionResetError):
        return "connection reset"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _certificate(error: BaseException) -> str:
    word = getattr(error, "verify_message", None) or str(error)
    return f"{word}; give the cluster's CA (certificate-authority in the kubeconfig, or ssl_ca_cert)"
