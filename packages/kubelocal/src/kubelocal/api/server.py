"""The HTTPS server that the API application runs in: uvicorn, opened and closed by the cluster."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from kubelocal.api.app import Api
from kubelocal.api.websocket_upgrade import UpgradingWebSocket
from kubelocal.errors import SettingError

__all__ = ["ApiServer", "listen"]

BACKLOG = 2048
"""Connections that may wait to be accepted: a load test opens hundreds at once."""

_LAST_RESPONSES_S = 0.05


class ApiServer(uvicorn.Server):
    """A uvicorn server inside a program: it leaves signals alone and does not wait for endless streams.

    ``open`` starts a task of the running event loop; ``close`` ends it with every watch and connection.
    """

    def __init__(self, app: Api, certificate: Path) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws=UpgradingWebSocket,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # nothing here reads a client's address, and each message would pass a middleware
                backlog=BACKLOG,
                ws_per_message_deflate=False,
                ws_ping_interval=None,
                ssl_certfile=certificate,
                ssl_keyfile=certificate,
                # Longer than clients keep idle connections: a server that closes first races with their next request.
                timeout_keep_alive=600,
                timeout_graceful_shutdown=2,
            )
        )
        self._app = app
        self._listening = asyncio.Event()
        self._task: asyncio.Task[None]

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        """Leave signals to the program that runs this server."""
        return contextlib.nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and wake ``open``."""
        await super().startup(sockets)
        self._listening.set()

    async def open(self, listeners: list[socket.socket]) -> None:
        """Serve from now on."""
        self._task = asyncio.create_task(self.serve(listeners))
        await self._listening.wait()

    async def close(self) -> None:
        """End every watch and connection, then the server."""
        self.should_exit = True
        await self._task

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Give responses under way a moment, then cut the connections that clients keep open."""
        self._app.close()
        await asyncio.sleep(_LAST_RESPONSES_S)
        for connection in list(self.server_state.connections):
            if not connection.transport.is_closing():  # a second close would make abort powerless under TLS
                connection.transport.close()
        await asyncio.sleep(_LAST_RESPONSES_S)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


@contextlib.contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """Bind an address for a server; port 0 is any free one. Raises ``SettingError`` when it cannot be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's delays off (40 ms a reply) only where the protocol is named
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as problem:
            why = f"cannot serve on {host}:{port}: {problem.strerror}; leave the port out for a free one"
            raise SettingError(why) from problem
        yield listener
