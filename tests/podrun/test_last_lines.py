"""The last lines of a log, read after base has ended, from a kubelet that is slow, away or gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from crosswind.errors import CrosswindError, Forbidden, NotFound, ServerError
from crosswind.podrun import follow
from crosswind.podrun.follow import ContainerLine, FollowOptions, PodNews, follow_pod
from crosswind.types import Manifest
from deadlines import scaled

AWAY = ServerError(
    'proxy error from 10.0.0.1:6443 while dialing 10.0.0.2:10250, code 502: "502 Bad Gateway"', status=502
)
OVER = {"terminated": {"exitCode": 0, "reason": "Completed"}}

Stream = AsyncGenerator[bytes]


class Edge:
    """An API server whose ``number``-th reading of a log, from 1 on, is ``stream(number)``."""

    def __init__(self, stream: Callable[[int], Stream]) -> None:
        self._stream, self.readings = stream, 0

    def follow_log(self, *_: Any, **__: Any) -> Stream:
        self.readings += 1
        return self._stream(self.readings)

    async def log(self, *_: Any, **__: Any) -> bytes:
        self.readings += 1
        return b"".join([chunk async for chunk in self._stream(self.readings)])


def line(number: int) -> bytes:
    return f"2026-01-01T00:00:00.{number:09}Z {number}\n".encode()


def pod(base: Manifest, *others: Manifest) -> Manifest:
    statuses = [{"name": "base", "state": base}, *others]
    return {
        "metadata": {"name": "pod", "namespace": "ns", "uid": "1", "resourceVersion": "1"},
        "spec": {"restartPolicy": "Never", "containers": [{"name": status["name"]} for status in statuses]},
        "status": {"phase": "Running", "containerStatuses": statuses},
    }


async def lines_of(edge: Any, state: Manifest, *containers: str, pause: float = 0.0) -> list[str]:
    """Follow a pod that is in this state, and return the lines; the handler takes ``pause`` seconds for each."""
    lines = []

    async def states() -> AsyncGenerator[tuple[Manifest, bool]]:
        yield state, False

    async def handle(news: PodNews) -> None:
        if isinstance(news, ContainerLine):
            await asyncio.sleep(pause)
            lines.append(news.text)

    await follow_pod(edge, "pod", "ns", FollowOptions(logs=containers or ("base",)), handle, states())
    return lines


@pytest.fixture
def _short_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_FLUSH_TIMEOUT_S", scaled(0.3))


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    return lambda: [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.usefixtures("_short_limit")
@pytest.mark.parametrize("lines_per_chunk", [1, 1000], ids=["many-chunks", "one-chunk"])
async def test_a_handler_that_is_slower_than_the_limit_gets_all_lines(
    lines_per_chunk: int, warnings: Callable[[], list[str]]
) -> None:
    count = 60

    async def stream(_: int) -> Stream:
        for first in range(0, count, lines_per_chunk):
            yield b"".join(line(number) for number in range(first, min(count, first + lines_per_chunk)))

    lines = await lines_of(Edge(stream), pod(OVER), pause=scaled(0.01))
    assert lines == [str(number) for number in range(count)]
    assert warnings() == []


@pytest.mark.usefixtures("_short_limit")
async def test_lines_that_come_slowly_are_read_for_longer_than_the_limit() -> None:
    async def stream(_: int) -> Stream:
        for number in range(8):
            await asyncio.sleep(scaled(0.1))
            yield line(number)

    assert await lines_of(Edge(stream), pod(OVER)) == [str(number) for number in range(8)]


@pytest.mark.parametrize("lines_before", [0, 2])
async def test_a_kubelet_that_is_away_for_a_while_costs_no_line(
    lines_before: int, monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(follow, "_FLUSH_PAUSE_S", 0.02)

    async def stream(reading: int) -> Stream:
        if reading == 1:
            for number in range(lines_before):
                yield line(number)
        if reading < 15:
            raise AWAY
        for number in range(5):
            yield line(number)

    assert await lines_of(Edge(stream), pod(OVER)) == ["0", "1", "2", "3", "4"]
    assert warnings() == []


async def test_a_stream_whose_connection_died_silently_costs_no_line(
    monkeypatch: pytest.MonkeyPatch, warnings: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(follow, "_STALE_STREAM_S", 0.1)

    async def stream(reading: int) -> Stream:
        for number in range(2 if reading == 1 else 5):
            yield line(number)
        if reading == 1:
            await asyncio.Event().wait()

    edge = Edge(stream)
    assert await lines_of(edge, pod(OVER)) == ["0", "1", "2", "3", "4"]
    assert warnings() == []
    assert edge.readings == 2


async def nothing(_: int) -> Stream:
    await asyncio.Event().wait()
    yield b""


async def failure(_: int) -> Stream:
    raise AWAY
    yield b""


async def kubelets_own_line(_: int) -> Stream:
    yield b"unable to retrieve container logs\n"
    raise AWAY


@pytest.mark.usefixtures("_short_limit")
@pytest.mark.parametrize(
    ("stream", "cause"),
    [(nothing, "no line came for"), (failure, "502 Bad Gateway"), (kubelets_own_line, "502 Bad Gateway")],
)
async def test_a_log_that_cannot_be_read_is_given_up_with_one_warning(
    stream: Callable[[int], Stream], cause: str, warnings: Callable[[], list[str]]
) -> None:
    edge = Edge(stream)
    await lines_of(edge, pod(OVER))
    (warning,) = warnings()
    assert "The log of base in pod pod cannot be read to its end" in warning
    assert cause in warning


@pytest.mark.usefixtures("_short_limit")
async def test_a_sidecar_that_goes_on_writing_does_not_hold_up_a_silent_base(
    warnings: Callable[[], list[str]],
) -> None:
    async def endless() -> Stream:
        for number in range(10**6):
            await asyncio.sleep(0.01)
            yield line(number)

    class Chatty(Edge):
        def follow_log(self, *_: Any, container: str, **__: Any) -> Stream:
            return nothing(1) if container == "base" else endless()

    async def end(_: int) -> Stream:
        yield line(10**7)

    sidecar = {"name": "agent", "state": {"running": {}}}
    lines = await lines_of(Chatty(end), pod(OVER, sidecar), "base", "agent")
    assert lines[-1] == str(10**7), "what the sidecar has written is read once"
    assert len(warnings()) == 1


@pytest.mark.parametrize("error", [NotFound("pods pod not found", status=404), Forbidden("no", status=403)])
async def test_a_log_that_is_gone_or_forbidden_is_read_once(
    error: CrosswindError, warnings: Callable[[], list[str]]
) -> None:
    async def stream(_: int) -> Stream:
        raise error
        yield b""

    edge = Edge(stream)
    assert await lines_of(edge, pod(OVER)) == []
    assert edge.readings == 1
    assert len(warnings()) == 1


async def test_the_lines_of_a_sidecar_that_still_runs_are_read_again_after_a_failure() -> None:
    class Running(Edge):
        def follow_log(self, *_: Any, **__: Any) -> Stream:
            return nothing(1)

    async def stream(reading: int) -> Stream:
        if reading == 1:
            raise AWAY
        yield line(1)

    sidecar = {"name": "agent", "state": {"running": {}}}
    assert await lines_of(Running(stream), pod(OVER, sidecar), "agent") == ["1"]
