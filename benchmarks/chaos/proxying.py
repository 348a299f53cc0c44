"""A proxy before a real API server that refuses, loses, holds back, cuts and silences what it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import weakref
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import aiohttp
import yaml
from aiohttp import web

from crosswind.local.certificates import Certificates, issue
from crosswind.runs.threads import LoopThread

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


class Proxy:
    """Listens while it is entered; ``fault`` may be changed at any time. ``injected``: faults so far.

    ``answered``: how often the real server answered with each code. ``server``: its own address.
    """

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        found = yaml.safe_load(kubeconfig.read_text())
        self._upstream = found["clusters"][0]["cluster"]["server"]
        self._config = found
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
        connector = aiohttp.TCPConnector(limit=0, ssl=False, socket_factory=self._make_socket)
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
        headers = {name: value for name, value in request.headers.items() if name.lower() not in ("host",)}
        async with self._client.request(
            request.method, self._upstream + request.path_qs, headers=headers, data=await request.read()
        ) as reply:
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
