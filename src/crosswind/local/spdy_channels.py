"""The channels of exec and attach as streams of a SPDY connection, one stream each, for kubectl before 1.30."""

from __future__ import annotations

from collections import deque

from starlette.websockets import WebSocket, WebSocketDisconnect

from crosswind.local import spdy
from crosswind.local.websocket import CLOSE, ERROR, RESIZE, STDERR, STDIN, STDOUT, Protocol

__all__ = ["SpdyChannels"]

_KINDS = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}


class SpdyChannels:
    """Does what ``websocket.Channels`` does. ``kinds``: the streams that the client opens before anything is sent."""

    def __init__(self, websocket: WebSocket, protocol: Protocol, kinds: frozenset[str]) -> None:
        self.protocol = protocol
        self._websocket = websocket
        self._awaited = {_KINDS[kind] for kind in kinds}
        self._frames = spdy.Frames()
        self._streams: dict[int, int] = {}
        self._channels: dict[int, int] = {}
        self._pending: deque[tuple[int, bytes]] = deque()

    async def open(self) -> None:
        """Accept the connection and wait for its streams."""
        await self._websocket.accept(subprotocol=self.protocol.name)
        while not self._awaited <= self._streams.keys():
            if not await self._take():
                raise WebSocketDisconnect(1006)

    async def send(self, channel: int, content: bytes) -> None:
        """Send a piece of a stream. Raises ``WebSocketDisconnect`` when the client is gone."""
        if content and channel in self._streams:
            await self._websocket.send_bytes(self._frames.data(self._streams[channel], content))

    async def receive(self) -> tuple[int, bytes] | None:
        """Return the next piece and its channel, None when the client is gone or sends nonsense."""
        while not self._pending:
            if not await self._take():
                return None
        return self._pending.popleft()

    async def close(self) -> None:
        """End all streams and say goodbye."""
        try:
            for stream in self._streams.values():
                await self._websocket.send_bytes(self._frames.data(stream, b"", last=True))
            await self._websocket.close()
        except (WebSocketDisconnect, RuntimeError):
            return

    async def _take(self) -> bool:
        """Take what has come; False at the end."""
        message = await self._websocket.receive()
        if message["type"] == "websocket.disconnect":
            return False
        try:
            for frame in self._frames.feed(message["bytes"]):
                await self._answer(frame)
        except ValueError:
            return False
        return True

    async def _answer(self, frame: spdy.Opened | spdy.Data | spdy.Reset | spdy.Ping) -> None:
        match frame:
            case spdy.Opened():
                await self._websocket.send_bytes(self._frames.accept(frame.stream))
                channel = _KINDS.get(frame.headers.get("streamtype", ""))
                if channel is not None:
                    self._streams[channel], self._channels[frame.stream] = frame.stream, channel
            case spdy.Ping():
                await self._websocket.send_bytes(self._frames.pong(frame.number))
            case spdy.Data() if frame.stream in self._channels:
                channel = self._channels[frame.stream]
                if frame.content:
                    self._pending.append((channel, frame.content))
                if frame.last:
                    self._pending.append((CLOSE, bytes((channel,))))
