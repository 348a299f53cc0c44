"""SPDY/3.1 by an upgrade, as kubectl before 1.30 speaks it, on a running cluster."""

from __future__ import annotations

import asyncio
import json
import ssl
import struct
import zlib
from collections.abc import AsyncIterator
from urllib.parse import urlencode, urlsplit

import pytest

from crosswind.local.serving import LocalCluster
from crosswind.local.spdy import DICTIONARY, Data, Frames
from crosswind.settings import LocalSettings

PATH = "/api/v1/namespaces/default/pods/box"


@pytest.fixture
async def cluster() -> AsyncIterator[LocalCluster]:
    async with LocalCluster(LocalSettings(network="shared")) as cluster:  # the tests listen where pods do
        container = {"name": "base", "image": "busybox", "command": ["sleep", "600"]}
        spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
        box = cluster.registry.create("Pod", "default", {"metadata": {"name": "box"}, "spec": spec})
        changes = aiter(cluster.registry.watch("Pod", "default"))
        while box["status"]["phase"] != "Running":
            box = (await anext(changes)).object
        yield cluster


class Session:
    """The client's side of an upgraded connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.head = b""
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._frames = Frames()

    @classmethod
    async def begin(cls, cluster: LocalCluster, path: str, version: str) -> Session:
        server = urlsplit(cluster.url)
        context = ssl.create_default_context(cafile=cluster.authority_file)
        session = cls(*await asyncio.open_connection(server.hostname, server.port, ssl=context))
        headers = {
            "Host": server.netloc,
            "Authorization": f"Bearer {cluster.token}",
            "Connection": "Upgrade",
            "Upgrade": "SPDY/3.1",
            "X-Stream-Protocol-Version": version,
            "Content-Length": "0",
        }
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        session.writer.write("\r\n".join(lines).encode())
        session.head = await session.reader.readuntil(b"\r\n\r\n")
        return session

    def open(self, stream: int, **headers: str) -> None:
        pairs = b"".join(struct.pack("!I", len(w)) + w.encode() for pair in headers.items() for w in pair)
        block = self._deflate.compress(struct.pack("!I", len(headers)) + pairs)
        body = struct.pack("!IIBB", stream, 0, 0, 0) + block + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        self.writer.write(struct.pack("!HHB", 0x8003, 1, 0) + len(body).to_bytes(3, "big") + body)

    def send(self, stream: int, content: bytes, *, last: bool = False) -> None:
        self.writer.write(self._frames.data(stream, content, last=last))

    async def read(self, *streams: int) -> dict[int, bytes]:
        """Return what came on streams until all of these have ended."""
        seen, left = dict.fromkeys(streams, b""), set(streams)
        while left and (piece := await self.reader.read(1 << 16)):
            for frame in self._frames.feed(piece):
                if isinstance(frame, Data):
                    seen[frame.stream] = seen.get(frame.stream, b"") + frame.content
                    left -= {frame.stream} if frame.last else set()
        self.writer.close()
        return seen


async def test_exec_has_a_stream_per_channel(cluster: LocalCluster) -> None:
    query = [("command", word) for word in ("sh", "-c", "cat; exit 3")] + [("stdin", "true"), ("stdout", "true")]
    session = await Session.begin(cluster, f"{PATH}/exec?{urlencode(query)}", "v4.channel.k8s.io")
    assert session.head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"X-Stream-Protocol-Version: v4.channel.k8s.io\r\n" in session.head
    for stream, kind in ((1, "error"), (3, "stdin"), (5, "stdout")):
        session.open(stream, streamtype=kind)
    content = b"0123456789" * 50_000
    session.send(3, content, last=True)
    seen = await session.read(1, 5)
    assert seen[5] == content
    assert json.loads(seen[1])["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_port_forward_has_a_pair_of_streams_per_connection(cluster: LocalCluster) -> None:
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    server = await asyncio.start_server(upper, "127.0.0.1", 0)
    port = str(server.sockets[0].getsockname()[1])
    async with server:
        session = await Session.begin(cluster, f"{PATH}/portforward", "portforward.k8s.io")
        assert b"X-Stream-Protocol-Version: portforward.k8s.io\r\n" in session.head
        for number in (0, 1):
            for stream, kind in ((4 * number + 1, "error"), (4 * number + 3, "data")):
                session.open(stream, streamtype=kind, port=port, requestid=str(number))
            session.send(4 * number + 3, b"hello %d" % number, last=True)
        seen = await session.read(1, 3, 5, 7)
    assert seen == {1: b"", 3: b"HELLO 0", 5: b"", 7: b"HELLO 1"}


async def test_refusal_is_a_plain_answer(cluster: LocalCluster) -> None:
    session = await Session.begin(
        cluster, f"{PATH.replace('box', 'nosuch')}/exec?command=ls&stdout=1", "v4.channel.k8s.io"
    )
    assert session.head.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert json.loads(await session.reader.read())["message"] == 'pods "nosuch" not found'
    session.writer.close()
