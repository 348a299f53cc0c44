from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import pytest

from crosswind.errors import PodTimeout, ServerError, Unreachable
from crosswind.kube.client import Client
from crosswind.kube.log_lines import LogCursor
from crosswind.kube.resources import PODS
from crosswind.podrun.follow import (
    ContainerLine,
    EventMessage,
    FollowOptions,
    PodNews,
    StateChange,
    follow_pod,
    pod_states,
)
from crosswind.pods.verdict import BaseState
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster
from crosswind.types import Manifest
from deadlines import scaled

pytestmark = pytest.mark.cluster


class Scene:
    """A namespace, and the news of a pod in it."""

    def __init__(self, client: Client, namespace: str, image: str) -> None:
        self.client, self.namespace, self.image = client, namespace, image
        self.news: list[PodNews] = []

    async def create(self, script: str, **spec: Any) -> None:
        base = {"name": "base", "image": self.image, "command": ["sh", "-c", script]}
        whole = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [base], **spec}
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": whole}
        await self.client.create(PODS, manifest, namespace=self.namespace)

    async def attend(self, states: Any = None, **options: Any) -> None:
        async def hand(news: PodNews) -> None:
            self.news.append(news)

        await follow_pod(self.client, "pod", self.namespace, FollowOptions(**options), hand, states)

    @property
    def stages(self) -> list[BaseState]:
        return [item.verdict.state for item in self.news if isinstance(item, StateChange)]

    @property
    def lines(self) -> list[str]:
        return [item.text for item in self.news if isinstance(item, ContainerLine)]


@pytest.fixture
async def scene(cluster: Cluster, namespace: str) -> AsyncIterator[Scene]:
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
        yield Scene(client, namespace, cluster.image)


async def test_a_pods_life_is_reported_in_states_and_lines(scene: Scene) -> None:
    await scene.create("echo one; sleep 0.2; echo two")
    await scene.attend(logs=("base",))
    assert scene.stages[-2:] == [BaseState.RUNNING, BaseState.TERMINATED]
    assert scene.lines == ["one", "two"]


async def test_a_pod_that_is_not_there_is_gone(scene: Scene) -> None:
    await scene.attend()
    assert [(item.pod, item.deleted, item.verdict.state) for item in scene.news if isinstance(item, StateChange)] == [
        (None, True, BaseState.GONE)
    ]


async def test_base_s_end_counts_once_its_policy_does_not_restart_it(scene: Scene) -> None:
    await scene.create(
        "echo try; test -e /v/there || { touch /v/there; exit 1; }", restartPolicy="OnFailure", **_volume()
    )
    await scene.attend(logs=("base",))
    seen = [item for item in scene.news if isinstance(item, StateChange)][-1]
    assert seen.verdict.succeeded


