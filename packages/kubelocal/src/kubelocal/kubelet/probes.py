"""Probes and hooks: what the kubelet asks of a container (exec, httpGet, tcpSocket, sleep), and how often.

No task is started here. The pod's worker owns a task per probe and cancels it when the container ends; a probe that is
under way is then dropped, and its command killed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol
from urllib.parse import urljoin, urlsplit

import aiohttp

from kubelocal.types import Manifest

__all__ = ["ProbeFailed", "ProbeTarget", "perform", "probe_until_cancelled", "run_hook"]

REDIRECTS = (301, 302, 303, 307, 308)
MOST_REQUESTS, BODY_BYTES = 10, 10 * 1024


Warn = Callable[[str, str], None]
"""Writes the event of a probe that failed (``Unhealthy``) or was not quite as it should be (``ProbeWarning``)."""


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


async def perform(action: Manifest, target: ProbeTarget) -> str:
    """Carry out a probe or hook; return a warning or "". ``ProbeFailed``: it fails. The caller limits the time."""
    if "exec" in action:
        await _exec(action["exec"].get("command") or [], target)
    elif "httpGet" in action:
        return await _get(action["httpGet"], target)
    elif "tcpSocket" in action:
        await _connect(action["tcpSocket"], target)
    elif "sleep" in action:
        await asyncio.sleep(action["sleep"]["seconds"])
    elif "grpc" in action:
        # Fail rather than succeed, so that no pod counts as ready without having been probed.
        raise ProbeFailed("kubelocal does not support gRPC probes; use exec, httpGet or tcpSocket")
    else:
        raise ProbeFailed("the action has no handler")
    return ""


async def run_hook(action: Manifest, target: ProbeTarget) -> None:
    """Carry out a lifecycle hook; ``ProbeFailed``: it fails. The caller limits the time.

    Unlike a probe, a request by HTTP succeeds with any answer, whatever its status (``runHTTPHandler``,
    ``pkg/kubelet/lifecycle``), and its redirects may lead anywhere.
    """
    if "httpGet" not in action:
        await perform(action, target)
        return
    url, headers = _request(action["httpGet"], target, "kube-lifecycle")
    async with aiohttp.ClientSession() as session:
        for _ in range(MOST_REQUESTS):
            answer = await _ask(session, url, headers)
            if not answer.location:
                return
            url, headers = answer.location, _headers_for(answer, headers)
    raise ProbeFailed(f'Get "{url}": stopped after {MOST_REQUESTS} redirects')


async def _exec(command: list[str], target: ProbeTarget) -> None:
    try:
        code, output = await target.run_command(command)
    except (LookupError, OSError) as problem:
        raise ProbeFailed(str(problem)) from problem
    if code != 0:
        raise ProbeFailed(output or f"command terminated with exit code {code}")


async def _get(action: Manifest, target: ProbeTarget) -> str:
    """Ask by HTTP, and follow redirects as long as they lead to the same host; return a warning where they do not.

    After ``RedirectChecker`` and ``DoHTTPProbe`` (``pkg/probe/http``).
    """
    url, headers = _request(action, target, "kube-probe")
    # A session per probe: the kubelet keeps no connections either, and a kept one would hide that the port has closed.
    async with aiohttp.ClientSession() as session:
        for _ in range(MOST_REQUESTS):
            answer = await _ask(session, url, headers)
            if not 200 <= answer.status < 400:
                raise ProbeFailed(f"HTTP probe failed with statuscode: {answer.status}")
            if answer.status < 300:
                return ""
            if not answer.location or urlsplit(answer.location).hostname != urlsplit(url).hostname:
                return "Probe terminated redirects, Response body: " + answer.body.decode(errors="replace")
            url, headers = answer.location, _headers_for(answer, headers)
    raise ProbeFailed(f'Get "{url}": stopped after {MOST_REQUESTS} redirects')


def _request(action: Manifest, target: ProbeTarget, agent: str) -> tuple[str, dict[str, str]]:
    """Return the URL and the headers of the first request."""
    host, port = action.get("host") or target.address(), _port(action["port"], target.spec)
    scheme = (action.get("scheme") or "HTTP").lower()
    path = action.get("path") or "/"
    headers = {"User-Agent": f"{agent}/1.36", "Accept": "*/*"}
    headers |= {header["name"]: header.get("value") or "" for header in action.get("httpHeaders") or ()}
    return f"{scheme}://{host}:{port}{path if path.startswith('/') else '/' + path}", headers


def _headers_for(redirect: _Answer, headers: dict[str, str]) -> dict[str, str]:
    """Return the headers of the next request: a Host header of the pod's author is for the first host alone."""
    return {name: value for name, value in headers.items() if name.lower() != "host"} if redirect.whole else headers


