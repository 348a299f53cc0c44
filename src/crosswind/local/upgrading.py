"""uvicorn's protocols, amended for what kubectl asks for.

kubectl before 1.30 upgrades to SPDY/3.1 for its streams. The application sees such a connection as a WebSocket with the
key ``spdy`` in its scope, whose messages are pieces of the byte stream, cut anywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from http import HTTPStatus
from typing import Any, TypeAlias

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from crosswind.local.forwarding import ASKED_TUNNEL, TUNNEL

__all__ = ["UpgradingHttp", "UpgradingWebSocket"]

Message: TypeAlias = MutableMapping[str, Any]

SPDY = b"spdy/3.1"
PIECE = 1 << 16


class UpgradingWebSocket(WebSocketsSansIOProtocol):
    """Knows a subprotocol of kubectl that is not well-formed, and ends a refusal properly."""

    def handle_connect(self, event: Request) -> None:
        """Begin the handshake with kubectl's subprotocol under a name that is let through."""
        offered = event.headers.get_all("Sec-WebSocket-Protocol")
        if offered:
            del event.headers["Sec-WebSocket-Protocol"]
            event.headers["Sec-WebSocket-Protocol"] = ", ".join(offered).replace(TUNNEL, ASKED_TUNNEL)
        super().handle_connect(event)

    async def send(self, message: Any) -> None:
        """Send; an HTTP answer completes the handshake too, else it is logged as a fault."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True


class UpgradingHttp(HttpToolsProtocol):
    """Hands SPDY connections on as WebSockets."""

    def _should_upgrade(self) -> bool:
        return self._get_upgrade() == SPDY or super()._should_upgrade()

    def handle_websocket_upgrade(self) -> None:
        """Upgrade to what was asked for."""
        if self._get_upgrade() != SPDY:
            super().handle_websocket_upgrade()
            return
        self.connections.discard(self)
        reader = asyncio.StreamReader()
        protocol = _Raw(reader, self.connections)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        writer = asyncio.StreamWriter(self.transport, protocol, reader, self.loop)
        task = self.loop.create_task(_serve(self.app, self._spdy_scope(), _Upgraded(reader, writer)))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _spdy_scope(self) -> dict[str, Any]:
        path, _, query = self.url.partition(b"?")
        versions = [value.decode() for name, value in self.headers if name == b"x-stream-protocol-version"]
        offered = [word.strip() for value in versions for word in value.split(",")]
        return {
            **self.scope,
            "type": "websocket",
            "spdy": True,
            "path": path.decode("ascii"),
            "raw_path": path,
            "query_string": query,
            "subprotocols": [ASKED_TUNNEL if TUNNEL.endswith(f"+{word}") else word for word in offered],
            "method": self.parser.get_method().decode("ascii"),
            "extensions": {"websocket.http.response": {}},
        }


class _Raw(asyncio.StreamReaderProtocol):
    """A stream of bytes that uvicorn knows of, so that it can end it."""

    def __init__(self, reader: asyncio.StreamReader, connections: set[Any]) -> None:
        super().__init__(reader)
        self._connections = connections
        self.transport: asyncio.BaseTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._connections.discard(self)

    def shutdown(self) -> None:
        """End it."""
        self.transport.close()


class _Upgraded:
    """A SPDY connection as the receive and send of an ASGI WebSocket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._connected = False

    async def receive(self) -> Message:
        """Return the next piece."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        try:
            content = await self._reader.read(PIECE)
        except OSError:
            content = b""
        return {"type": "websocket.receive", "bytes": content} if content else {"type": "websocket.disconnect"}

    async def send(self, message: Message) -> None:
        """Write; ``OSError`` when the client is gone, as uvicorn says it."""
        match message["type"]:
            case "websocket.accept":
                version = (message.get("subprotocol") or "").rpartition("+")[2]
                upgrade = (("Upgrade", "SPDY/3.1"), ("Connection", "Upgrade"), ("X-Stream-Protocol-Version", version))
                self.writer.write(_head(101, upgrade))
            case "websocket.http.response.start":
                headers = [(name.decode(), value.decode()) for name, value in message["headers"]]
                self.writer.write(_head(message["status"], [*headers, ("Connection", "close")]))
            case "websocket.http.response.body":
                self.writer.write(message["body"])
            case "websocket.send":
                self.writer.write(message["bytes"])
            case "websocket.close":
                self.writer.close()
                return
        await self.writer.drain()


def _head(code: int, headers: Any) -> bytes:
    lines = [f"HTTP/1.1 {code} {HTTPStatus(code).phrase}", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("latin-1")


async def _serve(app: Any, scope: dict[str, Any], connection: _Upgraded) -> None:
    try:
        await app(scope, connection.receive, connection.send)
    except OSError:
        return
    finally:
        connection.writer.close()
