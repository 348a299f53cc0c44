"""Faults of the API server and of the network to it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import time
from collections.abc import Callable, Iterator
from typing import ParamSpec

from benchmarks.chaos.clusters import reset_versions
from benchmarks.chaos.driving import ChaosDrive, drive
from benchmarks.chaos.proxying import Answer, Fault, ProxyRefusal
from benchmarks.chaos.scenario import Row, Scenario, ScenarioSize, at_most

from crosswind.kube import retry

__all__ = ["SCENARIOS", "every", "pause", "some", "stepwise"]

Arguments = ParamSpec("Arguments")

_FAMILY = "api"


def stepwise(steps: Callable[Arguments, Iterator[None]]) -> Callable[Arguments, Callable[[], None]]:
    """Let a generator function return a callable that takes the next step, and does nothing after the last one."""

    @functools.wraps(steps)
    def start(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Callable[[], None]:
        remaining = steps(*args, **kwargs)
        return lambda: next(remaining, None)

    return start


@stepwise
def every(seconds: float, act: Callable[[], object], times: int) -> Iterator[None]:
    """Act several ``times`` with pauses of some seconds."""
    for _ in range(times):
        yield from pause(seconds)
        act()


def some(answers: tuple[Answer, ...], share: float, times: int, seed: int = 0) -> Fault:
    """Return a fault that hits a share of the requests, including watches, so many ``times``."""
    chance, kinds = random.Random(seed), itertools.islice(itertools.cycle(answers), times)

    def fault(method: str, path: str) -> Answer:
        answer = next(kinds, None) if chance.random() < share else None
        return "dropped" if answer == "lost" and "watch=" in path else answer  # a watch has no end to wait for

    return fault


def creations(answer: Answer, nth: int, times: int) -> Fault:
    """Return a fault that gives every ``nth`` creation of a pod this answer, so many ``times``."""
    hits = itertools.chain(([None] * (nth - 1) + [answer]) * times, itertools.repeat(None))
    return lambda method, path: next(hits) if method == "POST" and path.endswith("/pods") else None


def _cut(size: ScenarioSize) -> list[Row]:
    with drive(size.of(400, 40), parallelism=size.of(64, 6)) as tasks:
        tasks.disturb = every(0.4, tasks.proxy.cut, size.of(20, 4))
        tasks.live()
        return tasks.rows(faults=size.of(20, 4))


def _stalls(size: ScenarioSize) -> list[Row]:
    with drive(size.of(400, 40), parallelism=size.of(64, 16)) as tasks:
        tasks.disturb = _stall(tasks, size.of(5.0, 1.0), size.of(4, 1))
        tasks.live()
        return tasks.rows(faults=size.of(4, 1))


@stepwise
def _stall(tasks: ChaosDrive, seconds: float, times: int) -> Iterator[None]:
    """Hold all traffic for some seconds, several ``times``."""
    for _ in range(times):
        yield from pause(0.5)
        tasks.proxy.hold()
        yield from pause(seconds)
        tasks.proxy.release()


def pause(seconds: float) -> Iterator[None]:
    """Yield until some seconds have passed."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        yield


def _errors(size: ScenarioSize) -> list[Row]:
    with drive(size.of(400, 40)) as tasks:
        tasks.proxy.fault = some((500, 503), share=0.3, times=size.of(400, 20))
        tasks.live()
        return tasks.rows(faults=size.of(400, 20))


def _too_many(size: ScenarioSize) -> list[Row]:
    with drive(size.of(400, 40)) as tasks:
        tasks.proxy.fault = some((429,), share=0.2, times=size.of(60, 5))
        tasks.live()
        return tasks.rows(faults=size.of(60, 5))


def _gone(size: ScenarioSize) -> list[Row]:
    def forget(tasks: ChaosDrive) -> None:
        tasks.proxy.cut()
        tasks.cluster.do(lambda registry: registry.store.compact())

    with drive(size.of(400, 40), parallelism=size.of(64, 6)) as tasks:
        tasks.disturb = every(0.5, lambda: forget(tasks), size.of(20, 3))
        tasks.live()
        return tasks.rows(faults=size.of(20, 3))


