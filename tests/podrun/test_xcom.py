"""The value of a pod whose sidecar does not deliver by itself, from an API server that has faults."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson
import pytest

from crosswind.errors import XComError
from crosswind.kube.client import Client
from crosswind.kube.requests import Request
from crosswind.podrun import xcom
from crosswind.podrun.xcom import collect_xcom
from crosswind.podrun.xcom_delivery import CONTAINER
from crosswind.sidecars.shutdown import ShutdownSettings
from crosswind.types import Manifest
from deadlines import scaled

SHORT, IN_LOG = "value 3 1\n[1]", "log 1 3\n"
FRAME = b"\nbegin 1 3\n[1]\nend 1\n"


def pod_with(sidecar: Manifest, uid: str = "1") -> Manifest:
    """Return a pod whose base has ended, and whose other container holds it."""
    ended = {"terminated": {"exitCode": 0, "finishedAt": "2026-01-01T00:00:00Z"}}
    others = [{"name": "base", "state": ended}, {"name": "agent", "state": {"running": {}}}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pod", "namespace": "ns", "uid": uid, "resourceVersion": "1"},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "base"}, {"name": "agent"}]},
        "status": {
            "phase": "Running",
            "containerStatuses": others,
            "initContainerStatuses": [{"name": CONTAINER, "state": sidecar}],
        },
    }


POD = pod_with({"running": {}})


class Answer:
    """A refusal with this status, or a stream of these chunks."""

    headers: dict[str, str] = {}  # noqa: RUF012
    socket = None

    def __init__(self, status: int, chunks: AsyncGenerator[bytes] | None = None, body: object = None) -> None:
        self.status, self._chunks, self._body = status, chunks, body

    async def read(self) -> bytes:
        return orjson.dumps(self._body or {"kind": "Status", "status": "Failure", "message": "a refusal"})

    def chunks(self) -> AsyncGenerator[bytes]:
        assert self._chunks is not None
        return self._chunks

    async def close(self) -> None:
        pass


class Refusing:
    """An API server that answers everything with one status."""

    def __init__(self, status: int) -> None:
        self.status = status

    async def open(self, request: Request, authorization: str | None) -> Answer:
        return Answer(self.status)


class Edge:
    """An API server with one pod, whose sidecar ends with ``message`` when the pod is deleted, and prints ``FRAME``.

    ``deletions``, ``logs``: the statuses of the first requests of each kind. What else is requested is forbidden.
    """

    def __init__(
        self, message: str, *, deletions: tuple[int, ...] = (), logs: tuple[int, ...] = (), kubelet: bool = True
    ) -> None:
        self.message, self.kubelet = message, kubelet
        self.deletions, self.logs = list(deletions), list(logs)
        self.pod, self.deleted = POD, asyncio.Event()

    async def open(self, request: Request, authorization: str | None) -> Any:
        query = dict(request.query)
        if request.method == "DELETE":
            return self._delete()
        if request.path.endswith("/log") and "follow" in query:
            return await self._log()
        if "watch" in query:
            return Answer(200, self._changes())
        if request.method == "GET" and request.path.endswith("/pods/pod"):
            return Answer(200, body=self.pod)
        return Answer(403)

    def _delete(self) -> Answer:
        if self.deletions:
            return Answer(self.deletions.pop(0))
        self.pod = pod_with({"terminated": {"exitCode": 0, "message": self.message}})
        self.deleted.set()
        return Answer(200, body=self.pod)

    async def _log(self) -> Answer:
        if self.logs:
            return Answer(self.logs.pop(0))
        if not self.kubelet:
            await asyncio.Event().wait()
        return Answer(200, self._output())

    async def _output(self) -> AsyncGenerator[bytes]:
        yield b"none\n"
        await self.deleted.wait()
        yield FRAME

    async def _changes(self) -> AsyncGenerator[bytes]:
        await self.deleted.wait()
        yield orjson.dumps({"type": "MODIFIED", "object": self.pod}) + b"\n"
        yield orjson.dumps({"type": "DELETED", "object": self.pod}) + b"\n"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xcom, "_SHUTDOWN_TIMEOUT_S", 0.1)
    monkeypatch.setattr(xcom, "_LOG_TIMEOUT_S", scaled(0.5))


async def collect(transport: Any, *, may_delete: bool = True, pod: Manifest = POD) -> bytes | None:
    async with Client(transport) as client:
        return await collect_xcom(client, pod, "base", ShutdownSettings(), may_delete=may_delete)


@pytest.mark.parametrize("may_delete", [True, False])
async def test_a_pod_that_is_gone_has_no_value(may_delete: bool) -> None:
    assert await collect(Refusing(404), may_delete=may_delete) is None


async def test_a_pod_that_is_gone_with_the_log_that_holds_the_value_has_none() -> None:
    ended = pod_with({"terminated": {"exitCode": 0, "message": IN_LOG}})
    assert await collect(Refusing(404), pod=ended) is None


@pytest.mark.parametrize("message", [SHORT, IN_LOG], ids=["status", "log"])
@pytest.mark.parametrize("refusals", [(503,), (429, 500)])
async def test_a_deletion_that_is_refused_for_a_moment_brings_the_value(
    message: str, refusals: tuple[int, ...]
) -> None:
    assert await collect(Edge(message, deletions=refusals)) == b"[1]"


async def test_a_log_that_cannot_be_opened_for_a_moment_brings_the_value() -> None:
    assert await collect(Edge(IN_LOG, logs=(502,))) == b"[1]"


async def test_a_short_value_arrives_although_the_kubelet_does_not_answer() -> None:
    assert await collect(Edge(SHORT, kubelet=False)) == b"[1]"


async def test_a_value_that_only_the_log_has_is_reported_as_lost_when_the_kubelet_does_not_answer() -> None:
    with pytest.raises(XComError, match=r"pod ns/pod is lost: .*kubelet.* and run the task again"):
        await collect(Edge(IN_LOG, kubelet=False))


async def test_a_deletion_that_is_forbidden_names_the_permission() -> None:
    with pytest.raises(XComError, match=r"pod ns/pod is lost: .*allow the task to delete pods"):
        await collect(Edge(SHORT, deletions=(403,)))


async def test_a_pod_that_may_not_be_read_names_the_permission() -> None:
    with pytest.raises(XComError, match=r"pod ns/pod is lost: .*allow the task to get pods"):
        await collect(Refusing(403), may_delete=False)


async def test_the_value_of_another_pod_with_the_name_is_left_alone() -> None:
    edge = Edge(SHORT, deletions=(409,))
    edge.pod = pod_with({"terminated": {"exitCode": 0, "message": SHORT}}, uid="2")
    assert await collect(edge) is None
