"""A proxy before a real API server, which refuses, loses or cuts what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from crosswind.runs.threads import LoopThread

__all__ = ["Fault", "Proxy"]

Fault = Callable[[str, str], int | str | None]
"""From method and path with query to what happens: a status code, ``lost`` (carried out, answered by 500), None."""


class Proxy:
    """Listens while it is entered; ``fault`` may be changed at any time."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        found = yaml.safe_load(kubeconfig.read_text())
        self._server = found["clusters"][0]["cluster"]["server"]
        self._config = found
        self.kubeconfig = folder / "proxy-kubeconfig"
        self.fault: Fault = lambda method, path: None
        self.seen: list[tuple[str, str]] = []
        self._thread = LoopThread("proxy", self._serve)
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._open: set[asyncio.Task[Any]] = set()

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._thread.call(self._listen(), 10)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.call(self._close(), 10)
        self._thread.stop(5)

    def cut(self) -> None:
        """Cut every connection that is open, watches above all."""
        self._thread.post(lambda: [task.cancel() for task in self._open])

    async def _serve(self) -> None:
        await asyncio.Event().wait()

    async def _listen(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, ssl=False, socket_factory=self._make_socket)
        self._client = aiohttp.ClientSession(connector=connector)
        app = web.Application(client_max_size=2**24)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self._config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{port}"}
        self.kubeconfig.write_text(yaml.safe_dump(self._config))

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

    async def _decide(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path_qs))
        fault = self.fault(request.method, request.path_qs)
        if isinstance(fault, int):
            return _refusal(fault)
        if fault == "lost":
            await self._forward(request, None)
            return _refusal(500)
        return await self._forward(request, web.StreamResponse())

    async def _forward(self, request: web.Request, answer: web.StreamResponse | None) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in ("host",)}
        async with self._client.request(
            request.method, self._server + request.path_qs, headers=headers, data=await request.read()
        ) as reply:
            if answer is None:
                await reply.read()
                return web.Response()
            answer.set_status(reply.status)
            answer.content_type = reply.content_type
            await answer.prepare(request)
            async for chunk in reply.content.iter_any():
                await answer.write(chunk)
        return answer


def _refusal(code: int) -> web.Response:
    reasons = {403: "Forbidden", 429: "TooManyRequests", 500: "InternalError"}
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reasons.get(code, ""),
        "message": f"a fault made for the test ({code})",
    }
    return web.json_response(body, status=code, headers={"Retry-After": "1"} if code == 429 else {})
