"""Probes by HTTP, asked of a real server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from kubelet_node import Node, container, status_of

from deadlines import scaled
from kubelocal.kubelet.probes import ProbeFailed, perform, probe_until_cancelled, run_hook


class Target:
    """A container of a pod at 127.0.0.1."""

    spec: dict[str, Any] = {}  # noqa: RUF012 - never changed

    def address(self) -> str:
        return "127.0.0.1"

    async def run_command(self, command: list[str]) -> tuple[int, str]:
        raise LookupError(command)

    async def connect(self, host: str | None, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(host or self.address(), port)


async def answer(request: web.Request) -> web.Response:
    """Redirect to the next of the numbers in the path, or to what the query says."""
    if location := request.query.get("to"):
        return web.Response(status=302, headers={"Location": location}, text="moved")
    number = int(request.match_info["number"])
    if number:
        return web.Response(status=302, headers={"Location": f"./{number - 1}"})
    return web.Response(status=int(request.query.get("status", 200)), text=request.headers["Host"])


@pytest_asyncio.fixture
async def port() -> AsyncIterator[int]:
    application = web.Application()
    application.router.add_get("/{number}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def probed(port: int, path: str) -> str:
    return await perform({"httpGet": {"port": port, "path": path}}, Target())


ELSEWHERE = "Probe terminated redirects, Response body: moved"


@pytest.mark.parametrize(
    ("path", "warning"),
    [
        ("/0", ""),
        ("/1", ""),
        ("/9", ""),
        ("/0?to=/3", ""),
        ("/0?to=http://127.0.0.1:{port}/1", ""),
        ("/0?to=http://localhost:{port}/0%3Fstatus=500", ELSEWHERE),
        ("/0?status=300", "Probe terminated redirects, Response body: 127.0.0.1:{port}"),
    ],
)
async def test_redirects_are_followed_on_the_same_host_alone(port: int, path: str, warning: str) -> None:
    assert await probed(port, path.format(port=port)) == warning.format(port=port)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/0?status=500", "HTTP probe failed with statuscode: 500"),
        ("/0?to=/0%3Fstatus=404", "HTTP probe failed with statuscode: 404"),
        ("/0?to=http://[", 'Get "http://127.0.0.1'),
        ("/0?to=ftp://127.0.0.1/", 'Get "ftp://127.0.0.1/"'),
        ("/10", r'Get "http://127.0.0.1:\d+/0": stopped after 10 redirects'),
        ("/0?to=http://127.0.0.1:1/", r'Get "http://127.0.0.1:1/": dial tcp 127.0.0.1:1: connect: connection refused'),
    ],
)
async def test_what_a_redirect_leads_to_decides(port: int, path: str, message: str) -> None:
    with pytest.raises(ProbeFailed, match=message):
        await probed(port, path)


@pytest.mark.parametrize(
    "path", ["/0", "/0?status=404", "/0?status=500", "/1", "/0?to=http://localhost:{port}/0%3Fstatus=500"]
)
async def test_any_answer_to_a_hook_is_a_success(port: int, path: str) -> None:
    await run_hook({"httpGet": {"port": port, "path": path.format(port=port)}}, Target())


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ({"httpGet": {"port": 1}}, "connection refused"),
        ({"httpGet": {"port": "web"}}, "couldn't find port: web"),
        ({"exec": {"command": ["false"]}}, "false"),
    ],
)
async def test_a_hook_without_an_answer_fails(action: dict[str, Any], message: str) -> None:
    with pytest.raises(ProbeFailed, match=message):
        await run_hook(action, Target())


async def test_a_hook_does_not_follow_redirects_without_end(port: int) -> None:
    with pytest.raises(ProbeFailed, match="stopped after 10 redirects"):
        await run_hook({"httpGet": {"port": port, "path": "/10"}}, Target())


async def test_a_redirect_to_another_host_is_a_success_with_an_event(node: Node, port: int) -> None:
    away = {"host": "127.0.0.1", "port": port, "path": f"/0?to=http://localhost:{port}/"}
    node.pod("p", container("exec sleep 100", readinessProbe={"httpGet": away, "periodSeconds": 1}))
    await node.until("p", lambda pod: status_of(pod).get("ready"))
    assert await node.event_message("p", "ProbeWarning") == f"Readiness probe warning: {ELSEWHERE}"


@pytest.mark.parametrize(("age", "limit", "results"), [(3600.0, scaled(5), [True]), (3590.0, 0.1, [])])
async def test_the_initial_delay_counts_from_the_start_of_the_container(
    age: float, limit: float, results: list[bool]
) -> None:
    found: list[bool] = []
    over = asyncio.timeout(limit)

    def report(good: bool) -> None:
        found.append(good)
        over.reschedule(0)  # end the probing, which would go on for ever

    probe = {"sleep": {"seconds": 0}, "initialDelaySeconds": 3600}
    with pytest.raises(TimeoutError):
        async with over:
            await probe_until_cancelled(probe, Target(), time.time() - age, report, lambda *_: None)
    assert found == results
