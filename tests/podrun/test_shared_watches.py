"""A triggerer among thousands of pods keeps only those that a trigger waits for, and no unused informer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from crosswind.errors import CredentialsError, KubeconfigError, NotFound, Unreachable
from crosswind.kube.client import Listing
from crosswind.podrun.shared_watch import SharedInformerFactory, SharedPodInformer
from crosswind.settings import KubeSettings
from crosswind.types import Manifest, WatchEvent
from deadlines import scaled

HERE = KubeSettings()


def pod(name: str, phase: str = "Running", version: int = 1) -> Manifest:
    environment = [{"name": f"VAR_{number}", "value": f"value {number}"} for number in range(30)]
    return {
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": name,
            "resourceVersion": str(version),
            "labels": {"a": "b"},
        },
        "spec": {"containers": [{"name": "base", "image": "busybox", "env": environment}] * 2},
        "status": {"phase": phase, "containerStatuses": [{"name": "base", "state": {"running": {}}}]},
    }


class Cluster:
    """Plays the API server with the pods of a namespace. ``connect`` may fail or wait."""

    def __init__(self, *pods: Manifest) -> None:
        self.pods = {pod["metadata"]["name"]: pod for pod in pods}
        self.failures: list[Exception] = []
        self.may_connect = asyncio.Event()
        self.may_connect.set()
        self.may_list = asyncio.Event()
        self.may_list.set()
        self.connected = self.closed = 0
        self.reads: list[str] = []
        self.reading = self.most = 0
        self._changes: asyncio.Queue[WatchEvent] = asyncio.Queue()

    async def connect(self, *_: Any) -> Cluster:
        self.connected += 1
        await self.may_connect.wait()
        if self.failures:
            raise self.failures.pop(0)
        return self

    async def close(self) -> None:
        self.closed += 1

    async def list_mapped(self, _: Any, take: Callable[[Manifest], Any], **__: Any) -> Listing[Any]:
        await self.may_list.wait()
        return Listing([take(json.loads(json.dumps(pod))) for pod in self.pods.values()], "1")

    async def get(self, _: Any, name: str, **__: Any) -> Manifest:
        self.reads.append(name)
        self.reading += 1
        self.most = max(self.most, self.reading)
        await asyncio.sleep(0)
        self.reading -= 1
        if name not in self.pods:
            raise NotFound("gone", status=404)
        return self.pods[name]

    @contextlib.asynccontextmanager
    async def open_watch(self, _: Any) -> AsyncIterator[AsyncIterator[Iterator[WatchEvent]]]:
        async def batches() -> AsyncIterator[Iterator[WatchEvent]]:
            while True:
                yield iter([await self._changes.get()])

        yield batches()

    def change(self, kind: Any, changed: Manifest) -> None:
        self.pods[changed["metadata"]["name"]] = changed
        self._changes.put_nowait({"type": kind, "object": changed})


@contextlib.asynccontextmanager
async def watching(cluster: Cluster) -> AsyncIterator[SharedPodInformer]:
    shared = SharedPodInformer(cluster, "ns")  # type: ignore[arg-type]
    try:
        yield shared
    finally:
        await shared.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(scaled(20)):
        while not condition():  # noqa: ASYNC110  # of another task's state, which has no event
            await asyncio.sleep(0.01)


async def test_pods_that_nobody_waits_for_take_little_memory() -> None:
    cluster = Cluster(*(pod(f"pod-{number}", "Succeeded") for number in range(1000)))
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        async with watching(cluster) as shared, contextlib.aclosing(shared.states("pod-7")) as states:
            assert (await anext(states))[0] == cluster.pods["pod-7"]
            each = (tracemalloc.get_traced_memory()[0] - before) / 1000
    finally:
        tracemalloc.stop()
    assert each < 1400


async def test_a_waiter_before_the_first_list_costs_no_request_and_a_later_one_costs_one() -> None:
    cluster = Cluster(pod("early"), pod("late"))
    cluster.may_list.clear()
    async with watching(cluster) as shared:
        states = shared.states("early")
        first = asyncio.ensure_future(anext(states))
        await asyncio.sleep(0)
        cluster.may_list.set()
        assert await first == (cluster.pods["early"], False)
        assert cluster.reads == []
        for _ in range(2):  # the second one shares its state
            later = shared.states("late")
            assert await anext(later) == (cluster.pods["late"], False)
        assert cluster.reads == ["late"]
        cluster.change("MODIFIED", pod("early", "Succeeded", 2))
        pod_now, gone = await anext(states)
        assert (pod_now or {})["status"]["phase"] == "Succeeded"
        assert not gone


async def test_hundreds_that_begin_to_be_waited_for_at_once_take_few_connections() -> None:
    cluster = Cluster(*(pod(f"pod-{number}") for number in range(200)))
    async with watching(cluster) as shared:
        async with contextlib.aclosing(shared.states("pod-0")) as states:
            await anext(states)  # the first list has arrived
        await asyncio.gather(*(anext(shared.states(f"pod-{number}")) for number in range(200)))
        assert len(cluster.reads) == 200
        assert cluster.most <= 8


async def test_a_pod_that_goes_is_reported_with_its_last_state() -> None:
    cluster = Cluster(pod("a"))
    async with watching(cluster) as shared, contextlib.aclosing(shared.states("a")) as states:
        await anext(states)
        cluster.change("DELETED", pod("a", "Failed", 3))
        last, gone = await anext(states)
        assert gone
        assert (last or {})["status"]["phase"] == "Failed"
        with pytest.raises(StopAsyncIteration):
            await anext(states)


async def test_a_pod_that_only_a_comparison_finds_gone_has_the_state_that_was_seen_last() -> None:
    cluster = Cluster(pod("a"), pod("b"))
    async with watching(cluster) as shared, contextlib.aclosing(shared.states("a")) as states:
        await anext(states)
        del cluster.pods["a"]
        cluster.change("MODIFIED", pod("b", version=0))  # versions go back, so everything is listed again
        last, gone = await anext(states)
        assert gone
        assert (last or {})["spec"] == pod("a")["spec"]


def informers_of(cluster: Cluster) -> SharedInformerFactory:
    return SharedInformerFactory(cluster.connect, linger=0.0)  # type: ignore[arg-type]


async def test_a_waiter_that_is_cancelled_while_the_watch_opens_leaves_none() -> None:
    cluster = Cluster()
    cluster.may_connect.clear()
    shared = informers_of(cluster)

    async def wait() -> None:
        async with shared.watch(HERE, "ns"):
            raise AssertionError("not to be had")

    waiter = asyncio.create_task(wait())
    await until(lambda: cluster.connected == 1)
    waiter.cancel()
    await until(lambda: len(shared) == 0)
    cluster.may_connect.set()
    await shared.close()
    assert cluster.closed <= 1
    assert len(asyncio.all_tasks()) == 1


async def test_of_two_waiters_the_one_that_stays_gets_the_watch() -> None:
    cluster = Cluster()
    cluster.may_connect.clear()
    shared, leave = informers_of(cluster), asyncio.Event()

    async def wait() -> None:
        async with shared.watch(HERE, "ns"):
            await leave.wait()

    first, second = asyncio.create_task(wait()), asyncio.create_task(wait())
    await until(lambda: cluster.connected == 1)
    first.cancel()
    await asyncio.wait([first])
    cluster.may_connect.set()
    leave.set()
    await second
    await until(lambda: len(shared) == 0 and cluster.closed == 1)
    assert cluster.connected == 1


@pytest.mark.parametrize("failure", [KubeconfigError("no such context"), RuntimeError("a bug")])
async def test_a_connection_that_fails_takes_no_other_ones_watch_away(failure: Exception) -> None:
    cluster = Cluster()
    cluster.failures = [failure]
    shared, inside, leave = informers_of(cluster), [], asyncio.Event()

    async def use() -> None:
        for _ in range(2):
            with contextlib.suppress(type(failure)):
                async with shared.watch(HERE, "ns") as watch:
                    inside.append(watch)
                    await leave.wait()
                    return

    users = [asyncio.create_task(use()) for _ in range(3)]
    await until(lambda: len(inside) == 3)
    assert len({id(watch) for watch in inside}) == 1
    leave.set()
    await asyncio.gather(*users)
    await until(lambda: len(shared) == 0 and cluster.closed == 1)
    assert cluster.connected == 2
    await shared.close()
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("failure", [Unreachable("refused"), CredentialsError("the exec plug-in failed")])
async def test_a_connection_that_fails_for_now_is_tried_again(failure: Exception) -> None:
    cluster = Cluster()
    cluster.failures = [failure, failure]
    shared = informers_of(cluster)
    async with shared.watch(HERE, "ns"):
        assert cluster.connected == 3
    await shared.close()
