"""Port-forward: connections into a pod, carried over a WebSocket.

Two forms: ``v4.channel.k8s.io`` has two channels per port (data and errors), each beginning with the port's number;
kubectl from 1.31 sends SPDY/3.1 frames inside the WebSocket (KEP-4006), a pair of streams per connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.websockets import WebSocket, WebSocketDisconnect

from kubelocal.api import spdy
from kubelocal.api.stream_channels import Channels, unless_gone
from kubelocal.codec.integers import parse_uint, shortened
from kubelocal.interfaces import Runtime
from kubelocal.types import Manifest

__all__ = ["PROTOCOLS", "SLASHLESS_TUNNEL", "TUNNEL", "forward", "read_ports", "tunnel"]

TUNNEL = "SPDY/3.1+portforward.k8s.io"
SLASHLESS_TUNNEL = "SPDY-3.1+portforward.k8s.io"
"""``TUNNEL`` as the server receives it: the slash of kubectl's name is not allowed in a token of RFC 6455."""

PROTOCOLS = ("v4.channel.k8s.io",)
CHUNK_BYTES = 1 << 16
_WAITING_PIECES = 16

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def read_ports(values: Sequence[str]) -> list[int]:
    """Read the query's ports, comma-separated or repeated. Raises ``ValueError`` with the kubelet's message."""
    texts = [text for value in values for text in value.split(",")]
    if not texts:
        raise ValueError('query parameter "ports" is required')
    for text in texts:
        if not _is_port(text):
            raise ValueError(f'unable to parse "{shortened(text)}" as a port: invalid syntax')
        if parse_uint(text) < 1:
            raise ValueError(f'port "{shortened(text)}" must be > 0')
    return [parse_uint(text) for text in texts]


def _is_port(text: str) -> bool:
    try:
        return parse_uint(text) <= 65535
    except ValueError:
        return False


async def dial(runtime: Runtime, pod: Manifest, port: int) -> Connection | str:
    """Connect to a port of the pod; return the error message when that fails."""
    try:
        return await runtime.dial(pod, port)
    except (OSError, LookupError) as problem:
        metadata = pod["metadata"]
        where = f"error forwarding port {port} to pod {metadata['name']}, uid {metadata['uid']}"
        return f"{where}: failed to connect to localhost:{port} inside the pod: {problem}"


# ------------------------------------------------------------------------------------------- one channel per stream


async def forward(channels: Channels, runtime: Runtime, pod: Manifest, ports: Sequence[int]) -> None:
    """Serve ``v4.channel.k8s.io`` until every port's connection has ended or the client disconnects."""
    await channels.open()
    for number, port in enumerate(ports):
        for channel in (2 * number, 2 * number + 1):
            await channels.send(channel, struct.pack("<H", port))
    connections = [await dial(runtime, pod, port) for port in ports]
    opened = {2 * n: c for n, c in enumerate(connections) if not isinstance(c, str)}
    try:
        for number, connection in enumerate(connections):
            if isinstance(connection, str):
                await channels.send(2 * number + 1, connection.encode())
        sending = _send_all(channels, {number: reader for number, (reader, _) in opened.items()})
        await unless_gone(sending, _listen(channels, {number: writer for number, (_, writer) in opened.items()}))
        await channels.close()
    finally:
        for _, writer in opened.values():
            writer.close()


async def _send_all(channels: Channels, readers: dict[int, asyncio.StreamReader]) -> None:
    await asyncio.gather(*(_send(channels, number, reader) for number, reader in readers.items()))


