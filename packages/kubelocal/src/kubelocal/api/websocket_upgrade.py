"""uvicorn's WebSocket protocol with two changes for kubectl.

It overrides methods of a private class, so ``pyproject.toml`` gives uvicorn a ceiling, and a test lists the members in
use.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from kubelocal.api.port_forward import SLASHLESS_TUNNEL, TUNNEL

__all__ = ["UpgradingWebSocket"]


class UpgradingWebSocket(WebSocketsSansIOProtocol):
    """Accepts a subprotocol of kubectl that RFC 6455 does not allow, and completes a denial response."""

    def handle_connect(self, event: Request) -> None:
        """Start the handshake with kubectl's subprotocol under a name that the websockets library accepts."""
        offered = event.headers.get_all("Sec-WebSocket-Protocol")
        if offered:
            del event.headers["Sec-WebSocket-Protocol"]
            event.headers["Sec-WebSocket-Protocol"] = ", ".join(offered).replace(TUNNEL, SLASHLESS_TUNNEL)
        super().handle_connect(event)

    async def send(self, message: Any) -> None:
        """Send a message; after an HTTP denial the handshake counts as complete, else uvicorn logs an error."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True
