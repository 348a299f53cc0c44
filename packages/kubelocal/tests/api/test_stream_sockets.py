"""Streams at the level of their WebSocket messages, on a running cluster."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from kubelocal.api.spdy import Data
from kubelocal.cluster import LocalCluster
from kubelocal.settings import LocalSettings
from processes import come, gone
from spdy_client import SpdyClient

Connect = Callable[..., Any]
OUTPUT = [("stdout", "true"), ("stderr", "true")]


@pytest.fixture
async def cluster() -> AsyncIterator[LocalCluster]:
    """A cluster with the running pod ``box``."""
    async with LocalCluster(LocalSettings(network="shared")) as cluster:  # the tests listen where pods do
        container = {"name": "base", "image": "busybox", "command": ["sleep", "600"]}
        spec = {"terminationGracePeriodSeconds": 0, "containers": [container]}
        box = cluster.registry.create("Pod", "default", {"metadata": {"name": "box"}, "spec": spec})
        changes = aiter(cluster.registry.watch("Pod", "default"))
        while box["status"]["phase"] != "Running":
            box = (await anext(changes)).object
        yield cluster


@pytest.fixture
async def connect(cluster: LocalCluster) -> AsyncIterator[Connect]:
    context = ssl.create_default_context(cafile=cluster.authority_file)
    headers = {"Authorization": f"Bearer {cluster.token}"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=context)) as session:

        def open_socket(sub: str, params: list[tuple[str, str]], protocol: str) -> Any:
            url = f"{cluster.url}/api/v1/namespaces/default/pods/box/{sub}"
            return session.ws_connect(url, params=params, protocols=[protocol])

        yield open_socket


def command(*words: str) -> list[tuple[str, str]]:
    return [("command", word) for word in words]


async def channels(ws: aiohttp.ClientWebSocketResponse) -> dict[int, bytes]:
    """Read to the end what came on each channel of binary messages."""
    seen: dict[int, bytes] = {}
    async for message in ws:
        seen[message.data[0]] = seen.get(message.data[0], b"") + message.data[1:]
    return seen


async def test_terminal_has_the_size_that_the_client_tells(connect: Connect) -> None:
    params = [*command("sh", "-c", "read x; stty size"), ("stdin", "true"), ("stdout", "true"), ("tty", "true")]
    async with connect("exec", params, "v5.channel.k8s.io") as ws:
        await ws.send_bytes(b"\x04" + json.dumps({"Width": 101, "Height": 33}).encode())
        await ws.send_bytes(b"\x00\n")
        seen = await channels(ws)
    assert seen[1].split() == [b"33", b"101"]


async def test_nonsense_on_a_channel_does_no_harm(connect: Connect) -> None:
    params = [*command("cat"), ("stdin", "true"), ("stdout", "true")]
    async with connect("exec", params, "v5.channel.k8s.io") as ws:
        for message in (b"", b"\x04no json", b"\x04[]", b"\xff\x07", b"\x09what", b"\x00text", b"\xff\x00"):
            await ws.send_bytes(message)
        seen = await channels(ws)
    assert (seen[1], json.loads(seen[3])["status"]) == (b"text", "Success")


async def test_client_that_leaves_ends_its_command(connect: Connect) -> None:
    seconds = f"601.{os.getpid()}"  # as no other run's
    script = command("sh", "-c", f"echo up; exec sleep {seconds}")
    async with connect("exec", [*script, *OUTPUT], "v5.channel.k8s.io") as ws:
        while (await ws.receive()).data != b"\x01up\n":
            pass
        mine = await come("sleep", seconds)
    await gone(mine, "sleep", seconds)


@pytest.mark.parametrize("protocol", ["v9.channel.k8s.io", "channel.k8s.io", "v4.base64.channel.k8s.io"])
async def test_unknown_protocol_is_refused(connect: Connect, protocol: str) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await connect("exec", [*command("true"), *OUTPUT], protocol)
    assert refused.value.status == 400


async def test_forwarded_port_answers_on_its_channel(connect: Connect) -> None:
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        writer.close()

    server = await asyncio.start_server(upper, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, connect("portforward", [("ports", str(port))], "v4.channel.k8s.io") as ws:
        await ws.send_bytes(b"\x00hello\n")
        seen = await channels(ws)
    assert seen == {0: port.to_bytes(2, "little") + b"HELLO\n", 1: port.to_bytes(2, "little")}


async def test_closed_port_is_told_on_the_error_channel(connect: Connect) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with connect("portforward", [("ports", str(port))], "v4.channel.k8s.io") as ws:
        seen = await channels(ws)
    assert seen[1][2:].startswith(f"error forwarding port {port} to pod box".encode())


async def test_tunnel_of_kubectl_has_a_pair_of_streams_per_connection(connect: Connect) -> None:
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        writer.close()

    server = await asyncio.start_server(upper, "127.0.0.1", 0)
    port, client = str(server.sockets[0].getsockname()[1]), SpdyClient()
    async with server, connect("portforward", [], "SPDY/3.1+portforward.k8s.io") as ws:
        for number in (0, 1):
            for stream, kind in ((4 * number + 1, "error"), (4 * number + 3, "data")):
                headers = {"streamtype": kind, "port": port, "requestid": str(number)}
                await ws.send_bytes(client.open(stream, headers))
            await ws.send_bytes(client.frames.data(4 * number + 3, b"hello %d" % number, last=True))
        seen, left = dict.fromkeys((1, 3, 5, 7), b""), {1, 3, 5, 7}
        while left:
            for frame in client.frames.feed(await ws.receive_bytes()):
                if isinstance(frame, Data):
                    seen[frame.stream] += frame.content
                    left -= {frame.stream} if frame.last else set()
    assert seen == {1: b"", 3: b"HELLO 0", 5: b"", 7: b"HELLO 1"}
