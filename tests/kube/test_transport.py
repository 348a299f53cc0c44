from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiohttp import web
from kube_answers import Serve, pod
from yarl import URL

from crosswind.errors import Unreachable
from crosswind.kube.client import Client
from crosswind.kube.credentials import FixedCredentials
from crosswind.kube.resources import PODS
from crosswind.kube.transport import HttpTransport, Server


@contextlib.asynccontextmanager
async def client_of(url: str, **server: Any) -> AsyncIterator[Client]:
    async with Client(
        HttpTransport(Server(url, "context x of /f", **server)), FixedCredentials("Bearer SECRET")
    ) as made:
        yield made


@contextlib.asynccontextmanager
async def raw_server(answer: bytes, hold: bool = False) -> AsyncIterator[str]:
    """Answer each connection with the same bytes and close it, or hold it open."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        if hold:
            await ended.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        ended.set()
        server.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def test_a_refused_connection_names_server_and_source_and_what_to_check() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    async with client_of(url) as client:
        with pytest.raises(Unreachable) as caught:
            await client.version()
    assert str(caught.value) == (
        f"GET /version: {url} (context x of /f) does not answer: connection refused;"
        " check that the cluster runs and that the address is right"
    )


async def test_a_host_without_an_address_is_said() -> None:
    async with client_of("http://no-such-host.invalid") as client:
        with pytest.raises(Unreachable, match=r"the host of http://no-such-host.invalid .* has no address"):
            await client.version()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", "closed the connection in the middle of its answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak proper HTTP"),
    ],
)
async def test_broken_answers_are_unreachable(answer: bytes, message: str) -> None:
    async with raw_server(answer) as url, client_of(url) as client:
        with pytest.raises(Unreachable, match=message) as caught:
            await client.version()
    shown = f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!s}"
    assert "SECRET" not in shown


async def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    async with raw_server(b"", hold=True) as url, client_of(url, request_timeout=0.1) as client:
        with pytest.raises(Unreachable, match="did not answer in time"):
            await client.version()


async def test_a_proxy_that_is_not_there_is_named_as_such_without_its_password() -> None:
    proxy = f"http://me:SECRET@127.0.0.1:{free_port()}"
    async with client_of("http://127.0.0.1:1", proxy=proxy) as client:
        with pytest.raises(
            Unreachable, match=r"the proxy on the way to http://127.0.0.1:1 .* cannot be reached"
        ) as caught:
            await client.version()
    assert "SECRET" not in f"{caught.value} {caught.value.__cause__}"


async def test_requests_go_through_the_proxy(serve: Serve) -> None:
    async def proxy(request: web.Request) -> web.Response:
        return web.json_response({"asked": str(request.raw_path)})

    proxying = await serve(proxy)
    async with client_of("http://cluster.example:6443", proxy=proxying.host) as client:
        assert await client.version() == {"asked": "http://cluster.example:6443/version"}


async def test_a_proxy_that_refuses_is_named(serve: Serve) -> None:
    no_proxy = await serve(hello)  # it answers 404 to CONNECT
    async with client_of("https://cluster.example:6443", proxy=no_proxy.host) as client:
        with pytest.raises(Unreachable, match=r"the proxy on the way to https://cluster.example:6443 .* refused: 404"):
            await client.version()


async def test_a_closed_client_says_so() -> None:
    async with client_of("http://127.0.0.1:1") as client:
        pass
    with pytest.raises(Unreachable, match="was closed on our side"):
        await client.version()


def server_side(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


async def hello(request: web.Request) -> web.Response:
    return web.json_response({"gitVersion": "v1.36.2"})


async def test_tls_with_the_clusters_own_authority(
    serve: Serve, certificate: tuple[Path, Path], authority: Path
) -> None:
    trusting = ssl.create_default_context(cafile=authority)
    client = await serve(hello, tls=server_side(certificate), client_tls=trusting)
    assert (await client.version())["gitVersion"] == "v1.36.2"


async def test_an_untrusted_certificate_says_what_to_give(serve: Serve, certificate: tuple[Path, Path]) -> None:
    client = await serve(hello, tls=server_side(certificate), client_tls=ssl.create_default_context())
    with pytest.raises(
        Unreachable, match=r"certificate that is not trusted: self.signed certificate; give the cluster's CA"
    ):
        await client.version()


async def test_tls_to_a_server_without_it_asks_for_http(serve: Serve) -> None:
    plain = await serve(hello)
    async with client_of(plain.host.replace("http:", "https:")) as client:
        with pytest.raises(Unreachable, match='does not speak TLS there; is the address "http://'):
            await client.version()


async def test_connections_are_kept_and_headers_sent(serve: Serve) -> None:
    peers: set[Any] = set()
    headers: dict[str, str] = {}

    async def handler(request: web.Request) -> web.Response:
        assert request.transport
        peers.add(request.transport.get_extra_info("peername"))
        headers.update(request.headers)
        return web.json_response(pod("a"), status=201)

    client = await serve(handler, credentials=FixedCredentials("Bearer abc"))
    for _ in range(5):
        await client.create(PODS, pod("a"))
    assert len(peers) == 1
    assert headers["Authorization"] == "Bearer abc"
    assert headers["Accept"] == headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("crosswind/")


def connections_to(port: int | None) -> int:
    return sum(
        bool(connection.raddr) and connection.raddr.port == port
        for connection in psutil.Process().net_connections(kind="tcp")
    )


async def test_a_forked_child_has_no_connection_of_ours(serve: Serve) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({})

    client = await serve(answer)
    await client.version()
    port = URL(client.host).port
    child = os.fork()
    if child == 0:
        os._exit(connections_to(port))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0  # noqa: ASYNC222
    assert connections_to(port) == 1
    await client.version()
    assert connections_to(port) == 1