class _Answer(NamedTuple):
    """``location``: where it redirects to, "" if nowhere; ``whole``: said with the host. ``body``: its beginning."""

    status: int
    location: str
    whole: bool
    body: bytes


async def _ask(session: aiohttp.ClientSession, url: str, headers: dict[str, str]) -> _Answer:
    try:
        async with session.get(url, headers=headers, allow_redirects=False, ssl=False) as response:
            location = response.headers.get("Location", "") if response.status in REDIRECTS else ""
            place, whole = urljoin(url, location) if location else "", bool(urlsplit(location).netloc)
            body = await response.content.read(BODY_BYTES) if response.status in range(300, 400) else b""
            return _Answer(response.status, place, whole, body)
    except aiohttp.ClientConnectorError as problem:
        reason = _words(problem.os_error)
        raise ProbeFailed(f'Get "{url}": dial tcp {problem.host}:{problem.port}: connect: {reason}') from problem
    # ValueError: the pod's author wrote what HTTP or a name server cannot carry, such as a line break in a header, or
    # the server redirects to an address that cannot be read.
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
    port_numbers = [
        declared["containerPort"] for declared in container.get("ports") or () if declared.get("name") == port
    ]
    if not port_numbers:
        raise ProbeFailed(f"couldn't find port: {port}")
    return int(port_numbers[0])


async def probe_until_cancelled(
    probe: Manifest,
    target: ProbeTarget,
    started_at: float,
    report: Callable[[bool], Awaitable[None] | None],
    warn: Warn,
) -> None:
    """Probe until cancelled. ``report``: when a threshold is reached. ``warn``: of each failure.

    ``started_at``: when the container started, in seconds since 1970. The initial delay counts from then, however long
    a startup probe or a hook after the start has held up this probe.
    """
    # The kubelet adds a random part of the period after its own restart; here runs are to be repeatable.
    await asyncio.sleep(max(0.0, started_at + (probe.get("initialDelaySeconds") or 0) - time.time()))
    needed = {True: probe.get("successThreshold") or 1, False: probe.get("failureThreshold") or 3}
    last, count = None, 0
    while True:
        good = await _probe_once(probe, target, warn)
        last, count = good, count + 1 if good == last else 1
        # Exactly then, not above: each change of the result is reported once.
        if count == needed[good]:
            report(good)
        await asyncio.sleep(probe.get("periodSeconds") or 10)


async def _probe_once(probe: Manifest, target: ProbeTarget, warn: Warn) -> bool:
    seconds = probe.get("timeoutSeconds") or 1
    try:
        # Per attempt. A time-out cancels perform, which kills an exec'ed command and closes a connection.
        async with asyncio.timeout(seconds):
            warning = await perform(probe, target)
    except TimeoutError:
        if "exec" in probe:
            warn(
                "Unhealthy",
                f'command timed out: "{" ".join(probe["exec"].get("command") or ())}" timed out after {seconds}s',
            )
        else:
            warn("Unhealthy", "context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
        return False
    except ProbeFailed as problem:
        warn("Unhealthy", str(problem))
        return False
    if warning:
        warn("ProbeWarning", warning)
    return True
