"""What an API server says, in short."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web

from crosswind.kube.client import Client
from crosswind.kube.connecting import Credentials

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Serve(Protocol):
    async def __call__(
        self,
        handler: Handler,
        *,
        credentials: Credentials | None = None,
        tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
        **server: Any,
    ) -> Client: ...


def status(code: int, reason: str = "", message: str = "", **more: Any) -> dict[str, Any]:
    """Return a Status body."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": code,
        "reason": reason,
        "message": message,
        **more,
    }


def refusal(code: int, reason: str = "", message: str = "", headers: dict[str, str] | None = None) -> web.Response:
    """Return an answer with a Status body."""
    return web.json_response(status(code, reason, message), status=code, headers=headers)


def pod(name: str, version: int = 1, uid: str = "") -> dict[str, Any]:
    """Return a small pod."""
    metadata = {"name": name, "namespace": "work", "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
