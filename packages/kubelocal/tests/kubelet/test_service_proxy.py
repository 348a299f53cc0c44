from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kubelocal.kubelet.service_proxy import Relay

HOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def speaker(word: bytes) -> AsyncIterator[tuple[str, int]]:
    """A server that says its word, then what it receives, backwards."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(word + (await reader.read())[::-1])
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        yield server.sockets[0].getsockname()


async def said(port: int, text: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(text)
    writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_connections_go_to_the_pods_in_turn_and_ends_are_passed_on() -> None:
    relay, port = Relay(), free_port()
    async with speaker(b"one") as first, speaker(b"two") as second:
        relay.targets = [first, second]
        await relay.open(HOST, port, "TCP")
        words = [await said(port, b"abc") for _ in range(4)]
        assert sorted(words) == [b"onecba", b"onecba", b"twocba", b"twocba"]
        relay.targets = [second]
        assert [await said(port) for _ in range(2)] == [b"two", b"two"]
        await relay.close()
    with pytest.raises(OSError, match=str(port)):
        await said(port)


@pytest.mark.parametrize("targets", [[], [(HOST, 1)]])
async def test_without_a_pod_that_answers_the_connection_ends(targets: list[tuple[str, int]]) -> None:
    relay, port = Relay(), free_port()
    relay.targets = targets
    await relay.open(HOST, port, "TCP")
    assert await said(port) == b""
    await relay.close()


async def test_what_is_connected_ends_with_the_relay() -> None:
    relay, port = Relay(), free_port()
    async with speaker(b"one") as first:
        relay.targets = [first]
        await relay.open(HOST, port, "TCP")
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(b"a")
        await writer.drain()
        waiting = asyncio.create_task(reader.read())
        await asyncio.sleep(0)
        await relay.close()
        assert await waiting in (b"", b"onea")
        writer.close()


async def test_datagrams_go_one_way() -> None:
    relay, port = Relay(), free_port()
    loop = asyncio.get_running_loop()
    got: asyncio.Queue[bytes] = asyncio.Queue()

    class Pod(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, address: object) -> None:
            got.put_nowait(data)

    pod, _ = await loop.create_datagram_endpoint(Pod, local_addr=(HOST, 0))
    relay.targets = [pod.get_extra_info("sockname")]
    await relay.open(HOST, port, "UDP")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"airflow.x:1|c", (HOST, port))
        assert await got.get() == b"airflow.x:1|c"
    await relay.close()
    pod.close()
