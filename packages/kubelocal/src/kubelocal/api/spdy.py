"""SPDY/3.1 frames, which kubectl sends inside a WebSocket for port-forward (KEP-4006). Pure: bytes to values and back.

Only the part that ``moby/spdystream`` uses: bidirectional streams, their headers, pings and resets. Like it, this code
has no window updates, because the WebSocket below limits a fast sender. No library on PyPI speaks SPDY/3.1.
Source: https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["FIN", "Data", "Frames", "Opened", "Ping", "Reset"]

FIN = 1
_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _PING = 1, 2, 3, 6
_CANCEL = 5
_CONTROL = 0x8000 | 3

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow"
    " authorization cache-control connection content-base content-encoding content-language content-length"
    " content-location content-md5 content-range content-type date etag expect expires from host if-match"
    " if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma"
    " proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade"
    " user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie"
    " keep-alive origin"
)
_REST = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 Non-Authoritative"
    " Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500"
    " Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec"
    " 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset="
    "iso-8859-1,utf-,*,enq=0."
)
_LENGTHS = (struct.pack("!I", len(word)) + word.replace("_", " ").encode() for word in _WORDS.split(" "))
DICTIONARY = b"".join(_LENGTHS) + _REST.encode()
"""The dictionary of the header compression; section 2.6.10.1 of the draft."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The client has opened a stream."""

    stream: int
    headers: dict[str, str]
    last: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a stream; ``last`` marks the end of that side."""

    stream: int
    content: bytes
    last: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """A stream is aborted."""

    stream: int


@dataclass(frozen=True, slots=True)
class Ping:
    """A ping; the response repeats its number."""

    number: int


@dataclass(slots=True)
class Frames:
    """Both directions of one connection, because header compression has state."""

    _pending: bytearray = field(default_factory=bytearray)
    _inflate: zlib._Decompress = field(default_factory=lambda: zlib.decompressobj(zdict=DICTIONARY))
    _deflate: zlib._Compress = field(default_factory=lambda: zlib.compressobj(zdict=DICTIONARY))

    def feed(self, content: bytes) -> Iterator[Opened | Data | Reset | Ping]:
        """Take bytes and yield the complete frames. Raises ``ValueError`` for anything but SPDY/3."""
        self._pending += content
        while len(self._pending) >= 8:
            length = int.from_bytes(self._pending[5:8], "big")
            if len(self._pending) < 8 + length:
                return
            head, body = bytes(self._pending[:8]), bytes(self._pending[8 : 8 + length])
            del self._pending[: 8 + length]
            if (frame := self._read(head, body)) is not None:
                yield frame

    def _read(self, head: bytes, body: bytes) -> Opened | Data | Reset | Ping | None:
        flags = head[4]
        if not head[0] & 0x80:
            return Data(int.from_bytes(head[:4], "big"), body, last=bool(flags & FIN))
        version, kind = struct.unpack("!HH", head[:4])
        if version != _CONTROL:
            raise ValueError(f"SPDY version {version & 0x7FFF}, only 3 is spoken")
        if kind == _SYN_STREAM:
            return Opened(_number(body), self._headers(body[10:]), last=bool(flags & FIN))
        if kind == _RST_STREAM:
            return Reset(_number(body))
        return Ping(_number(body)) if kind == _PING else None

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            text = self._inflate.decompress(block)
        except zlib.error as problem:
            raise ValueError(f"SPDY headers: {problem}") from problem
        words = _words(text)
        return {name.lower(): next(words, "") for name in words}

    def accept(self, stream: int) -> bytes:
        """Return the frame that accepts a stream."""
        block = self._deflate.compress(struct.pack("!I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _control(_SYN_REPLY, struct.pack("!I", stream) + block)

    def data(self, stream: int, content: bytes, *, last: bool = False) -> bytes:
        """Return a frame with a piece of a stream."""
        return struct.pack("!I", stream) + bytes((FIN if last else 0,)) + len(content).to_bytes(3, "big") + content

    def reset(self, stream: int) -> bytes:
        """Return the frame that aborts a stream."""
        return _control(_RST_STREAM, struct.pack("!II", stream, _CANCEL))

    def pong(self, number: int) -> bytes:
        """Return the response to a ping."""
        return _control(_PING, struct.pack("!I", number))


def _control(kind: int, body: bytes) -> bytes:
    return struct.pack("!HHB", _CONTROL, kind, 0) + len(body).to_bytes(3, "big") + body


def _number(body: bytes) -> int:
    if len(body) < 4:
        raise ValueError("SPDY frame is cut short")
    return int.from_bytes(body[:4], "big") & 0x7FFFFFFF


def _words(block: bytes) -> Iterator[str]:
    """Yield names and values in turn."""
    at = 4
    while at + 4 <= len(block):
        length = int.from_bytes(block[at : at + 4], "big")
        yield block[at + 4 : at + 4 + length].decode("latin-1")
        at += 4 + length
