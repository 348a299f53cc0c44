"""Probes and hooks: what the kubelet asks of a container (exec, httpGet, tcpSocket, sleep), and how often."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Protocol

import aiohttp

from crosswind.types import Manifest

__all__ = ["Asked", "Refused", "perform", "probe_for_ever"]


class Refused(Exception):
    """A probe or hook failed; the message is what the event tells."""


class Asked(Protocol):
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


async def perform(action: Manifest, asked: Asked) -> None:
    """Carry out a probe or hook; raise ``Refused`` when it fails. The caller limits the time."""
    if "exec" in action:
        await _exec(action["exec"].get("command") or [], asked)
    elif "httpGet" in action:
        await _get(action["httpGet"], asked)
    elif "tcpSocket" in action:
        await _connect(action["tcpSocket"], asked)
    elif "sleep" in action:
        await asyncio.sleep(action["sleep"]["seconds"])
    else:
        kind = next((key for key in action if not key.endswith(("Seconds", "Threshold"))), "none")
        raise Refused(f"{kind} is not known to this kubelet")


async def _exec(command: list[str], asked: Asked) -> None:
    try:
        code, output = await asked.run_command(command)
    except (LookupError, OSError) as problem:
        raise Refused(str(problem)) from problem
    if code != 0:
        raise Refused(output or f"command terminated with exit code {code}")


async def _get(action: Manifest, asked: Asked) -> None:
    host, port = action.get("host") or asked.address(), _port(action["port"], asked.spec)
    scheme = (action.get("scheme") or "HTTP").lower()
    path = action.get("path") or "/"
    url = f"{scheme}://{host}:{port}{path if path.startswith('/') else '/' + path}"
    headers = {"User-Agent": "kube-probe/1.36", "Accept": "*/*"}
    headers |= {one["name"]: one["value"] for one in action.get("httpHeaders") or ()}
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(url, headers=headers, allow_redirects=False, ssl=False) as response,
        ):
            if not 200 <= response.status < 400:
                raise Refused(f"HTTP probe failed with statuscode: {response.status}")
    except aiohttp.ClientConnectorError as problem:
        told = _words(problem.os_error)
        raise Refused(f'Get "{url}": dial tcp {host}:{port}: connect: {told}') from problem
    except (aiohttp.ClientError, OSError) as problem:
        raise Refused(f'Get "{url}": {problem or type(problem).__name__}') from problem


async def _connect(action: Manifest, asked: Asked) -> None:
    port = _port(action["port"], asked.spec)
    try:
        _, writer = await asked.connect(action.get("host"), port)
        writer.close()
    except OSError as problem:
        host = action.get("host") or asked.address()
        told = _words(problem)
        raise Refused(f"dial tcp {host}:{port}: connect: {told}") from problem


def _words(problem: OSError) -> str:
    """Say what went wrong as Go does; asyncio puts the address into its errors."""
    return os.strerror(problem.errno).lower() if problem.errno else str(problem)


def _port(port: int | str, container: Manifest) -> int:
    if isinstance(port, int) or port.isdigit():
        return int(port)
    found = [one["containerPort"] for one in container.get("ports") or () if one.get("name") == port]
    if not found:
        raise Refused(f"couldn't find port: {port}")
    return int(found[0])


async def probe_for_ever(
    probe: Manifest, asked: Asked, report: Callable[[bool], Awaitable[None] | None], tell: Callable[[str], None]
) -> None:
    """Probe until cancelled. ``report``: when a threshold is reached. ``tell``: each failure's message."""
    await asyncio.sleep(probe.get("initialDelaySeconds") or 0)
    needed = {True: probe.get("successThreshold") or 1, False: probe.get("failureThreshold") or 3}
    last, count = None, 0
    while True:
        good = await _probe_once(probe, asked, tell)
        last, count = good, count + 1 if good == last else 1
        if count == needed[good]:
            report(good)
        await asyncio.sleep(probe.get("periodSeconds") or 10)


async def _probe_once(probe: Manifest, asked: Asked, tell: Callable[[str], None]) -> bool:
    seconds = probe.get("timeoutSeconds") or 1
    try:
        async with asyncio.timeout(seconds):
            await perform(probe, asked)
    except TimeoutError:
        if "exec" in probe:
            tell(f'command timed out: "{" ".join(probe["exec"]["command"])}" timed out after {seconds}s')
        else:
            tell("context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
        return False
    except Refused as problem:
        tell(str(problem))
        return False
    return True
