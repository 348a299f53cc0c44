"""Kubernetes' channels over a WebSocket: the first byte of each message says which stream it belongs to.

Subprotocols (``k8s.io/apimachinery/pkg/util/remotecommand``): ``v5.channel.k8s.io`` can close standard input, ``v4``
ends with a Status on channel 3, the ones before with a plain text. Their ``base64`` forms send text messages.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.websockets import WebSocket, WebSocketDisconnect

__all__ = [
    "CLOSE",
    "COMMAND_PROTOCOLS",
    "ERROR",
    "RESIZE",
    "STDERR",
    "STDIN",
    "STDOUT",
    "Channels",
    "Protocol",
    "choose",
    "unless_gone",
]

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255


@dataclass(frozen=True, slots=True)
class Protocol:
    """A subprotocol; ``version`` decides how a command's end is told, ``text`` whether messages are base64."""

    name: str
    version: int
    text: bool = False


COMMAND_PROTOCOLS = (
    Protocol("v5.channel.k8s.io", 5),
    Protocol("v4.channel.k8s.io", 4),
    Protocol("v4.base64.channel.k8s.io", 4, text=True),
    Protocol("channel.k8s.io", 1),
    Protocol("base64.channel.k8s.io", 1, text=True),
    Protocol("", 1),
)


def choose(offered: Sequence[str], known: Sequence[Protocol]) -> Protocol | None:
    """Return the first offered protocol that is known; one without a name stands for a client that offers none."""
    by_name = {protocol.name: protocol for protocol in known}
    return next((by_name[name] for name in (offered or ("",)) if name in by_name), None)


class Channels:
    """An accepted WebSocket, seen as numbered channels. Sending waits while the client is slow."""

    def __init__(self, websocket: WebSocket, protocol: Protocol) -> None:
        self._websocket = websocket
        self.protocol = protocol

    async def open(self) -> None:
        """Accept the connection."""
        await self._websocket.accept(subprotocol=self.protocol.name or None)

    async def send(self, channel: int, content: bytes) -> None:
        """Send a piece of a stream. Raises ``WebSocketDisconnect`` when the client is gone."""
        if self.protocol.text:
            await self._websocket.send_text(f"{channel}{base64.b64encode(content).decode()}")
        else:
            await self._websocket.send_bytes(bytes((channel,)) + content)

    async def receive(self) -> tuple[int, bytes] | None:
        """Return the next piece and its channel, None when the client is gone or sends nonsense."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        content = message.get("bytes") or (message.get("text") or "").encode()
        if not content:
            return STDIN, b""
        if not self.protocol.text:
            return content[0], content[1:]
        try:
            return content[0] - ord("0"), base64.b64decode(content[1:], validate=True)
        except binascii.Error:
            return None

    async def close(self) -> None:
        """Say goodbye; nothing happens when the client has done so."""
        try:
            await self._websocket.close()
        except (WebSocketDisconnect, RuntimeError):
            return


T = TypeVar("T")


async def unless_gone(working: Coroutine[Any, Any, T], listening: Coroutine[Any, Any, None]) -> T | None:
    """Return what ``working`` returns, or None if ``listening`` ended first because the client is gone."""
    work, listen = asyncio.create_task(working), asyncio.create_task(listening)
    try:
        await asyncio.wait((work, listen), return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        work.cancel()
        listen.cancel()
        await asyncio.gather(work, listen, return_exceptions=True)