def _silent(size: ScenarioSize) -> list[Row]:
    options = size.of({}, {"CROSSWIND__RELIST_INTERVAL": "2"})
    with drive(size.of(200, 20), parallelism=size.of(200, 20), options=options) as tasks:
        tasks.disturb = every(0.4, tasks.proxy.mute, 1)
        tasks.live()
        return tasks.rows(faults=1)


def _reset(size: ScenarioSize) -> list[Row]:
    def restart(tasks: ChaosDrive) -> None:
        tasks.proxy.hold()
        tasks.cluster.do(reset_versions)
        tasks.proxy.cut()
        tasks.proxy.release()

    with drive(size.of(400, 40), parallelism=size.of(64, 16)) as tasks:
        tasks.disturb = every(size.of(2.0, 0.5), lambda: restart(tasks), size.of(3, 1))
        tasks.live()
        return tasks.rows(faults=size.of(3, 1))


def _unanswered(size: ScenarioSize) -> list[Row]:
    options = size.of({}, {"KUBERNETES_EXECUTOR__KUBE_CLIENT_REQUEST_ARGS": '{"_request_timeout": 1}'})
    with drive(size.of(200, 20), options=options) as tasks:
        tasks.proxy.fault = creations("unanswered", 4, size.of(20, 4))
        tasks.live()
        return tasks.rows(faults=size.of(20, 4))


def _lost(size: ScenarioSize) -> list[Row]:
    with drive(size.of(400, 40)) as tasks:
        tasks.proxy.fault = some(("lost", "dropped"), share=0.2, times=size.of(150, 10))
        tasks.live()
        return tasks.rows(faults=size.of(150, 10))


def _maintenance(size: ScenarioSize) -> list[Row]:
    """Answer some creations as a load balancer's maintenance page does; a short run believes two seconds."""
    page = ProxyRefusal(503, "closed for maintenance", retry_after=3600)
    with believed(size.of(retry.MAX_RETRY_AFTER_S, 2.0)), drive(size.of(200, 20)) as tasks:
        begun = time.monotonic()
        tasks.proxy.fault = creations(page, size.of(40, 4), times=3)
        tasks.live()
        took = time.monotonic() - begun
        return [*tasks.rows(faults=3), at_most("seconds for all", took, size.of(240.0, 25.0))]


@contextlib.contextmanager
def believed(seconds: float) -> Iterator[None]:
    """Believe a Retry-After up to so many seconds."""
    before, retry.MAX_RETRY_AFTER_S = retry.MAX_RETRY_AFTER_S, seconds
    try:
        yield
    finally:
        retry.MAX_RETRY_AFTER_S = before


SCENARIOS = (
    Scenario("connections-cut", _FAMILY, "All connections are cut, again and again, while pods start and end.", _cut),
    Scenario("stalls", _FAMILY, "The API server says nothing for 5 s, several times, and closes nothing.", _stalls),
    Scenario("errors", _FAMILY, "Three requests in ten, watches too, are answered by 500 or 503.", _errors),
    Scenario("too-many-requests", _FAMILY, "Every fifth request is answered by 429 with Retry-After.", _too_many),
    Scenario("retry-after-an-hour", _FAMILY, "A 503 asks to wait for an hour, three times.", _maintenance),
    Scenario("versions-too-old", _FAMILY, "The server forgets its history: watches that resume get 410.", _gone),
    Scenario("silent-watch", _FAMILY, "The watch goes silent without being closed.", _silent),
    Scenario("versions-reset", _FAMILY, "The server comes back from a backup, its versions begin again.", _reset),
    Scenario("creation-unanswered", _FAMILY, "Pods are created, but the answer never comes.", _unanswered),
    Scenario("answers-lost", _FAMILY, "Requests are carried out and answered by 500, or dropped.", _lost),
)
