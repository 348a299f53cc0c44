"""Probes and hooks: what the kubelet asks of a container (exec, httpGet, tcpSocket, sleep), and how often.

No task is started here. The pod's worker owns a task per probe and cancels it when the container ends; a probe that is
under way is then dropped, and its command killed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Protocol

import aiohttp

from kubelocal.types import Manifest

__all__ = ["ProbeFailed", "ProbeTarget", "perform", "probe_for_ever"]


class ProbeFailed(Exception):
    """A probe or hook failed; the message is the event's."""


class ProbeTarget(Protocol):
    """The container that is asked."""

    @property
    def spec(self) -> Manifest:
        """Its part of the pod's spec."""
        ...

    async def run_command(self, command: list[str]) -> tuple[int, str]:
        """Run a command in it; return exit code and output. ``LookupError``: it does not run."""
        ...

    async def connect(self, host: str | None, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port of the pod, or of a host."""
        ...

    def address(self) -> str:
        """The pod's IP."""
        ...


async def perform(action: Manifest, target: ProbeTarget) -> None:
    """Carry out a probe or hook; raise ``ProbeFailed`` when it fails. The caller limits the time."""
    if "exec" in action:
        await _exec(action["exec"].get("command") or [], target)
    elif "httpGet" in action:
        await _get(action["httpGet"], target)
    elif "tcpSocket" in action:
        await _connect(action["tcpSocket"], target)
    elif "sleep" in action:
        await asyncio.sleep(action["sleep"]["seconds"])
    elif "grpc" in action:
        # It fails rather than succeeds, so that nobody takes a pod for ready that no probe has asked.
        raise ProbeFailed("kubelocal does not support gRPC probes; use exec, httpGet or tcpSocket")
    else:
        raise ProbeFailed("the action has no handler")


async def _exec(command: list[str], target: ProbeTarget) -> None:
    try:
        code, output = await target.run_command(command)
    except (LookupError, OSError) as problem:
        raise ProbeFailed(str(problem)) from problem
    if code != 0:
        raise ProbeFailed(output or f"command terminated with exit code {code}")


async def _get(action: Manifest, target: ProbeTarget) -> None:
    host, port = action.get("host") or target.address(), _port(action["port"], target.spec)
    scheme = (action.get("scheme") or "HTTP").lower()
    path = action.get("path") or "/"
    url = f"{scheme}://{host}:{port}{path if path.startswith('/') else '/' + path}"
    headers = {"User-Agent": "kube-probe/1.36", "Accept": "*/*"}
    headers |= {one["name"]: one.get("value") or "" for one in action.get("httpHeaders") or ()}
    try:
        async with (
            aiohttp.ClientSession() as session,
            # A session per probe: the kubelet keeps no connections either, and a kept one would hide that the port has
            # closed.
            session.get(url, headers=headers, allow_redirects=False, ssl=False) as response,
        ):
            if not 200 <= response.status < 400:
                raise ProbeFailed(f"HTTP probe failed with statuscode: {response.status}")
    except aiohttp.ClientConnectorError as problem:
        reason = _words(problem.os_error)
        raise ProbeFailed(f'Get "{url}": dial tcp {host}:{port}: connect: {reason}') from problem
    # ValueError: the pod's author wrote what HTTP or a name server cannot carry, such as a line break in a header.
    except (aiohttp.ClientError, OSError, ValueError) as problem:
        raise ProbeFailed(f'Get "{url}": {problem or type(problem).__name__}') from problem


async def _connect(action: Manifest, target: ProbeTarget) -> None:
    host, port = action.get("host") or target.address(), _port(action["port"], target.spec)
    try:
        _, writer = await target.connect(action.get("host"), port)
        writer.close()
    except OSError as problem:
        raise ProbeFailed(f"dial tcp {host}:{port}: connect: {_words(problem)}") from problem
    except ValueError as problem:  # a host that no name can be, such as one with a label over 63 characters
        raise ProbeFailed(f"dial tcp: lookup {host}: {problem}") from problem


def _words(problem: OSError) -> str:
    """Say what went wrong as Go does; asyncio puts the address into its errors."""
    return os.strerror(problem.errno).lower() if problem.errno else str(problem)


def _port(port: int | str, container: Manifest) -> int:
    if isinstance(port, int) or port.isdigit():
        return int(port)
    found = [one["containerPort"] for one in container.get("ports") or () if one.get("name") == port]
    if not found:
        raise ProbeFailed(f"couldn't find port: {port}")
    return int(found[0])


async def probe_for_ever(
    probe: Manifest, target: ProbeTarget, report: Callable[[bool], Awaitable[None] | None], warn: Callable[[str], None]
) -> None:
    """Probe until cancelled. ``report``: when a threshold is reached. ``warn``: each failure's message."""
    # The kubelet adds a random part of the period after its own restart; here runs are to be repeatable.
    await asyncio.sleep(probe.get("initialDelaySeconds") or 0)
    needed = {True: probe.get("successThreshold") or 1, False: probe.get("failureThreshold") or 3}
    last, count = None, 0
    while True:
        good = await _probe_once(probe, target, warn)
        last, count = good, count + 1 if good == last else 1
        # Exactly then, not above: each change of the result is reported once.
        if count == needed[good]:
            report(good)
        await asyncio.sleep(probe.get("periodSeconds") or 10)


async def _probe_once(probe: Manifest, target: ProbeTarget, warn: Callable[[str], None]) -> bool:
    seconds = probe.get("timeoutSeconds") or 1
    try:
        # Per attempt. A time-out cancels perform, which kills an exec'ed command and closes a connection.
        async with asyncio.timeout(seconds):
            await perform(probe, target)
    except TimeoutError:
        if "exec" in probe:
            warn(f'command timed out: "{" ".join(probe["exec"].get("command") or ())}" timed out after {seconds}s')
        else:
            warn("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
        return False
    except ProbeFailed as problem:
        warn(str(problem))
        return False
    return True
