from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from crosswind.cli import main
from crosswind.kube.client import Client
from crosswind.kube.resources import EVENTS, LEASES, PODS, Resource
from crosswind.settings import KubeSettings
from crosswind.testing import Cluster
from crosswind.types import Manifest
from deadlines import scaled


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--namespace", "jobs"], "--selector"),
        (["--selector", "app=job"], "--namespace"),
        (["--namespace", "jobs", "--selector", " "], "name a label"),
        (["--namespace", "jobs", "--selector", "app=job", "--rate", "0"], "--rate"),
        (["--namespace", "jobs", "--selector", "app=job", "--permissions", "D"], "--permissions"),
        (["--namespace", "jobs", "--selector", "app=job", "--listen", "nowhere"], "ADDRESS:PORT"),
        (["--namespace", "jobs", "--selector", "app=job", "--kubeconfig", "/nosuch"], "/nosuch"),
    ],
)
def test_wrong_use_exits_with_2_and_says_what_is_wrong(arguments: list[str], problem: str, cluster: Cluster) -> None:
    run = CliRunner(env={"KUBECONFIG": str(cluster.kubeconfig)}).invoke(main, ["reap", *arguments])
    assert (run.exit_code, problem in run.output) == (2, True), run.output


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[Client]:
    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
        yield client


