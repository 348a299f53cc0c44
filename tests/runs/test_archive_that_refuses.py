"""An archiver between a log source and an archive that refuses, or may not be written to."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from crosswind.pods import kept_logs
from crosswind.pods.kept_logs import lines_of
from crosswind.pods.workers import WorkerTask
from crosswind.runs import archiving
from crosswind.runs.archiving import ArchiveAway, ArchiveClosed, Archiver, PodLog
from crosswind.runs.workloads import End, Run, Stage, Workload
from crosswind.settings import ArchiveSettings


class Source:
    """The API server's part: logs of pods, and how long a followed one stays open."""

    def __init__(self) -> None:
        self.chunks = [b"hello\n"]
        self.ended = asyncio.Event()

    async def log_chunks(self, name: str, **_: object) -> AsyncGenerator[bytes]:
        for chunk in self.chunks:
            yield chunk

    async def follow_log(self, name: str, **_: object) -> AsyncGenerator[bytes]:
        for chunk in self.chunks:
            yield chunk
        await self.ended.wait()
        yield b"last words\n"


class Database:
    def __init__(self) -> None:
        self.refuses: Callable[[Sequence[PodLog]], None] = lambda logs: None
        self.rows: dict[str, PodLog] = {}
        self.calls = 0

    def store(self, logs: Sequence[PodLog]) -> None:
        self.calls += 1
        self.refuses(logs)
        self.rows |= {one.pod: one for one in logs}

    def clean(self, days: float) -> None:
        self.refuses([])


class Next:
    """Whoever is handed the pods, to delete them."""

    def __init__(self) -> None:
        self.got: list[str] = []

    def put(self, run: Any) -> None:
        self.got.append(run.uid)

    async def run(self) -> None:
        await asyncio.Event().wait()

    def __len__(self) -> int:
        return 0


class Place:
    def __init__(self) -> None:
        self.source, self.database, self.next = Source(), Database(), Next()
        made: Any = Archiver
        self.archiver: Archiver = made(self.source, self.next, self.database, ArchiveSettings())

    def put(self, *names: str, **fields: Any) -> list[Run]:
        runs = []
        for name in names:
            task = WorkerTask("dag", "task", "run", 1, name, ti_id=name)
            run = Run(Workload(name, task, 0.0, None), task, 0.0, stage=Stage.ENDED, name=name, namespace="n", uid=name)
            for field, value in fields.items():
                setattr(run, field, value)
            self.archiver.put(run)
            runs.append(run)
        return runs

    async def until(self, happened: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not happened():  # noqa: ASYNC110 - a thread is waited for
                await asyncio.sleep(0.01)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    place = Place()
    working = asyncio.create_task(place.archiver.run())
    await asyncio.sleep(0)
    yield place
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working


def refuse(*pods: str) -> Callable[[Sequence[PodLog]], None]:
    def check(logs: Sequence[PodLog]) -> None:
        if bad := [one.pod for one in logs if one.pod in pods]:
            raise RuntimeError(f"packet bigger than max_allowed_packet: {bad}")

    return check


async def test_a_log_that_is_refused_is_left_out_and_holds_up_no_other(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.database.refuses = refuse("bad")
    good = [f"pod{number}" for number in range(50)]
    place.put("bad", *good)
    await place.until(lambda: len(place.next.got) == 51)
    assert set(place.database.rows) == set(good)
    (told,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert "n/bad" in told
    assert "max_allowed_packet" in told


async def test_an_archive_that_nobody_may_write_to_is_reported_once_and_costs_no_waiting(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    def closed(logs: Sequence[PodLog]) -> None:
        raise ArchiveClosed("permission denied for schema public")

    place.database.refuses = closed
    for number in range(20):
        place.put(f"pod{number}")
        await place.until(lambda number=number: len(place.next.got) == number + 1)
    assert place.database.calls == 1
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "Logs of tasks go with their pods: permission denied for schema public"
    ]


async def test_an_archive_that_was_closed_is_tried_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "_CLOSED", 0.05)

    def closed(logs: Sequence[PodLog]) -> None:
        raise ArchiveClosed("permission denied")

    place.database.refuses = closed
    place.put("before")
    await place.until(lambda: place.next.got == ["before"])
    place.database.refuses = lambda logs: None
    await place.until(lambda: place.archiver._closed_until < asyncio.get_running_loop().time())
    place.put("after")
    await place.until(lambda: place.next.got == ["before", "after"])
    assert set(place.database.rows) == {"after"}


async def test_an_archive_that_does_not_answer_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "_DATABASE_DOWN", 0.05)

    def away(logs: Sequence[PodLog]) -> None:
        if place.database.calls < 3:
            raise ArchiveAway("connection refused")

    place.database.refuses = away
    place.put("pod1", "pod2")
    await place.until(lambda: len(place.next.got) == 2)
    assert set(place.database.rows) == {"pod1", "pod2"}


async def test_a_task_that_is_killed_loses_its_pod_at_once_and_its_last_words_are_kept(place: Place) -> None:
    place.database.refuses = refuse("nothing")
    place.put("killed", stage=Stage.BEGUN, revoked=True)
    assert place.next.got == ["killed"]
    place.source.ended.set()
    await place.until(lambda: place.database.rows)
    assert list(lines_of(place.database.rows["killed"].content)) == ["hello", "last words"]
    assert place.next.got == ["killed"]


async def test_a_killed_tasks_pod_goes_at_once_though_the_archive_refuses_everything(place: Place) -> None:
    place.database.refuses = refuse(*(f"pod{number}" for number in range(50)))
    place.put(*(f"pod{number}" for number in range(50)), stage=Stage.BEGUN, revoked=True)
    assert len(place.next.got) == 50


async def test_nothing_is_compressed_on_the_event_loop(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    threads, original = set(), gzip.compress

    def compress(data: bytes, *arguments: Any, **more: Any) -> bytes:
        threads.add(threading.current_thread())
        return original(data, *arguments, **more)

    monkeypatch.setattr(kept_logs.gzip, "compress", compress)
    place.source.chunks = [b"x" * 65_535 + b"\n"] * 160
    place.put("large")
    await place.until(lambda: place.database.rows)
    assert threads
    assert threading.main_thread() not in threads
    assert place.database.rows["large"].size == 160 * 65_536


async def test_texts_of_pods_are_made_such_that_the_archive_takes_them(place: Place) -> None:
    place.put("odd", end=End(failed=True, message="died \0 of \udcff"), namespace="n" * 500)
    await place.until(lambda: place.database.rows)
    row = place.database.rows["odd"]
    assert len(row.name) <= 320
    assert "died \ufffd of \ufffd" in "".join(lines_of(row.content)).encode().decode("unicode_escape")
