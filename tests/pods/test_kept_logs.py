from __future__ import annotations

import gzip
import os

import pytest

from crosswind.pods.kept_logs import KeptLog, lines_of

GAP = b"(cut)\n"


def kept(text: bytes, limit: int, chunk: int = 1000, **ends: bytes) -> tuple[KeptLog, list[str]]:
    log = KeptLog(limit)
    for start in range(0, len(text), chunk):
        log.feed(text[start : start + chunk])
    return log, [*lines_of(log.content(GAP, **ends))]


@pytest.mark.parametrize("chunk", [1, 7, 1000, 100_000])
@pytest.mark.parametrize("text", [b"", b"\n", b"a", b"a\n", b"a\r\nb\n\nc", "ä\n€".encode(), b"x" * 5000 + b"\ny\n"])
def test_a_log_within_the_limit_is_kept_line_by_line(text: bytes, chunk: int) -> None:
    log, lines = kept(text, 10_000, chunk)
    assert lines == [line.rstrip("\r") for line in text.decode().split("\n")][: None if text[-1:] not in b"\n" else -1]
    assert (log.size, log.left_out) == (len(text), 0)


@pytest.mark.parametrize("line", [b"%07d\n", b"%013d\n", b"%0150d\n"])
def test_a_log_of_exactly_the_limit_is_whole(line: bytes) -> None:
    text = b"".join(line % number for number in range(1000))
    log, lines = kept(text, len(text))
    assert lines == text.decode().split()
    assert log.left_out == 0


@pytest.mark.parametrize("chunk", [100, 4096])
def test_of_a_longer_log_beginning_and_end_are_kept_in_whole_lines(chunk: int) -> None:
    text = b"".join(b"%07d\n" % number for number in range(10_000))
    log, lines = kept(text, 8000, chunk)
    cut = lines.index("(cut)")
    numbers = [int(line) for line in lines if line != "(cut)"]
    assert numbers[:cut] == [*range(cut)]
    assert numbers[cut:] == [*range(10_000 - len(numbers) + cut, 10_000)]
    assert 4000 < 8 * len(numbers) <= 8000 + 2000
    assert log.left_out == len(text) - 8 * len(numbers)


def test_last_lines_stand_on_lines_of_their_own() -> None:
    assert kept(b"a\nb", 100, end=b"c\n")[1] == ["a", "b", "c"]
    assert kept(b"", 100, end=b"c\n")[1] == ["c"]


def test_a_line_without_end_does_not_outgrow_the_limit() -> None:
    log, lines = kept(os.urandom(50_000).replace(b"\n", b" "), 8000, 4096)
    assert log.left_out >= 40_000
    assert len(log.content()) < 11_000
    assert lines


def test_bytes_that_are_no_text_are_shown_as_far_as_they_are() -> None:
    assert kept(b"a\xff\nb\n", 100)[1] == ["a\ufffd", "b"]


def test_the_content_is_plain_gzip() -> None:
    text = b"line\n" * 1000
    log = KeptLog(100_000)
    log.feed(text)
    assert gzip.decompress(log.content()) == text
    assert len(log.content()) < 100