def _volume() -> dict[str, Any]:
    base = {"name": "base", "image": "busybox", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
    script = "echo try; test -e /v/there || { touch /v/there; exit 1; }"
    return {"volumes": [{"name": "v", "emptyDir": {}}], "containers": [base | {"command": ["sh", "-c", script]}]}


async def test_reading_continues_after_the_lines_that_were_read(scene: Scene) -> None:
    await scene.create("echo one; sleep 0.1; echo two; sleep 0.1; echo three")
    await scene.attend(logs=("base",))
    second = [item for item in scene.news if isinstance(item, ContainerLine)][1]
    scene.news.clear()
    await scene.attend(logs=("base",), seen=LogCursor(second.stamp, 1))
    assert scene.lines == ["three"]


async def test_at_once_reports_what_exists_and_does_not_wait(scene: Scene) -> None:
    await scene.create("echo one; sleep 600")
    async for pod, _ in pod_states(scene.client, "pod", scene.namespace):
        if pod and pod["status"].get("phase") == "Running":
            break
    async with asyncio.timeout(scaled(5)):
        while not scene.lines:
            await scene.attend(logs=("base",), at_once=True)
    assert scene.lines[0] == "one"


async def test_a_late_start_names_what_it_waits_for_and_its_events(scene: Scene) -> None:
    resources = {"requests": {"cpu": "900"}}
    await scene.create("true", containers=[{"name": "base", "image": scene.image, "resources": resources}])
    with pytest.raises(PodTimeout, match=r"be scheduled within schedule_timeout_seconds = 1\. .*cpu"):
        await scene.attend(schedule_timeout=1.0, events_every=0.3)
    assert any(isinstance(item, EventMessage) and "FailedScheduling" in item.text for item in scene.news)


async def test_a_start_that_was_missed_while_the_api_server_was_silent_is_not_late(scene: Scene) -> None:
    await scene.create("sleep 1; exit 3")

    async def silent() -> AsyncGenerator[tuple[Manifest | None, bool]]:
        yield await scene.client.get(PODS, "pod", namespace=scene.namespace) | {"status": {"phase": "Pending"}}, False
        await asyncio.Event().wait()

    async with asyncio.timeout(scaled(20)):
        await scene.attend(states=silent(), schedule_timeout=2.0)
    assert scene.stages[-1] is BaseState.TERMINATED


async def test_the_clock_of_a_start_begins_when_the_pod_is_first_seen(scene: Scene) -> None:
    await scene.create("exit 0")

    async def late() -> AsyncGenerator[tuple[Manifest | None, bool]]:
        await asyncio.sleep(0.5)  # while the API server is down
        async with contextlib.aclosing(pod_states(scene.client, "pod", scene.namespace)) as states:
            async for state in states:
                yield state

    await scene.attend(states=late(), schedule_timeout=0.1, startup_timeout=20)
    assert scene.stages[-1] is BaseState.TERMINATED


async def test_nothing_is_left_running_when_the_attendance_is_cancelled(scene: Scene) -> None:
    await scene.create("while :; do echo tick; sleep 0.1; done")
    before = asyncio.all_tasks()
    task = asyncio.create_task(scene.attend(logs=("base",), events_every=0.2))
    async with asyncio.timeout(scaled(10)):
        while not scene.lines:  # noqa: ASYNC110  # the news are a list
            await asyncio.sleep(0.05)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before


class Edge:
    """Plays the API server: a log for each reading."""

    def __init__(self, log: Callable[[], bytes]) -> None:
        self._log, self.readings = log, 0

    async def follow_log(self, *_: Any, **__: Any) -> AsyncGenerator[bytes]:
        self.readings += 1
        yield self._log()


def running_pod(restarts: int = 0, **states: Any) -> Manifest:
    base = {"name": "base", "restartCount": restarts, "state": states}
    if restarts:
        base["lastState"] = {"terminated": {"exitCode": 1, "reason": "Error"}}
    return {
        "metadata": {"name": "pod", "namespace": "ns", "uid": "1", "resourceVersion": "1"},
        "spec": {"restartPolicy": "OnFailure", "containers": [{"name": "base"}]},
        "status": {"phase": "Running", "containerStatuses": [base]},
    }


OVER = {"terminated": {"exitCode": 0, "reason": "Completed"}}


async def test_the_log_of_a_container_in_back_off_is_read_once_per_start() -> None:
    starts, lines, read = [0], [], asyncio.Event()
    edge: Any = Edge(lambda: f"2026-01-01T00:00:0{starts[-1]}.000000001Z boom\n".encode())

    async def states() -> AsyncGenerator[tuple[Manifest, bool]]:
        for number in (1, 2, 3):
            starts.append(number)
            yield running_pod(number, waiting={"reason": "CrashLoopBackOff"}), False
            await asyncio.wait_for(read.wait(), scaled(20))
            read.clear()
        await asyncio.sleep(1.5)  # nothing changes, so nothing must be read
        yield running_pod(3, **OVER), False

    async def hand(news: PodNews) -> None:
        if isinstance(news, ContainerLine):
            lines.append(news.text)
            read.set()

    await follow_pod(edge, "pod", "ns", FollowOptions(logs=("base",)), hand, states())
    assert lines == ["boom"] * 3
    assert edge.readings == 4  # the last one reads the end


async def test_lines_of_two_writers_are_reported_although_their_times_are_mixed() -> None:
    """Lines as containerd writes stdout and stderr: each writer stamps its line, then they write in turn."""
    texts = [f"{writer} {number}" for number in range(500) for writer in ("out", "err")]
    stamps = [number * 1000 + (700 if number % 3 else -1700) for number in range(len(texts))]
    log = "".join(f"2026-01-01T00:00:01.{stamp + 5000:09}Z {text}\n" for stamp, text in zip(stamps, texts, strict=True))
    edge: Any = Edge(log.encode)
    lines: list[str] = []

    async def states() -> AsyncGenerator[tuple[Manifest, bool]]:
        yield running_pod(**OVER), False

    async def hand(news: PodNews) -> None:
        if isinstance(news, ContainerLine):
            lines.append(news.text)

    await follow_pod(edge, "pod", "ns", FollowOptions(logs=("base",)), hand, states())
    assert lines == texts


async def test_all_lines_of_both_outputs_are_reported(scene: Scene) -> None:
    count = 3000
    loop = "i=0; while [ $i -lt %d ]; do echo %s $i%s; i=$((i+1)); done"
    await scene.create(f"({loop % (count, 'out', '')}) & {loop % (count, 'err', ' >&2')}; wait")
    await scene.attend(logs=("base",))
    whole = (await scene.client.log("pod", namespace=scene.namespace)).decode().splitlines()
    assert len(whole) == 2 * count
    assert scene.lines == whole


async def test_the_log_of_a_container_that_has_ended_survives_a_silent_api_server() -> None:
    silent = [Unreachable("refused"), ServerError("etcd", status=500), Unreachable("reset")]

    def log() -> bytes:
        if silent:
            raise silent.pop()
        return b"2026-01-01T00:00:01.000000001Z the last line\n"

    edge: Any = Edge(log)
    lines: list[str] = []
    began = asyncio.get_running_loop().time()

    async def states() -> AsyncGenerator[tuple[Manifest, bool]]:
        yield running_pod(**OVER), False

    async def hand(news: PodNews) -> None:
        if isinstance(news, ContainerLine):
            lines.append(news.text)

    await follow_pod(edge, "pod", "ns", FollowOptions(logs=("base",)), hand, states())
    assert lines == ["the last line"]
    assert asyncio.get_running_loop().time() - began > 0.3, "it is asked again after a pause, not at once"
