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

from crosswind.engine.log_archiver import LogArchiver, LogStoreForbidden, LogStoreUnavailable, PodLog
from crosswind.engine.state import RunResult, RunStage, RunTimes, WorkerRun, Workload
from crosswind.engine.worker_pod import WorkerTask
from crosswind.pods import kept_logs
from crosswind.pods.kept_logs import lines_of
from crosswind.settings import ArchiveSettings
from deadlines import scaled


class Source:
    """The API server: logs of pods, and when a followed log ends."""

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
        self.rows |= {log.pod: log for log in logs}

    def delete_older_than(self, days: float) -> None:
        self.refuses([])


class Cleaner:
    """The cleaner behind the archiver."""

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
        self.source, self.database, self.cleaner = Source(), Database(), Cleaner()
        archiver_class: Any = LogArchiver
        self.archiver: LogArchiver = archiver_class(self.source, self.cleaner, self.database, ArchiveSettings())

    def put(self, *names: str, **fields: Any) -> list[WorkerRun]:
        runs = []
        for name in names:
            task = WorkerTask("dag", "task", "run", 1, name, ti_id=name)
            run = WorkerRun(
                Workload(name, task, 0.0, None),
                task,
                RunTimes(0.0),
                stage=RunStage.ENDED,
                name=name,
                namespace="n",
                uid=name,
            )
            for field, value in fields.items():
                setattr(run, field, value)
            self.archiver.put(run)
            runs.append(run)
        return runs

    async def until(self, happened: Callable[[], object]) -> None:
        async with asyncio.timeout(scaled(20)):
            while not happened():  # noqa: ASYNC110 - a thread is waited for
                await asyncio.sleep(0.01)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    place = Place()
    working = asyncio.create_task(place.archiver.run())
    await place.archiver.started.wait()
    yield place
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working


def refuse(*pods: str) -> Callable[[Sequence[PodLog]], None]:
    def check(logs: Sequence[PodLog]) -> None:
        if bad := [log.pod for log in logs if log.pod in pods]:
            raise RuntimeError(f"packet bigger than max_allowed_packet: {bad}")

    return check


async def test_a_refused_log_does_not_delay_other_logs(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.database.refuses = refuse("bad")
    good = [f"pod{number}" for number in range(50)]
    place.put("bad", *good)
    await place.until(lambda: len(place.cleaner.got) == 51)
    assert set(place.database.rows) == set(good)
    (message,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert "n/bad" in message
    assert "max_allowed_packet" in message


async def test_a_log_store_without_write_permission_is_reported_once_and_delays_no_pod(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    def closed(logs: Sequence[PodLog]) -> None:
        raise LogStoreForbidden("permission denied for schema public")

    place.database.refuses = closed
    for number in range(20):
        place.put(f"pod{number}")
        await place.until(lambda number=number: len(place.cleaner.got) == number + 1)
    assert place.database.calls == 1
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "Logs of tasks are deleted with their pods: permission denied for schema public"
    ]


async def test_a_log_store_without_write_permission_is_retried_later(place: Place) -> None:
    def closed(logs: Sequence[PodLog]) -> None:
        raise LogStoreForbidden("permission denied")

    place.database.refuses = closed
    place.put("before")
    await place.until(lambda: place.cleaner.got == ["before"])
    place.database.refuses = lambda logs: None
    place.archiver._forbidden_until = float("-inf")  # as if the pause was over
    place.put("after")
    await place.until(lambda: place.cleaner.got == ["before", "after"])
    assert set(place.database.rows) == {"after"}


@pytest.mark.usefixtures("soon_stored_again")
async def test_logs_wait_for_a_log_store_that_does_not_answer(place: Place) -> None:
    def away(logs: Sequence[PodLog]) -> None:
        if place.database.calls < 3:
            raise LogStoreUnavailable("connection refused")

    place.database.refuses = away
    place.put("pod1", "pod2")
    await place.until(lambda: len(place.cleaner.got) == 2)
    assert set(place.database.rows) == {"pod1", "pod2"}


async def test_a_killed_tasks_pod_is_deleted_at_once_and_its_last_lines_are_stored(place: Place) -> None:
    place.database.refuses = refuse("nothing")
    place.put("killed", stage=RunStage.RUNNING, revoked=True)
    assert place.cleaner.got == ["killed"]
    place.source.ended.set()
    await place.until(lambda: place.database.rows)
    assert list(lines_of(place.database.rows["killed"].content)) == ["hello", "last words"]
    assert place.cleaner.got == ["killed"]


async def test_a_killed_tasks_pod_is_deleted_at_once_although_the_log_store_refuses_everything(place: Place) -> None:
    place.database.refuses = refuse(*(f"pod{number}" for number in range(50)))
    place.put(*(f"pod{number}" for number in range(50)), stage=RunStage.RUNNING, revoked=True)
    assert len(place.cleaner.got) == 50


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


async def test_texts_of_pods_are_cleaned_before_they_are_stored(place: Place) -> None:
    place.put("odd", result=RunResult(failed=True, message="died \0 of \udcff"), namespace="n" * 500)
    await place.until(lambda: place.database.rows)
    row = place.database.rows["odd"]
    assert len(row.name) <= 320
    assert "died \ufffd of \ufffd" in "".join(lines_of(row.content)).encode().decode("unicode_escape")
