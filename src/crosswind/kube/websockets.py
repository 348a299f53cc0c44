"""Exec and port-forward over WebSockets: the first byte of each message is the number of a channel.

Protocols v4 and v5.channel.k8s.io; see KEP-4006 and ``staging/src/k8s.io/apimachinery/pkg/util/remotecommand``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

from crosswind.errors import Unreachable
from crosswind.kube.requests import Request
from crosswind.kube.responses import error_of_status
from crosswind.kube.transport import Socket
from crosswind.types import Manifest

__all__ = ["ExecOutput", "ExecResult", "PortStream", "converse"]

_STDIN, _STDOUT, _STDERR, _ERROR = range(4)
_CLOSE = b"\xff"  # v5: this channel's message closes the channel that it names
_MESSAGE_BYTES = 32_768  # as kubectl sends them


@dataclass(frozen=True, slots=True)
class ExecResult:
    """The result of a command."""

    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclass(slots=True)
class ExecOutput:
    """The output of a command so far. ``status``: the Status at the end, which holds the exit code; None before."""

    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    status: Manifest | None = None

    def feed(self, message: bytes) -> None:
        """Add one message."""
        if not message:
            return
        channel, data = message[0], message[1:]
        if channel == _STDOUT:
            self.stdout += data
        elif channel == _STDERR:
            self.stderr += data
        elif channel == _ERROR and data:
            self.status = _status(data)

    def result(self, request: Request) -> ExecResult:
        """Return the result; raise an ``ApiError`` when the command could not be run."""
        if self.status is None:
            raise Unreachable(f"{request}: the stream ended without an exit code; the command may still run")
        if self.status.get("status") == "Success":
            return self._ended(0)
        causes = (self.status.get("details") or {}).get("causes") or []
        for cause in causes:
            if cause.get("reason") == "ExitCode" and str(cause.get("message", "")).isdigit():
                return self._ended(int(cause["message"]))
        raise error_of_status(self.status, request)

    def _ended(self, exit_code: int) -> ExecResult:
        return ExecResult(exit_code, bytes(self.stdout), bytes(self.stderr))


async def converse(socket: Socket, stdin: bytes | None, request: Request) -> ExecResult:
    """Send all of ``stdin`` and collect the output until the command has ended."""
    if stdin is not None:
        await _send_stdin(socket, stdin, request)
    output = ExecOutput()
    # The Status on the error channel is the last message. Its absence at the end means that the connection broke, not
    # that the command succeeded.
    while output.status is None and (message := await socket.receive()) is not None:
        output.feed(message)
    return output.result(request)


async def _send_stdin(socket: Socket, stdin: bytes, request: Request) -> None:
    if not socket.protocol.startswith("v5."):
        raise Unreachable(
            f"{request}: this server cannot close a command's stdin (it needs v5.channel.k8s.io, Kubernetes 1.30),"
            " so the command would wait for ever"
        )
    for start in range(0, len(stdin), _MESSAGE_BYTES):
        await socket.send(bytes([_STDIN]) + stdin[start : start + _MESSAGE_BYTES])
    # Half-close, new in v5 (KEP-4006): before, only closing the whole stream ended a command's stdin.
    await socket.send(_CLOSE + bytes([_STDIN]))


class PortStream:
    """A stream of bytes to and from a port inside a pod."""

    def __init__(self, socket: Socket, request: Request) -> None:
        self._socket, self._request = socket, request
        self._opened: set[int] = set()

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        for start in range(0, len(data), _MESSAGE_BYTES):
            await self._socket.send(b"\0" + data[start : start + _MESSAGE_BYTES])

    async def receive(self) -> bytes:
        """Return some bytes, b"" at the end; raise ``Unreachable`` when nothing in the pod listens on the port."""
        while (message := await self._socket.receive()) is not None:
            channel, data = message[0], message[1:]
            if channel not in self._opened:  # the first message of each channel starts with the port, in two bytes
                self._opened.add(channel)
                data = data[2:]
            if data and channel == 1:
                raise Unreachable(f"{self._request}: {data[:300].decode(errors='replace').strip()}")
            if data:
                return data
        return b""


def _status(data: bytes) -> Manifest:
    try:
        status = orjson.loads(data)
    except orjson.JSONDecodeError:
        status = None
    return (
        status if isinstance(status, dict) else {"status": "Failure", "message": "the command's status is not readable"}
    )
