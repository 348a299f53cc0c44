"""A proxy in front of a real API server that refuses, loses, delays, cuts and silences requests on command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import time
import weakref
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any, Literal, TypeAlias

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

from crosswind.event_loop import LoopThread
from crosswind.kube.credentials import load
from crosswind.settings import KubeSettings
from kubelocal.auth.certificates import Certificates, issue

__all__ = ["Answer", "Fault", "Proxy", "ProxyRefusal"]

_REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


@dataclass(frozen=True, slots=True)
class ProxyRefusal:
    """A ``Status`` that the proxy answers instead of the server's reply.

    ``retry_after``: the seconds in its ``Retry-After``; by default 1 for a 429, and none for others.
    """

    code: int
    message: str = "a fault made for the test"
    retry_after: float | None = None


Answer: TypeAlias = ProxyRefusal | int | Literal["lost", "unanswered", "late", "dropped"] | None
"""The fate of a request: a refusal, or its code alone; ``lost``: executed and answered by 500; ``unanswered``: executed
without an answer; ``late``: executed and answered on ``release``; ``dropped``: not executed, the connection is closed;
None: no fault."""

Fault: TypeAlias = Callable[[str, str], Answer]
"""Returns the fate of a request from its method and its path with query."""


Rewrite: TypeAlias = Callable[["Proxy", str, str, bytes], Awaitable[tuple[str, bytes]]]
"""Returns the path and the body that the proxy forwards, from method, path with query and body."""


class Proxy:
    """A context manager that listens inside its context; ``fault`` may change at any time. ``injected``: faults so far.

    It authenticates with the credentials of the kubeconfig for clients without any; a client with a token of its own
    has the permissions of that token. ``answered``: the number of answers of the real server by code. ``server``: the
    proxy's own address.
    """

    def __init__(self, kubeconfig: Path, folder: Path, rewrite: Rewrite | None = None) -> None:
        self._source = kubeconfig
        user = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]
        # The kubeconfig for clients has the token, as they would send it, and no credentials of other kinds.
        self._config = _kubeconfig({"token": user["token"]} if "token" in user else {})
        self._rewrite = rewrite
        self.kubeconfig = folder / "proxy-kubeconfig"
        self.fault: Fault = lambda method, path: None
        self.seen: list[tuple[str, str]] = []
        self.injected = 0
        self.answered: Counter[int] = Counter()
        self.clock_offset = 0.0
        """Seconds by which the server's clock, as its answers show it, differs from this machine's."""
        self.late = 0
        """Requests that the server has executed, and that are answered on ``release``."""
        self._thread = LoopThread("proxy", self._serve)
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._open: set[asyncio.Task[Any]] = set()
        self._muted: set[asyncio.Task[Any]] = set()
        self._flowing = asyncio.Event()
        self._released = asyncio.Event()

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._thread.call(self._listen(), 10)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.call(self._close(), 10)
        self._thread.stop(5)

    def cut(self) -> None:
        """Close every connection that carries a request, watches included."""
        self._thread.call(self._cut(), 10)

    def hold(self) -> None:
        """Stop all traffic in both directions without closing a connection, until ``release``."""
        self.injected += 1
        self._thread.call(self._set_flowing(False), 10)

    def release(self) -> None:
        """Resume the traffic, and answer the late requests."""
        self._thread.call(self._set_flowing(True), 10)
        self._thread.post(self._released.set)

    def mute(self) -> None:
        """Silence the streams that are open now: they get no data, and do not end."""
        self._thread.call(self._mute(), 10)

    async def _cut(self) -> None:
        self.injected += len(self._open)
        for task in self._open:
            task.cancel()

    async def _set_flowing(self, flowing: bool) -> None:
        self._flowing.set() if flowing else self._flowing.clear()

    async def _mute(self) -> None:
        self.injected += len(self._open)
        self._muted |= self._open

    async def _serve(self) -> None:
        await asyncio.Event().wait()

    async def _listen(self) -> None:
        self._flowing.set()
        connector = aiohttp.TCPConnector(limit=0, socket_factory=self._make_socket)
        self._upstream, self._credentials = await load(KubeSettings(kubeconfig=str(self._source)))
        self._without_certificate = _anonymous(self._upstream.tls)
        self._client = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True, access_log=None)
        await self._runner.setup()
        await self._serve_at(0, None)
        self.write_kubeconfig()

    async def _serve_at(self, port: int, authority: Certificates | None) -> None:
        """Listen, with TLS if there is a certificate authority."""
        self._site = web.TCPSite(
            self._runner, "127.0.0.1", port, ssl_context=self._tls(authority) if authority else None, reuse_address=True
        )
        await self._site.start()
        self._port = self._runner.addresses[0][1]
        self.server = f"http{'s' if authority else ''}://127.0.0.1:{self._port}"
        cluster = {"server": self.server}
        if authority:
            cluster["certificate-authority-data"] = b64encode(authority.authority.encode()).decode()
        self._config["clusters"][0]["cluster"] = cluster

    def _tls(self, authority: Certificates) -> ssl.SSLContext:
        pair = self.kubeconfig.with_name("proxy.pem")
        pair.write_text(authority.server + authority.key)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pair)
        return context

    def write_kubeconfig(self) -> None:
        """Replace the kubeconfig atomically by one with the current address and CA."""
        part = self.kubeconfig.with_name("proxy-kubeconfig.part")
        part.write_text(yaml.safe_dump(self._config))
        part.replace(self.kubeconfig)

    def sign_in_by(self, command: Path) -> None:
        """Write a kubeconfig with an exec plug-in instead of a token."""
        plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(command), "interactiveMode": "Never"}
        self._config["users"][0]["user"] = {"exec": plugin}
        self.write_kubeconfig()

    @property
    def token(self) -> str:
        """The token of the kubeconfig."""
        return str(self._config["users"][0]["user"]["token"])

    def rotate(self, *, elsewhere: bool = False) -> None:
        """Restart with another CA, ``elsewhere`` also at another address; the kubeconfig stays until it is written."""
        self.injected += 1
        self._thread.call(self._rotate(0 if elsewhere else self._port), 10)

    async def _rotate(self, port: int) -> None:
        await self._cut()
        await self._site.stop()
        assert self._runner.server is not None
        await self._runner.server.shutdown(0.1)  # also closes connections that are kept alive
        await self._serve_at(port, issue(["127.0.0.1"]))

    async def _close(self) -> None:
        for task in self._open:
            task.cancel()
        await self._runner.cleanup()
        await self._client.close()
        for left in list(self._sockets):
            with contextlib.suppress(OSError):
                left.shutdown(socket.SHUT_RDWR)  # TLS's closing handshake may outlast the loop
        await asyncio.sleep(0.02)

    def _make_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        new_socket = socket.socket(*address[:3])
        self._sockets.add(new_socket)
        return new_socket

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            return await self._decide(request)
        finally:
            self._open.discard(task)
            self._muted.discard(task)

    async def _decide(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path_qs))
        await self._flowing.wait()
        if request.headers.get("Upgrade", "").lower() == "websocket":
            try:
                return await self._tunnel(request)
            except aiohttp.WSServerHandshakeError:  # the error lacks the body of the answer; a plain request returns it
                return await self._forward(request, web.StreamResponse())
        answer = self.fault(request.method, request.path_qs)
        if answer is None:
            return await self._forward(request, web.StreamResponse())
        self.injected += 1
        if isinstance(answer, ProxyRefusal | int):
            return _refusal(answer if isinstance(answer, ProxyRefusal) else ProxyRefusal(answer))
        if answer == "dropped":
            raise asyncio.CancelledError
        if answer == "late":
            self._released.clear()
            return await self._forward(request, web.StreamResponse(), late=True)
        await self._forward(request, None)
        if answer == "unanswered":
            await asyncio.Event().wait()
        return _refusal(ProxyRefusal(500))

    async def _forward(
        self, request: web.Request, answer: web.StreamResponse | None, *, late: bool = False
    ) -> web.StreamResponse:
        path, body = await self._rewritten(request, await request.read())
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _OWN_HEADERS}
        async with self._send(request.method, path, body, headers) as reply:
            self.answered[reply.status] += 1
            if answer is None:
                await reply.read()
                return web.Response()
            if late:
                self.late += 1
                await self._released.wait()
            answer.set_status(reply.status)
            answer.content_type = reply.content_type
            for name in ("Retry-After",):
                if name in reply.headers:
                    answer.headers[name] = reply.headers[name]
            answer.headers["Date"] = formatdate(time.time() + self.clock_offset, usegmt=True)
            await answer.prepare(request)
            async for chunk in reply.content.iter_any():
                await self._flowing.wait()
                if asyncio.current_task() in self._muted:
                    await asyncio.Event().wait()
                await answer.write(chunk)
        return answer

    async def _tunnel(self, request: web.Request) -> web.WebSocketResponse:
        """Forward the messages of a WebSocket in both directions."""
        headers = {name: value for name, value in request.headers.items() if name == "Authorization"}
        offered = [
            name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if name.strip()
        ]
        path, _ = await self._rewritten(request, b"")
        address = URL(self._upstream.url + path, encoded=True)
        async with self._client.ws_connect(
            address, protocols=offered, max_msg_size=0, **await self._signed(headers)
        ) as above:
            below = web.WebSocketResponse(protocols=[above.protocol] if above.protocol else [], max_msg_size=0)
            await below.prepare(request)
            ways = [asyncio.create_task(_carry(below, above)), asyncio.create_task(_carry(above, below))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.wait(ways)
            await below.close(code=above.close_code or 1000)
        return below

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Send a request of the scenario to the server; return code and content. Only in the proxy's own loop."""
        content = b"" if body is None else json.dumps(body).encode()
        async with self._send(method, path, content, {"Content-Type": "application/json"}) as reply:
            return reply.status, await reply.json(content_type=None)

    async def _rewritten(self, request: web.Request, body: bytes) -> tuple[str, bytes]:
        if self._rewrite is None:
            return request.path_qs, body
        return await self._rewrite(self, request.method, request.path_qs, body)

    @contextlib.asynccontextmanager
    async def _send(
        self, method: str, path: str, body: bytes, headers: dict[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        address = URL(self._upstream.url + path, encoded=True)
        options = await self._signed(headers)
        async with self._client.request(method, address, data=body or None, **options) as reply:
            yield reply

    async def _signed(self, headers: dict[str, str]) -> dict[str, Any]:
        """Return the options of a request that authenticate it."""
        tls = self._upstream.tls
        if any(name.lower() == "authorization" for name in headers):
            tls = self._without_certificate  # the server prefers a certificate to a token
        elif authorization := await self._credentials.current():
            headers = {**headers, "Authorization": authorization}
        options: dict[str, Any] = {"headers": headers, "proxy": self._upstream.proxy}
        if tls is not None:
            options |= {"ssl": tls, "server_hostname": self._upstream.tls_server_name}
        return options


_OWN_HEADERS = ("host", "content-length", "transfer-encoding", "connection", "upgrade")


async def _carry(source: Any, target: Any) -> None:
    async for message in source:
        if message.type is aiohttp.WSMsgType.BINARY:
            await target.send_bytes(message.data)
        elif message.type is aiohttp.WSMsgType.TEXT:
            await target.send_str(message.data)


def _anonymous(tls: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """Return a context with the same trusted authorities as ``tls`` and no client certificate."""
    if tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = tls.check_hostname, tls.verify_mode
    context.verify_flags = tls.verify_flags
    authorities = "".join(map(ssl.DER_cert_to_PEM_cert, tls.get_ca_certs(binary_form=True)))
    if authorities:
        context.load_verify_locations(cadata=authorities)
    return context


def _kubeconfig(user: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "proxy",
        "clusters": [{"name": "proxy", "cluster": {}}],
        "users": [{"name": "proxy", "user": user}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
    }


def _refusal(refusal: ProxyRefusal) -> web.Response:
    code = refusal.code
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": _REASONS.get(code, ""),
        "message": f"{refusal.message} ({code})" if code != 403 else refusal.message,
    }
    retry_after = 1.0 if refusal.retry_after is None and code == 429 else refusal.retry_after
    return web.json_response(
        body, status=code, headers={} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
    )
