"""A proxy before a real API server that refuses, loses, holds back, cuts and silences what it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import weakref
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import aiohttp
import yaml
from aiohttp import web
from yarl import URL

from crosswind.kube.connecting import load
from crosswind.local.certificates import Certificates, issue
from crosswind.runs.threads import LoopThread
from crosswind.settings import KubeSettings

__all__ = ["Answer", "Fault", "Proxy", "Refusal"]

_REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A ``Status`` that is answered in place of the server's reply.

    ``retry_after``: seconds that it asks to wait; by default a 429 asks for one, all others for none.
    """

    code: int
    message: str = "a fault made for the test"
    retry_after: float | None = None


Answer: TypeAlias = Refusal | int | Literal["lost", "unanswered", "late", "dropped"] | None
"""What becomes of a request: a refusal, or its code alone; ``lost``: carried out, and answered by 500; ``unanswered``:
carried out, and then nothing; ``late``: carried out, and answered on ``release``; ``dropped``: not carried out, the
connection closed; None: all is well."""

Fault: TypeAlias = Callable[[str, str], Answer]
"""From method and path with query to what becomes of the request."""


Rewrite: TypeAlias = Callable[["Proxy", str, str, bytes], Awaitable[tuple[str, bytes]]]
"""From method, path with query and body to the path and the body that are passed on."""


class Proxy:
    """Listens while it is entered; ``fault`` may be changed at any time. ``injected``: faults so far.

    It signs in as the kubeconfig does, with whatever credentials, for clients that bring none; a client with a token
    of its own has the rights of that token. ``answered``: how often the real server answered with each code.
    ``server``: its own address.
    """

    def __init__(self, kubeconfig: Path, folder: Path, rewrite: Rewrite | None = None) -> None:
        self._source = kubeconfig
        user = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]
        # A token is handed on, as clients would send it; for any other way to sign in clients get nothing.
        self._config = _kubeconfig({"token": user["token"]} if "token" in user else {})
        self._rewrite = rewrite
        self.kubeconfig = folder / "proxy-kubeconfig"
        self.fault: Fault = lambda method, path: None
        self.seen: list[tuple[str, str]] = []
        self.injected = 0
        self.answered: Counter[int] = Counter()
        self.late = 0
        """Requests that were carried out and are not answered before ``release``."""
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
        """Cut every connection that carries a request, watches above all."""
        self._thread.call(self._cut(), 10)

    def hold(self) -> None:
        """Let nothing through in either direction, and close nothing, until ``release``."""
        self.injected += 1
        self._thread.call(self._set_flowing(False), 10)

    def release(self) -> None:
        """Let through what was held back, and answer what is late."""
        self._thread.call(self._set_flowing(True), 10)
        self._thread.post(self._released.set)

    def mute(self) -> None:
        """Let the streams that are open now go on without a word: nothing comes, and nothing ends."""
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
        """Listen, with TLS if there is an authority to vouch for us."""
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
        """Replace the kubeconfig in one step, by what holds now."""
        part = self.kubeconfig.with_name("proxy-kubeconfig.part")
        part.write_text(yaml.safe_dump(self._config))
        part.replace(self.kubeconfig)

    def sign_in_by(self, command: Path) -> None:
        """Have the kubeconfig name an exec plug-in in place of its token."""
        plugin = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(command), "interactiveMode": "Never"}
        self._config["users"][0]["user"] = {"exec": plugin}
        self.write_kubeconfig()

    @property
    def token(self) -> str:
        """The token that the kubeconfig holds."""
        return str(self._config["users"][0]["user"]["token"])

    def rotate(self, *, elsewhere: bool = False) -> None:
        """Come back with another CA, ``elsewhere`` at another address too; the kubeconfig stays until it is written."""
        self.injected += 1
        self._thread.call(self._rotate(0 if elsewhere else self._port), 10)

    async def _rotate(self, port: int) -> None:
        await self._cut()
        await self._site.stop()
        assert self._runner.server is not None
        await self._runner.server.shutdown(0.1)  # connections that are kept alive, too
        await self._serve_at(port, issue(["127.0.0.1"]))

    async def _close(self) -> None:
        for task in self._open:
            task.cancel()
        await self._runner.cleanup()
        await self._client.close()
        for left in list(self._sockets):
            with contextlib.suppress(OSError):
                left.shutdown(socket.SHUT_RDWR)  # TLS's polite end may outlive the loop
        await asyncio.sleep(0.02)

    def _make_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        made = socket.socket(*address[:3])
        self._sockets.add(made)
        return made

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
            except aiohttp.WSServerHandshakeError:  # it does not hold what the server said; asked plainly, that comes
                return await self._forward(request, web.StreamResponse())
        answer = self.fault(request.method, request.path_qs)
        if answer is None:
            return await self._forward(request, web.StreamResponse())
        self.injected += 1
        if isinstance(answer, Refusal | int):
            return _refusal(answer if isinstance(answer, Refusal) else Refusal(answer))
        if answer == "dropped":
            raise asyncio.CancelledError
        if answer == "late":
            self._released.clear()
            return await self._forward(request, web.StreamResponse(), late=True)
        await self._forward(request, None)
        if answer == "unanswered":
            await asyncio.Event().wait()
        return _refusal(Refusal(500))

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
            await answer.prepare(request)
            async for chunk in reply.content.iter_any():
                await self._flowing.wait()
                if asyncio.current_task() in self._muted:
                    await asyncio.Event().wait()
                await answer.write(chunk)
        return answer

    async def _tunnel(self, request: web.Request) -> web.WebSocketResponse:
        """Carry the messages of a WebSocket in both directions."""
        headers = {name: value for name, value in request.headers.items() if name == "Authorization"}
        offered = [one.strip() for one in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if one.strip()]
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
        """Send a request of our own to the server; return code and content. Only in the proxy's own loop."""
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
        """Return the options of a request by which the server knows who asks."""
        tls = self._upstream.tls
        if any(name.lower() == "authorization" for name in headers):
            tls = self._without_certificate  # to the server a certificate counts more than a token
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
    """Return a context that trusts whom ``tls`` trusts, and has no certificate of its own."""
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


def _refusal(refusal: Refusal) -> web.Response:
    code = refusal.code
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": _REASONS.get(code, ""),
        "message": f"{refusal.message} ({code})" if code != 403 else refusal.message,
    }
    asked = 1.0 if refusal.retry_after is None and code == 429 else refusal.retry_after
    return web.json_response(body, status=code, headers={} if asked is None else {"Retry-After": f"{asked:g}"})
