"""One informer for many pods, while the API server compacts, refuses or fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from crosswind.errors import CrosswindError, Gone, Unreachable
from crosswind.kube.client import Client
from crosswind.kube.credentials import load
from crosswind.kube.requests import Request
from crosswind.kube.resources import PODS
from crosswind.kube.transport import HttpTransport, Reply, Transport
from crosswind.podrun.shared_watch import SharedPodInformer
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster
from crosswind.types import Manifest
from deadlines import scaled

pytestmark = pytest.mark.cluster

Fault = Callable[[Request], CrosswindError | None]


class Faulty:
    """Forwards requests, except those for which ``fault`` returns an error."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.fault: Fault = lambda request: None

    async def open(self, request: Request, authorization: str | None) -> Reply:
        if error := self.fault(request):
            raise error
        return await self._inner.open(request, authorization)


class Place:
    """A namespace whose pods are watched over a connection that can be made to fail."""

    def __init__(self, faulty: Faulty, client: Client, namespace: str, image: str) -> None:
        self.faulty, self.client, self.namespace, self._image = faulty, client, namespace, image

    async def create(self, name: str, script: str) -> None:
        base = {"name": "base", "image": self._image, "command": ["sh", "-c", script]}
        metadata = {"name": name, "labels": {"kubernetes_pod_operator": "True"}}
        manifest = {"metadata": metadata, "spec": {"containers": [base], "restartPolicy": "Never"}}
        await self.client.create(PODS, manifest, namespace=self.namespace)

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[SharedPodInformer]:
        shared = SharedPodInformer(self.client, self.namespace)
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


async def ended(shared: SharedPodInformer, name: str) -> Manifest:
    async with asyncio.timeout(scaled(25)), contextlib.aclosing(shared.states(name)) as states:
        async for pod, gone in states:
            if pod and pod["status"].get("phase") in ("Succeeded", "Failed"):
                return pod
            assert not gone
    raise AssertionError("the states ended")


def first(count: int, error: CrosswindError, *, watch: bool) -> Fault:
    """Fail so many watches (or else lists), and no further ones."""
    left = iter(range(count))

    def fault(request: Request) -> CrosswindError | None:
        is_watch = ("watch", "1") in request.query or ("watch", "true") in request.query
        is_selected = request.path.endswith("/pods") and request.method == "GET" and is_watch is watch
        return error if is_selected and next(left, None) is not None else None

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
async def test_ends_are_reported_through_failures_of_the_api_server(place: Place, fault: Callable[[], Fault]) -> None:
    await place.create("before", "exit 3")
    place.faulty.fault = fault()
    async with place.watched() as shared:
        await place.create("during", "sleep 1")
        pods = await asyncio.gather(ended(shared, "before"), ended(shared, "during"))
    assert [pod["status"]["phase"] for pod in pods] == ["Failed", "Succeeded"]


async def test_two_watches_are_independent(place: Place) -> None:
    await place.create("pod", "sleep 1")
    async with place.watched() as first_one, place.watched() as second_one:
        lost = asyncio.create_task(ended(first_one, "pod"))
        other = asyncio.create_task(ended(second_one, "pod"))
        await asyncio.sleep(0)
        lost.cancel()  # one triggerer ends, and the pod's trigger starts again in another
        assert (await other)["status"]["phase"] == "Succeeded"


async def test_an_api_server_that_never_answers_is_reported(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from crosswind.podrun import shared_watch

    monkeypatch.setattr(shared_watch, "_PATIENCE_S", 0.5)

    def refused(_: Request) -> Any:
        return Unreachable("connection refused")

    place.faulty.fault = refused
    async with place.watched() as shared:
        with pytest.raises(Unreachable, match=r"did not list pods for 0\.5 s: connection refused"):
            await ended(shared, "pod")
    place.faulty.fault = lambda request: None