async def _send(channels: Channels, number: int, reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(CHUNK_BYTES):
            await channels.send(number, piece)


async def _listen(channels: Channels, writers: dict[int, asyncio.StreamWriter]) -> None:
    while (message := await channels.receive()) is not None:
        writer = writers.get(message[0])
        if writer is not None:
            with contextlib.suppress(OSError):
                writer.write(message[1])
                await writer.drain()


# ---------------------------------------------------------------------------------------------- SPDY in a WebSocket


@dataclass(slots=True)
class _Stream:
    """A data stream of the client: its task, and the pieces that the pod has not read yet; None is the end."""

    task: asyncio.Task[None] | None = None
    pieces: asyncio.Queue[bytes | None] = field(default_factory=lambda: asyncio.Queue(_WAITING_PIECES))


async def tunnel(websocket: WebSocket, runtime: Runtime, pod: Manifest) -> None:
    """Serve kubectl's tunnel until either side closes it."""
    await websocket.accept(subprotocol=TUNNEL)
    await _Tunnel(websocket, runtime, pod).run()


class _Tunnel:
    def __init__(self, websocket: WebSocket, runtime: Runtime, pod: Manifest) -> None:
        self._websocket = websocket
        self._runtime = runtime
        self._pod = pod
        self._frames = spdy.Frames()
        self._streams: dict[int, _Stream] = {}
        self._errors: dict[str, int] = {}

    async def run(self) -> None:
        """Handle frames until the client disconnects or sends something that is not SPDY.

        The task group owns one task per stream; all are cancelled when the WebSocket ends.
        """
        async with asyncio.TaskGroup() as group:
            with contextlib.suppress(WebSocketDisconnect, ValueError):
                while (message := await self._websocket.receive())["type"] == "websocket.receive":
                    for frame in self._frames.feed(message.get("bytes") or b""):
                        await self._take(frame, group)
            for stream in self._streams.values():
                if stream.task:
                    stream.task.cancel()
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._websocket.close()

    async def _take(self, frame: spdy.Opened | spdy.Data | spdy.Reset | spdy.Ping, group: asyncio.TaskGroup) -> None:
        match frame:
            case spdy.Opened():
                await self._open(frame, group)
            case spdy.Data(stream=number):
                if number in self._streams:
                    await self._put(self._streams[number], frame)
            case spdy.Reset(stream=number):
                stream = self._streams.pop(number, None)
                if stream and stream.task:
                    stream.task.cancel()
            case spdy.Ping():
                await self._websocket.send_bytes(self._frames.pong(frame.number))

    async def _put(self, stream: _Stream, frame: spdy.Data) -> None:
        if frame.content:
            await stream.pieces.put(frame.content)
        if frame.last:
            await stream.pieces.put(None)

    async def _open(self, frame: spdy.Opened, group: asyncio.TaskGroup) -> None:
        await self._websocket.send_bytes(self._frames.accept(frame.stream))
        request, kind = frame.headers.get("requestid", ""), frame.headers.get("streamtype")
        if kind == "error":
            self._errors[request] = frame.stream
            return
        try:
            port = read_ports([frame.headers.get("port", "")])[0]
        except ValueError:
            await self._websocket.send_bytes(self._frames.reset(frame.stream))
            return
        stream = self._streams[frame.stream] = _Stream()
        stream.task = group.create_task(self._carry(frame.stream, stream, self._errors.pop(request, 0), port))

    async def _carry(self, number: int, stream: _Stream, errors: int, port: int) -> None:
        """Copy one connection until it ends, then close its two streams."""
        connection = await dial(self._runtime, self._pod, port)
        problem = b""
        if isinstance(connection, str):
            problem = connection.encode()
        else:
            await self._copy(number, stream, connection)
        self._streams.pop(number, None)
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await self._websocket.send_bytes(self._frames.data(number, b"", last=True))
            if errors:
                await self._websocket.send_bytes(self._frames.data(errors, problem, last=True))

    async def _copy(self, number: int, stream: _Stream, connection: Connection) -> None:
        reader, writer = connection
        feeding = asyncio.create_task(_feed(stream.pieces, writer))
        try:
            with contextlib.suppress(ConnectionError, WebSocketDisconnect):
                while piece := await reader.read(CHUNK_BYTES):
                    await self._websocket.send_bytes(self._frames.data(number, piece))
        finally:
            feeding.cancel()
            writer.close()  # before the gather, which may be cancelled too
            await asyncio.gather(feeding, return_exceptions=True)


async def _feed(pieces: asyncio.Queue[bytes | None], writer: asyncio.StreamWriter) -> None:
    """Write the client's pieces to the pod; after their end the pod may still send."""
    with contextlib.suppress(OSError):
        while (piece := await pieces.get()) is not None:
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
