"""What is used of uvicorn beyond its documented interface is there in the installed version."""

from __future__ import annotations

import inspect
from importlib.metadata import requires, version

import uvicorn
from packaging.requirements import Requirement
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


def test_the_installed_uvicorn_is_within_the_tested_range() -> None:
    (uvicorn_range,) = (Requirement(line) for line in requires("kubelocal") or () if line.startswith("uvicorn"))
    assert version("uvicorn") in uvicorn_range.specifier
    operators = {part.operator for part in uvicorn_range.specifier}
    assert operators == {">=", "<"}, "a range with a ceiling: releases above it have not been tried"


def test_the_websocket_protocol_has_the_methods_that_are_overridden() -> None:
    assert list(inspect.signature(WebSocketsSansIOProtocol.handle_connect).parameters) == ["self", "event"]
    assert list(inspect.signature(WebSocketsSansIOProtocol.send).parameters) == ["self", "message"]
    assert inspect.iscoroutinefunction(WebSocketsSansIOProtocol.send)
    assert "self.handshake_complete = True" in inspect.getsource(WebSocketsSansIOProtocol)


def test_the_server_has_the_methods_and_attributes_that_are_used() -> None:
    server = uvicorn.Server(uvicorn.Config(None, log_config=None))  # type: ignore[arg-type]
    assert server.should_exit is False
    assert server.server_state.connections == set()
    for name in ("startup", "shutdown", "serve"):
        assert list(inspect.signature(getattr(server, name)).parameters) == ["sockets"]
    assert not inspect.signature(server.capture_signals).parameters