class Running:
    """A reaper as a process of its own; reads its log."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.log = ""

    async def says(self, pattern: str) -> re.Match[str]:
        """Wait for a line of the log."""
        assert self.process.stderr is not None
        while not (match := re.search(pattern, self.log)):
            line = await self.process.stderr.readline()
            assert line, self.log
            self.log += line.decode()
        return match


@contextlib.asynccontextmanager
async def started(cluster: Cluster, namespace: str, *options: str) -> AsyncIterator[Running]:
    common = ("--kubeconfig", str(cluster.kubeconfig), "--namespace", namespace, "--selector", "app=job")
    command = (sys.executable, "-m", "crosswind", "reap", *common, *options)
    process = await asyncio.create_subprocess_exec(*command, stderr=PIPE)
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def pod(name: str) -> Manifest:
    own = [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    proxy = {"name": "istio-proxy", "image": "istio/proxyv2:1.26.4", "args": ["proxy", "sidecar"], "env": own}
    work = {"name": "work", "image": "busybox", "command": ["true"]}
    spec = {"containers": [work, proxy], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "job"}}, "spec": spec}


async def until(client: Client, resource: Resource, namespace: str, holds: Callable[[Manifest], Any]) -> None:
    """Wait until ``holds`` is true of an object."""
    listing = await client.list(resource, namespace=namespace)
    if any(map(holds, listing.items)):
        return
    watch = client.watch(resource, namespace=namespace, version=listing.version, timeout=scaled(25))
    async with contextlib.aclosing(watch):
        async for event in watch:
            if event["type"] != "BOOKMARK" and holds(event["object"]):
                return
    raise AssertionError("no object is as expected")


def succeeded(name: str) -> Callable[[Manifest], bool]:
    return lambda pod: pod["metadata"]["name"] == name and pod["status"].get("phase") == "Succeeded"


def work_is_over(pod: Manifest) -> bool:
    statuses = pod["status"].get("containerStatuses", [])
    return any(status["name"] == "work" and "terminated" in status["state"] for status in statuses)


@pytest.mark.cluster
async def test_of_two_one_works_and_the_other_takes_over_when_it_is_killed(
    cluster: Cluster, client: Client, namespace: str
) -> None:
    options = ("--lease-duration", "2", "--listen", "127.0.0.1:0")
    async with (
        asyncio.timeout(scaled(28)),
        started(cluster, namespace, *options) as first,
        started(cluster, namespace, *options) as second,
    ):
        leads = [asyncio.create_task(reaper.says(" leads")) for reaper in (first, second)]
        await asyncio.wait(leads, return_when=asyncio.FIRST_COMPLETED)
        leader, other = (first, second) if leads[0].done() else (second, first)
        waiting = leads[1] if leads[0].done() else leads[0]
        await client.create(PODS, pod("one"), namespace=namespace)
        await until(client, EVENTS, namespace, lambda event: event["reason"] == "SidecarEnded")
        assert not waiting.done()
        leader.process.kill()
        await client.create(PODS, pod("two"), namespace=namespace)
        await until(client, PODS, namespace, succeeded("two"))
        await waiting
        other.process.send_signal(signal.SIGTERM)
        assert await other.process.wait() == 0
    events = (await client.list(EVENTS, namespace=namespace)).items
    asked = sorted(event["involvedObject"]["name"] for event in events if event["reason"] == "EndingSidecar")
    assert asked == ["one", "two"]
    lease = await client.get(LEASES, "crosswind-reaper", namespace=namespace)
    assert lease["spec"]["holderIdentity"] == ""


@pytest.mark.cluster
async def test_it_answers_how_it_is(cluster: Cluster, client: Client, namespace: str) -> None:
    async with (
        asyncio.timeout(scaled(25)),
        started(cluster, namespace, "--listen", "127.0.0.1:0") as running,
        aiohttp.ClientSession() as session,
    ):
        port = (await running.says(r"Listening on \S+?:(\d+)\n"))[1]
        await running.says("may use forward")
        await client.create(PODS, pod("one"), namespace=namespace)
        await running.says("istio-proxy ended")
        answers = {}
        for path in ("healthz", "readyz", "metrics"):
            async with session.get(f"http://127.0.0.1:{port}/{path}") as answer:
                answers[path] = (answer.status, await answer.text())
    assert answers["healthz"] == answers["readyz"] == (200, "ok")
    text = answers["metrics"][1]
    assert "crosswind_reaper_leader 1\n" in text
    assert f'crosswind_reaper_watch_silence_seconds{{namespace="{namespace}"}} ' in text
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{(\w+=\"[^\"]*\",?)+\})? [-0-9.e+]+", line), line


@pytest.mark.cluster
async def test_one_pass_ends_what_is_there_and_itself(cluster: Cluster, client: Client, namespace: str) -> None:
    await client.create(PODS, pod("one"), namespace=namespace)
    await until(client, PODS, namespace, work_is_over)
    async with asyncio.timeout(scaled(25)), started(cluster, namespace, "--once", "--dry-run") as running:
        assert (await running.says("would end (.+?) by"))[1] == "istio-proxy"
        assert await running.process.wait() == 0
    async with asyncio.timeout(scaled(25)), started(cluster, namespace, "--once") as running:
        await running.says("istio-proxy ended")
        assert await running.process.wait() == 0
    assert (await client.get(PODS, "one", namespace=namespace))["status"]["phase"] == "Succeeded"


@pytest.mark.cluster
async def test_a_pass_beside_one_that_works_does_nothing(cluster: Cluster, client: Client, namespace: str) -> None:
    held = {
        "metadata": {"name": "other"},
        "spec": {"holderIdentity": "someone", "leaseDurationSeconds": 3600},
    }
    await client.create(LEASES, held, namespace=namespace)
    options = ("--once", "--lease", f"{namespace}/other", "--lease-duration", "2")
    async with asyncio.timeout(scaled(25)), started(cluster, namespace, *options) as running:
        await running.says("someone holds the lease: nothing to do")
        assert await running.process.wait() == 0


def test_the_log_may_be_json_a_line_an_object() -> None:
    import json
    import logging

    from crosswind.cli.reap import _JsonLines

    try:
        raise ValueError("x")
    except ValueError:
        record = logging.LogRecord("crosswind", logging.INFO, "", 1, "Pod %s: ended", ("a/b",), sys.exc_info())
    line = _JsonLines().format(record)
    assert "\n" not in line
    content = json.loads(line)
    assert (content["level"], content["message"]) == ("INFO", "Pod a/b: ended")
    assert "ValueError: x" in content["exception"]
