"""The client's side of kubectl's SPDY."""

from __future__ import annotations

import struct
import zlib

from kubelocal.api.spdy import DICTIONARY, Frames


class SpdyClient:
    """The client's side of kubectl's tunnel."""

    def __init__(self) -> None:
        self.frames = Frames()
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def open(self, stream: int, headers: dict[str, str]) -> bytes:
        """Return the frame that opens a stream."""
        pairs = b"".join(struct.pack("!I", len(w)) + w.encode() for pair in headers.items() for w in pair)
        block = self._deflate.compress(struct.pack("!I", len(headers)) + pairs)
        body = struct.pack("!IIBB", stream, 0, 0, 0) + block + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return struct.pack("!HHB", 0x8003, 1, 0) + len(body).to_bytes(3, "big") + body
