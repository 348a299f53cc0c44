"""Exec and attach: all output arrives, and nothing is left open."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psutil
import pytest
from kubelet_node import Node, container, state

from deadlines import eventually, scaled
from kubelocal.kubelet.container_launcher import MAX_LISTENER_BACKLOG_BYTES, STALLED_S, Listener
from kubelocal.kubelet.container_run import ContainerRun
from kubelocal.kubelet.exec_streams import Streams, attach
from kubelocal.kubelet.pod_network import PodAddress

WRITER = "read x; head -c {size} /dev/zero | tr '\\0' x; printf {last}"


async def attached(node: Node, script: str) -> Streams:
    """Attach to a container that waits for a line, and send the line."""
    node.pod("p", container(script, stdin=True, stdinOnce=True))
    process = await node.kubelet.attach(await node.running("p"), "base", stdin=True)
    assert process.stdin is not None
    process.stdin.write(b"\n")
    return process


@pytest.mark.parametrize("size", [600_000, 3_000_000])
async def test_attach_loses_nothing_of_a_large_output(node: Node, size: int) -> None:
    process = await attached(node, WRITER.format(size=size, last="y"))
    assert process.stdout is not None
    async with asyncio.timeout(scaled(15)):
        output = await process.stdout.read()
    assert (len(output), output[-1:]) == (size + 1, b"y")
    assert await process.wait() == 0
    process.close()


async def test_a_slow_client_gets_the_rest_after_the_container_has_ended(node: Node) -> None:
    process = await attached(node, WRITER.format(size=900_000, last="y"))
    assert process.stdout is not None
    await node.ended("p")  # the container does not wait for a client that is so little behind
    async with asyncio.timeout(scaled(15)):
        assert len(await process.stdout.read()) == 900_001
    process.close()


async def test_a_container_waits_for_a_client_that_does_not_read_until_the_client_has_gone(node: Node) -> None:
    process = await attached(node, WRITER.format(size=5_000_000, last="y"))
    assert process.stdout is not None
    pod = node.registry.get("Pod", "default", "p")
    await node.logged(pod, "x" * 500_000)
    assert "running" in state(node.registry.get("Pod", "default", "p"))
    process.close()
    assert state(await node.ended("p"))["terminated"]["exitCode"] == 0
    assert len(await node.log(pod)) == 5_000_001


@pytest.mark.parametrize(
    ("size", "seconds", "ended", "stalled"),
    [
        (MAX_LISTENER_BACKLOG_BYTES, STALLED_S, False, True),
        (MAX_LISTENER_BACKLOG_BYTES, STALLED_S - 1, False, False),
        (MAX_LISTENER_BACKLOG_BYTES - 1, STALLED_S, False, False),
        (1, STALLED_S, True, True),
        (1, STALLED_S - 1, True, False),
    ],
)
def test_a_listener_has_stalled_when_something_waits_for_it_in_vain(
    size: int, seconds: float, ended: bool, stalled: bool
) -> None:
    listener = Listener("stdout")
    listener.add(b"x" * size, 100.0)
    assert listener.is_stalled(100.0 + seconds, ended=ended) is stalled


@pytest.mark.parametrize("tty", [True, False])
async def test_a_command_that_cannot_start_leaves_no_descriptor_open(node: Node, tty: bool) -> None:
    node.pod("p", container("exec sleep 100"))
    pod = await node.running("p")
    before = psutil.Process().num_fds()
    for _ in range(3):
        with pytest.raises(OSError, match="executable file not found"):
            await node.kubelet.exec(pod, "base", ["nosuch"], stdin=True, tty=tty)
    await eventually(lambda: psutil.Process().num_fds() <= before)  # the event loop closes transports a little later


async def test_an_attach_to_a_container_that_is_gone_leaves_no_descriptor_open(node: Node, tmp_path: Path) -> None:
    run = ContainerRun(node.kubelet.context, {}, tmp_path, PodAddress("127.0.0.1", "127.0.0.1"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        await attach(run, stdin=True)
    before = psutil.Process().num_fds()  # with what the process opens once, and what the loop has not closed yet
    for _ in range(10):
        with pytest.raises(OSError, match="Bad file descriptor"):
            await attach(run, stdin=True)
    await eventually(lambda: psutil.Process().num_fds() <= before)  # the event loop closes transports a little later
