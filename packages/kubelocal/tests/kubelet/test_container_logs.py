"""Logs cut as pods/log asks."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kubelocal.interfaces import PodLogOptions
from kubelocal.kubelet import container_launcher
from kubelocal.kubelet.container_logs import last_lines, read_log

BASE = datetime(2026, 1, 1, tzinfo=UTC)


def record(seconds: float, text: str, tag: str = "F", stream: str = "stdout") -> str:
    return f"{(BASE + timedelta(seconds=seconds)).strftime('%Y-%m-%dT%H:%M:%S.%f')}000Z {stream} {tag} {text}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "log"
    file.write_text(record(0, "one") + record(1, "two", stream="stderr") + record(2, "") + record(3, "end", "P"))
    return file


@contextlib.contextmanager
def nobody(_: Callable[[], None]) -> Iterator[None]:
    yield


async def text(path: Path, **options: Any) -> str:
    chunks = read_log(path, PodLogOptions(**options), lambda: True, nobody)
    return b"".join([chunk async for chunk in chunks]).decode()


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, "one\ntwo\n\nend"),
        ({"tail_lines": 0}, ""),
        ({"tail_lines": 1}, "end"),
        ({"tail_lines": 3}, "two\n\nend"),
        ({"tail_lines": 99}, "one\ntwo\n\nend"),
        ({"limit_bytes": 5}, "one\nt"),
        ({"limit_bytes": 99}, "one\ntwo\n\nend"),
        ({"tail_lines": 3, "limit_bytes": 2}, "tw"),
        ({"since_time": "2026-01-01T00:00:01Z"}, "two\n\nend"),
        ({"since_time": "2026-01-01T02:00:02+02:00"}, "\nend"),
        ({"tail_lines": 2, "since_time": "2026-01-01T00:00:01Z"}, "\nend"),
        ({"follow": True}, "one\ntwo\n\nend"),
    ],
)
async def test_a_log_is_cut_as_asked(path: Path, options: dict[str, Any], wanted: str) -> None:
    assert await text(path, **options) == wanted


async def test_time_stamps_come_before_each_line(path: Path) -> None:
    assert (await text(path, timestamps=True)).splitlines()[1] == "2026-01-01T00:00:01.000000000Z two"


async def test_since_seconds_counts_back_from_now(path: Path) -> None:
    age = (datetime.now(UTC) - BASE).total_seconds()
    assert await text(path, since_seconds=int(age) + 10) == "one\ntwo\n\nend"
    assert await text(path, since_seconds=10) == ""


async def test_a_tail_over_many_blocks_is_exact(path: Path) -> None:
    path.write_text("".join(record(n, f"{n:0>1000}") for n in range(300)))
    assert await text(path, tail_lines=200) == "".join(f"{n:0>1000}\n" for n in range(100, 300))


async def test_following_yields_what_is_added_and_ends_with_the_container(path: Path) -> None:
    ended, begun, wake = asyncio.Event(), asyncio.Event(), list[Callable[[], None]]()

    @contextlib.contextmanager
    def listening(woken: Callable[[], None]) -> Iterator[None]:
        wake.append(woken)
        begun.set()
        yield
        wake.remove(woken)

    chunks = read_log(path, PodLogOptions(follow=True, tail_lines=0), ended.is_set, listening)
    reading = asyncio.ensure_future(anext(chunks))
    await begun.wait()
    for part in (record(9, "new")[:20], record(9, "new")[20:]):
        with path.open("a") as file:
            file.write(part)
        wake[0]()
    assert await reading == b"new\n"
    ended.set()
    rest = asyncio.ensure_future(anext(chunks, b"end"))
    await asyncio.sleep(0)
    wake[0]()
    assert await rest == b"end"
    assert not wake


async def test_a_missing_log_is_a_lookup_error(tmp_path: Path) -> None:
    with pytest.raises(LookupError):
        await text(tmp_path / "none")


def test_the_last_lines_are_limited_in_number_and_bytes(path: Path) -> None:
    path.write_text("".join(record(n, f"line {n}") for n in range(100)))
    assert last_lines(path, 80, 2048) == "".join(f"line {n}\n" for n in range(20, 100))
    assert last_lines(path, 80, 10) == "8\nline 99\n"
    assert last_lines(path.with_name("none"), 80, 10) == ""


def written(path: Path, said: dict[str, list[bytes]]) -> list[list[str]]:
    """Return the records, split into stamp, stream, tag and text, that the launcher writes of such lines."""
    log = container_launcher.Log(str(path))
    log.write(said)
    os.close(log.file)
    return [line.split(" ", 3) for line in path.read_text().splitlines()]


def test_each_stream_keeps_its_order_and_neighbours_of_two_streams_may_be_out_of_theirs(tmp_path: Path) -> None:
    said = {stream: [f"F {number}".encode() for number in range(500)] for stream in ("stdout", "stderr")}
    records = written(tmp_path / "log", said)
    for stream in said:
        own = [(stamp, int(text)) for stamp, name, _, text in records if name == stream]
        assert own == sorted(own)
        assert [text for _, text in own] == list(range(500))
    stamps = [stamp for stamp, *_ in records]
    assert stamps != sorted(stamps)
    apart = [abs(place - sorted(stamps).index(stamp)) for place, stamp in enumerate(stamps)]
    assert max(apart) == 1  # only neighbours have changed places


def test_one_stream_alone_is_in_the_order_of_its_stamps(tmp_path: Path) -> None:
    stamps = [stamp for stamp, *_ in written(tmp_path / "log", {"stdout": [b"F line"] * 500})]
    assert stamps == sorted(stamps)
