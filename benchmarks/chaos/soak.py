"""Many tasks, and faults of every kind at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from benchmarks.chaos.api import pause, stepwise
from benchmarks.chaos.clusters import reset_versions
from benchmarks.chaos.driving import ChaosDrive, drive
from benchmarks.chaos.proxying import Answer, Fault
from benchmarks.chaos.scenario import Row, Scenario, ScenarioSize, at_least

__all__ = ["SCENARIOS"]

_SEED = 20
_SHARE = 0.01
"""The share of requests that are refused, lost or dropped."""
_ANSWERS: tuple[Answer, ...] = (500, 503, 429, "lost", "dropped")


def _noise(chance: random.Random) -> Fault:
    """Return a fault that hits one request in a hundred, each time in another way."""

    def fault(method: str, path: str) -> Answer:
        if chance.random() >= _SHARE:
            return None
        answer = chance.choice(_ANSWERS)
        return "dropped" if answer == "lost" and "watch=" in path else answer  # a watch has no end to wait for

    return fault


def _blows(tasks: ChaosDrive, chance: random.Random) -> dict[str, Callable[[], Iterator[None]]]:
    """Return the faults that hit the whole system; each yields until it is over."""
    registry = tasks.cluster

    def once(act: Callable[[], object]) -> Callable[[], Iterator[None]]:
        def steps() -> Iterator[None]:
            act()
            yield

        return steps

    def stall() -> Iterator[None]:
        tasks.proxy.hold()
        yield from pause(chance.uniform(0.5, 5.0))
        tasks.proxy.release()

    def no_database() -> Iterator[None]:
        tasks.database.stop()
        yield from pause(chance.uniform(0.2, 2.0))
        tasks.database.start()

    def forget() -> None:
        tasks.proxy.cut()
        registry.do(lambda there: there.store.compact())

    def restore() -> None:
        registry.do(reset_versions)
        tasks.proxy.cut()

    return {
        "cut": once(tasks.proxy.cut),
        "mute": once(tasks.proxy.mute),
        "forget": once(forget),
        "restore": once(restore),
        "end connections": once(tasks.database.end_connections),
        "stall": stall,
        "no database": no_database,
    }


@stepwise
def _storm(tasks: ChaosDrive, every: float) -> Iterator[None]:
    """Inject a fault each ``every`` seconds on average, all kinds in random order."""
    chance = random.Random(_SEED)
    blows = _blows(tasks, chance)
    while True:
        for name in chance.sample([*blows], len(blows)):
            yield from pause(chance.uniform(0.5, 1.5) * every)
            tasks.faults += 1
            yield from blows[name]()


def _soak(size: ScenarioSize) -> list[Row]:
    count, kinds = size.of(20_000, 500), size.of(7, 3)
    options = {
        "CROSSWIND__RELIST_INTERVAL": size.of("20", "2"),
        "KUBERNETES_EXECUTOR__KUBE_CLIENT_REQUEST_ARGS": '{"_request_timeout": 10}',
    }
    with drive(count, parallelism=size.of(1_000, 200), seconds=(0.2, 2.0), options=options) as tasks:
        tasks.proxy.fault = _noise(random.Random(_SEED))
        tasks.disturb = _storm(tasks, size.of(3.0, 0.5))
        tasks.live(limit=1_500)
        return [*tasks.rows(faults=size.of(500, 5)), at_least("blows at everything", tasks.faults, kinds)]


SCENARIOS = (Scenario("soak", "soak", "20,000 tasks (short: 500), with faults of every kind at random.", _soak),)
