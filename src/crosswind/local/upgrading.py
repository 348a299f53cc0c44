"""uvicorn's WebSocket protocol, amended for what kubectl asks for."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from crosswind.local.forwarding import ASKED_TUNNEL, TUNNEL

__all__ = ["UpgradingWebSocket"]


class UpgradingWebSocket(WebSocketsSansIOProtocol):
    """Knows a subprotocol of kubectl that is not well-formed, and ends a refusal properly."""

    def handle_connect(self, event: Request) -> None:
        """Begin the handshake with kubectl's subprotocol under a name that is let through."""
        offered = event.headers.get_all("Sec-WebSocket-Protocol")
        if offered:
            del event.headers["Sec-WebSocket-Protocol"]
            event.headers["Sec-WebSocket-Protocol"] = ", ".join(offered).replace(TUNNEL, ASKED_TUNNEL)
        super().handle_connect(event)

    async def send(self, message: Any) -> None:
        """Send; an HTTP answer completes the handshake too, else it is logged as a fault."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            self.handshake_complete = True
