"""A client of the API application without a server, as a fixture of the tests that import it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from kubelocal.api.app import Api, make_app
from kubelocal.auth.bootstrap_roles import BOOTSTRAP
from kubelocal.auth.rbac import Authorizer
from kubelocal.auth.service_account_tokens import TokenIssuer
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.storage.store import Store

ADMIN = "admin-token"
NO_STREAMS: Any = None
CONFIGS = "/api/v1/namespaces/one/configmaps"
MERGE = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def lines(self) -> list[Any]:
        return [orjson.loads(line) for line in self.body.splitlines()]


class Client:
    """Calls the app as a server would."""

    def __init__(self, app: Api, registry: ClusterRegistry) -> None:
        self.app = app
        self.registry = registry

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = ADMIN,
        headers: dict[str, str] | None = None,
        during: Callable[[], None] = lambda: None,
        **query: str,
    ) -> Reply:
        given = {"content-type": "application/json", **(headers or {})}
        if token is not None:
            given["authorization"] = f"Bearer {token}"
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": urlencode(query).encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
        }
        content = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        messages: list[Any] = [{"type": "http.request", "body": content, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            if messages:
                return messages.pop()
            return await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)
            if message["type"] == "http.response.start":
                during()

        await self.app(scope, receive, send)
        start, *parts = sent
        names = {name.decode(): value.decode() for name, value in start["headers"]}
        return Reply(start["status"], names, b"".join(part["body"] for part in parts))


@pytest.fixture
def client() -> Client:
    registry = ClusterRegistry(Store())
    for manifest in ({"kind": "Namespace", "metadata": {"name": "one"}}, *BOOTSTRAP):
        registry.create(manifest["kind"], "", manifest)
    tokens = TokenIssuer(registry, ADMIN)
    return Client(make_app(registry, NO_STREAMS, tokens.authenticate, Authorizer(registry), tokens), registry)
