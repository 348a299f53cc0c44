"""A real HTTP server with answers that each test defines, and clients of it."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kube_answers import Handler, Serve, self_signed

from crosswind.kube.client import Client
from crosswind.kube.credentials import Credentials
from crosswind.kube.transport import HttpTransport, Server


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start a server with a handler; return a client of it."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            handler: Handler,
            *,
            credentials: Credentials | None = None,
            tls: ssl.SSLContext | None = None,
            client_tls: ssl.SSLContext | None = None,
            **server: Any,
        ) -> Client:
            async def answer(request: web.Request) -> web.StreamResponse:
                return await handler(request)

            app = web.Application()
            app.router.add_route("*", "/{path:.*}", answer)
            running = TestServer(app, host="127.0.0.1", scheme="https" if tls else "http")
            await running.start_server(ssl=tls, shutdown_timeout=0.1)
            stack.push_async_callback(running.close)
            url = str(running.make_url("/")).rstrip("/")
            transport = HttpTransport(Server(url, tls=client_tls, **server))
            return await stack.enter_async_context(Client(transport, credentials, host=url))

        yield start


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a self-signed certificate for 127.0.0.1, and its key."""
    return self_signed(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def authority(certificate: tuple[Path, Path]) -> Path:
    """Return the file of the CA of the certificate, which is the certificate itself."""
    return certificate[0]
