from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kube_answers import pod, status

from crosswind.errors import Gone, ServerError, Unreachable
from crosswind.kube import requests
from crosswind.kube.resources import PODS
from crosswind.kube.watch import LineSplitter, decode_event, version_of

WATCH = requests.watch(PODS, version="1", timeout=60)


@given(st.lists(st.binary(min_size=1).filter(lambda line: b"\n" not in line)), st.lists(st.integers(1, 7)))
def test_lines_are_the_same_wherever_the_chunks_end(lines: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    reader, received = LineSplitter(), []
    for size in [*sizes, len(stream)]:
        chunk, stream = stream[:size], stream[size:]
        received += reader.feed(chunk)
    assert received == lines


def test_an_unfinished_line_is_kept_back() -> None:
    assert LineSplitter().feed(b'{"type": "ADDED"') == []


def test_an_event_is_a_plain_dict() -> None:
    event = {"type": "ADDED", "object": pod("a")}
    assert decode_event(orjson.dumps(event), WATCH) == event


@pytest.mark.parametrize(("code", "kind"), [(410, Gone), (500, ServerError)])
def test_an_error_event_is_raised(code: int, kind: type[Exception]) -> None:
    line = orjson.dumps({"type": "ERROR", "object": status(code, "Expired", "too old resource version: 1 (9)")})
    with pytest.raises(kind, match="too old resource version"):
        decode_event(line, WATCH)


@pytest.mark.parametrize(
    "line",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"type": "ADDED"}',
        b'{"type": "ADDED", "object": null}',
        b'{"type": "ADDED", "object": {}}',
    ],
)
def test_a_line_that_is_no_event_breaks_the_watch(line: bytes) -> None:
    with pytest.raises(Unreachable, match="not a watch event"):
        decode_event(line, WATCH)


def test_the_version_of_an_object_without_one_is_empty() -> None:
    assert [version_of(pod("a", 7)), version_of({}), version_of({"metadata": {}})] == ["7", "", ""]
