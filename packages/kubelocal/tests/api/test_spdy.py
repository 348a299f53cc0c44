from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelocal.api.spdy import DICTIONARY, Data, Frames, Opened, Ping, Reset
from spdy_client import SpdyClient


def test_dictionary_is_the_one_of_the_draft() -> None:
    assert (len(DICTIONARY), zlib.adler32(DICTIONARY)) == (1423, 0xE3C6A7C2)


def test_headers_are_read_across_streams() -> None:
    client, frames = SpdyClient(), Frames()
    for stream, kind in ((1, "error"), (3, "data")):
        headers = {"Streamtype": kind, "Port": "8080", "Requestid": "0"}
        wanted = {"streamtype": kind, "port": "8080", "requestid": "0"}
        assert list(frames.feed(client.open(stream, headers))) == [Opened(stream, wanted)]


@given(st.lists(st.integers(1, 40), max_size=6), st.binary(max_size=80))
def test_frames_may_be_cut_anywhere(cuts: list[int], content: bytes) -> None:
    sender, receiver = Frames(), Frames()
    stream = sender.data(5, content) + sender.pong(7) + sender.reset(9) + sender.data(5, b"", last=True)
    seen, at = [], 0
    for cut in [*cuts, len(stream)]:
        seen += receiver.feed(stream[at : at + cut])
        at += cut
    assert seen == [Data(5, content), Ping(7), Reset(9), Data(5, b"", last=True)]


def test_answers_to_streams_can_be_read() -> None:
    frame = Frames().accept(3)
    assert (frame[:4], int.from_bytes(frame[8:12], "big")) == (b"\x80\x03\x00\x02", 3)
    assert zlib.decompressobj(zdict=DICTIONARY).decompress(frame[12:]) == b"\0\0\0\0"


@pytest.mark.parametrize("frame", [b"\x80\x02\x00\x01\x00\x00\x00\x00", b"\x80\x03\x00\x06\x00\x00\x00\x01\x00"])
def test_other_versions_and_short_frames_are_refused(frame: bytes) -> None:
    with pytest.raises(ValueError, match="SPDY"):
        list(Frames().feed(frame))
