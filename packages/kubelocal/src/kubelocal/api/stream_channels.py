"""Kubernetes' channels over a WebSocket: the first byte of each message is the number of its stream.

Subprotocols (``k8s.io/apimachinery/pkg/util/remotecommand``): both end with a Status on channel 3, and
``v5.channel.k8s.io`` can close standard input. No current client uses the older ones and the base64 forms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
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
    "choose",
    "unless_gone",
]

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255


COMMAND_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")


def choose(offered: Sequence[str], known: Sequence[str]) -> str | None:
    """Return the first offered protocol that is supported."""
    return next((name for name in offered if name in known), None)


class Channels:
    """An accepted WebSocket as numbered channels. Sending waits while the client is slow."""

    def __init__(self, websocket: WebSocket, protocol: str) -> None:
        self._websocket = websocket
        self._protocol = protocol

    async def open(self) -> None:
        """Accept the connection."""
        await self._websocket.accept(subprotocol=self._protocol)

    async def send(self, channel: int, content: bytes) -> None:
        """Send a piece of a stream. Raises ``WebSocketDisconnect`` when the client has disconnected."""
        await self._websocket.send_bytes(bytes((channel,)) + content)

    async def receive(self) -> tuple[int, bytes] | None:
        """Return the next piece and its channel, None when the client has disconnected."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        content = message.get("bytes") or (message.get("text") or "").encode()
        return (content[0], content[1:]) if content else (STDIN, b"")

    async def close(self) -> None:
        """Close the connection, unless the client has closed it."""
        try:
            await self._websocket.close()
        except (WebSocketDisconnect, RuntimeError):
            return


T = TypeVar("T")


async def unless_gone(working: Coroutine[Any, Any, T], listening: Coroutine[Any, Any, None]) -> T | None:
    """Return the result of ``working``, or None when ``listening`` ends first because the client disconnected.

    Both run as tasks of this call, which cancels and awaits them in any case.
    """
    work, listen = asyncio.create_task(working), asyncio.create_task(listening)
    try:
        await asyncio.wait((work, listen), return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        work.cancel()
        listen.cancel()
        await asyncio.gather(work, listen, return_exceptions=True)
