from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from aiohttp import WSMsgType, web
from kube_answers import Handler, Serve, refusal, status

from crosswind import errors
from crosswind.kube import requests
from crosswind.kube.credentials import FixedCredentials
from crosswind.kube.websockets import ExecOutput, ExecResult
from deadlines import scaled

SUCCESS = b"\x03" + orjson.dumps({"kind": "Status", "status": "Success"})
V5 = "v5.channel.k8s.io"
V4 = "v4.channel.k8s.io"
EXEC = requests.exec_in("p", ["true"], namespace="n", container=None, stdin=False)


def exited(code: int) -> bytes:
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return b"\x03" + orjson.dumps(status(500, "NonZeroExitCode", "exit", details={"causes": causes}))


def speaks(talk: Callable[[web.WebSocketResponse], Awaitable[None]], *protocols: str, seen: Any = None) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        if seen is not None:
            seen.update(request.headers)
        socket = web.WebSocketResponse(protocols=protocols)
        await socket.prepare(request)
        await talk(socket)
        await socket.close()
        return socket

    return handler


def says(*messages: bytes) -> Callable[[web.WebSocketResponse], Awaitable[None]]:
    async def talk(socket: web.WebSocketResponse) -> None:
        for message in messages:
            await socket.send_bytes(message)

    return talk


@pytest.mark.parametrize(
    ("messages", "result"),
    [
        ([b"\x01out", b"\x02err", b"\x01put", SUCCESS], ExecResult(0, b"output", b"err")),
        ([b"\x01", b"", b"\x01x", exited(3)], ExecResult(3, b"x", b"")),
        ([exited(137)], ExecResult(137, b"", b"")),
    ],
)
async def test_exec_collects_output_and_exit_code(serve: Serve, messages: list[bytes], result: ExecResult) -> None:
    client = await serve(speaks(says(*messages), V5))
    assert await client.exec("p", ["true"], namespace="n", timeout=scaled(5)) == result


async def test_exec_needs_no_json_accepted_and_sends_the_token(serve: Serve) -> None:
    seen: dict[str, str] = {}
    client = await serve(speaks(says(SUCCESS), V5, seen=seen), credentials=FixedCredentials("Bearer abc"))
    await client.exec("p", ["true"], namespace="n", timeout=scaled(5))
    assert seen["Authorization"] == "Bearer abc"
    assert seen["Sec-WebSocket-Protocol"].startswith(V5)
    assert "json" not in seen["Accept"]


async def test_exec_sends_stdin_in_pieces_and_closes_it(serve: Serve) -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        got = b""
        async for message in socket:
            if message.data == b"\xff\x00":
                break
            assert message.data[:1] == b"\x00"
            got += message.data[1:]
        await socket.send_bytes(b"\x01" + str(len(got)).encode())
        await socket.send_bytes(SUCCESS)

    client = await serve(speaks(talk, V5))
    result = await client.exec("p", ["wc", "-c"], namespace="n", stdin=b"x" * 100_000, timeout=scaled(5))
    assert result.stdout == b"100000"


async def test_stdin_that_cannot_be_closed_is_refused_instead_of_waiting_for_ever(serve: Serve) -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        async for message in socket:
            assert message.type is WSMsgType.BINARY

    client = await serve(speaks(talk, V4))
    with pytest.raises(errors.Unreachable, match=r"cannot close a command's stdin"):
        await client.exec("p", ["cat"], namespace="n", stdin=b"x", timeout=scaled(5))


async def test_a_command_that_cannot_start_is_the_servers_error(serve: Serve) -> None:
    said = b"\x03" + orjson.dumps(status(500, "InternalError", 'exec: "nope": not found'))
    client = await serve(speaks(says(said), V5))
    with pytest.raises(errors.ServerError, match='"nope": not found'):
        await client.exec("p", ["nope"], namespace="n", timeout=scaled(5))


@pytest.mark.parametrize("messages", [[b"\x01out"], []])
async def test_a_stream_without_a_status_leaves_the_outcome_open(serve: Serve, messages: list[bytes]) -> None:
    client = await serve(speaks(says(*messages), V5))
    with pytest.raises(errors.Unreachable, match="without an exit code"):
        await client.exec("p", ["true"], namespace="n", timeout=scaled(5))


async def test_exec_is_given_up_in_time(serve: Serve) -> None:
    over = asyncio.Event()

    async def talk(socket: web.WebSocketResponse) -> None:
        await over.wait()

    client = await serve(speaks(talk, V5))
    with pytest.raises(errors.Unreachable, match=r"sleep did not end within 0.1 s"):
        await client.exec("p", ["sleep", "9"], namespace="n", timeout=0.1)
    over.set()


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda: refusal(403, "Forbidden", 'pods "p" is forbidden: '), errors.Forbidden, 'allow "get" and "create"'),
        (lambda: refusal(404, "NotFound", 'pods "p" not found'), errors.NotFound, 'pods "p" not found'),
        (lambda: web.Response(status=500, text="container not found SECRET"), errors.ServerError, r"\(text/plain\)$"),
        (lambda: web.json_response({}), errors.Unreachable, "does not speak WebSocket"),
    ],
)
async def test_a_refused_upgrade_has_the_servers_reason(
    serve: Serve, answer: Callable[[], web.Response], error: type[Exception], message: str
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return answer()

    client = await serve(handler)
    with pytest.raises(error, match=message):
        await client.exec("p", ["true"], namespace="n", timeout=scaled(5))


async def test_a_port_is_a_stream_of_bytes(serve: Serve) -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.send_bytes(b"\x00\x90\x1f")
        await socket.send_bytes(b"\x01\x90\x1f")
        async for message in socket:
            await socket.send_bytes(b"\x00" + message.data[1:].upper())
            break

    client = await serve(speaks(talk, V4))
    async with client.port_forward("p", 8080, namespace="n") as stream:
        await stream.send(b"hello")
        assert await stream.receive() == b"HELLO"
        assert await stream.receive() == b""


async def test_a_port_where_nobody_listens_says_so(serve: Serve) -> None:
    client = await serve(speaks(says(b"\x00\x50\x00", b"\x01\x50\x00", b"\x01connection refused\n"), V4))
    async with client.port_forward("p", 80, namespace="n") as stream:
        with pytest.raises(errors.Unreachable, match="portforward: connection refused"):
            await stream.receive()


@pytest.mark.parametrize("data", [b"words", b"[]", b"null"])
def test_an_unreadable_status_is_an_error(data: bytes) -> None:
    output = ExecOutput()
    output.feed(b"\x03" + data)
    with pytest.raises(errors.ServerError, match="not readable"):
        output.result(EXEC)
