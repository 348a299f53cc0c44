"""One watch for many pods, while the API server forgets, refuses or fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from crosswind.errors import CrosswindError, Gone, Unreachable
from crosswind.kube.client import Client
from crosswind.kube.connecting import load
from crosswind.kube.requests import Request
from crosswind.kube.resources import PODS
from crosswind.kube.transport import HttpTransport, Reply, Transport
from crosswind.runs.sharing import SharedWatch
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster
from crosswind.types import Manifest

pytestmark = pytest.mark.cluster

Fault = Callable[[Request], CrosswindError | None]


class Faulty:
    """Carries requests, less those that ``fault`` has an error for."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.fault: Fault = lambda request: None

    async def open(self, request: Request, authorization: str | None) -> Reply:
        if error := self.fault(request):
            raise error
        return await self._inner.open(request, authorization)


class Place:
    """A namespace whose pods are watched through a line that may be made to fail."""

    def __init__(self, faulty: Faulty, client: Client, namespace: str, image: str) -> None:
        self.faulty, self.client, self.namespace, self._image = faulty, client, namespace, image

    async def create(self, name: str, script: str) -> None:
        base = {"name": "base", "image": self._image, "command": ["sh", "-c", script]}
        metadata = {"name": name, "labels": {"kubernetes_pod_operator": "True"}}
        manifest = {"metadata": metadata, "spec": {"containers": [base], "restartPolicy": "Never"}}
        await self.client.create(PODS, manifest, namespace=self.namespace)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[SharedWatch]:
        shared = SharedWatch(self.client, self.namespace)
        try:
            yield shared
        finally:
            await shared.close()


@pytest.fixture
async def place(cluster: Cluster, namespace: str) -> AsyncIterator[Place]:
    server, credentials = await load(KubeSettings(kubeconfig=str(cluster.kubeconfig)))
    transport = HttpTransport(server)
    faulty = Faulty(transport)
    yield Place(faulty, Client(faulty, credentials), namespace, cluster.image)
    await transport.close()


async def ended(shared: SharedWatch, name: str) -> Manifest:
    async with asyncio.timeout(25), contextlib.aclosing(shared.states(name)) as states:
        async for pod, gone in states:
            if pod and pod["status"].get("phase") in ("Succeeded", "Failed"):
                return pod
            assert not gone
    raise AssertionError("the states ended")


def first(count: int, error: CrosswindError, *, watch: bool) -> Fault:
    """Fail so many watches (or else lists), and let the rest be."""
    left = iter(range(count))

    def fault(request: Request) -> CrosswindError | None:
        is_watch = ("watch", "1") in request.query or ("watch", "true") in request.query
        wanted = request.path.endswith("/pods") and request.method == "GET" and is_watch is watch
        return error if wanted and next(left, None) is not None else None

    return fault


@pytest.mark.parametrize(
    "fault",
    [
        lambda: first(2, Gone("the version is too old", status=410), watch=True),
        lambda: first(2, Unreachable("connection refused"), watch=True),
        lambda: first(2, Unreachable("connection refused"), watch=False),
    ],
    ids=["410", "no watch", "no list"],
)
async def test_ends_are_told_through_what_the_api_server_does(place: Place, fault: Callable[[], Fault]) -> None:
    await place.create("before", "exit 3")
    place.faulty.fault = fault()
    async with place.watched() as shared:
        await place.create("during", "sleep 1")
        pods = await asyncio.gather(ended(shared, "before"), ended(shared, "during"))
    assert [pod["status"]["phase"] for pod in pods] == ["Failed", "Succeeded"]


async def test_what_two_watches_see_does_not_depend_on_each_other(place: Place) -> None:
    await place.create("pod", "sleep 1")
    async with place.watched() as first_one, place.watched() as second_one:
        lost = asyncio.create_task(ended(first_one, "pod"))
        other = asyncio.create_task(ended(second_one, "pod"))
        await asyncio.sleep(0)
        lost.cancel()  # one triggerer ends; the pod's trigger begins anew in another
        assert (await other)["status"]["phase"] == "Succeeded"


async def test_an_api_server_that_never_answers_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from crosswind.runs import sharing

    monkeypatch.setattr(sharing, "_PATIENCE_S", 0.5)

    def refused(_: Request) -> Any:
        return Unreachable("connection refused")

    place.faulty.fault = refused
    async with place.watched() as shared:
        with pytest.raises(Unreachable, match=r"did not list pods for 0\.5 s: connection refused"):
            await ended(shared, "pod")
    place.faulty.fault = lambda request: None
