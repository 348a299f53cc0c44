"""The runtimes of a cluster's nodes as one: a stream goes to the kubelet of the pod's node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

from kubelocal.interfaces import PodLogOptions, Process, Runtime
from kubelocal.types import Manifest

__all__ = ["NoRuntime", "NodeRuntimes"]


class NoRuntime:
    """The runtime of simulated nodes, which have no processes to stream from."""

    async def log(self, pod: Manifest, container: str, options: PodLogOptions) -> AsyncIterator[bytes]:
        """Raise ``LookupError``."""
        if pod:
            raise LookupError("simulated pods have no log")
        yield b""

    async def exec(self, pod: Manifest, container: str, command: list[str], *, stdin: bool, tty: bool) -> Process:
        """Raise ``LookupError``."""
        raise LookupError("simulated pods run nothing")

    async def attach(self, pod: Manifest, container: str, *, stdin: bool) -> Process:
        """Raise ``LookupError``."""
        raise LookupError("simulated pods run nothing")

    async def dial(self, pod: Manifest, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raise ``LookupError``."""
        raise LookupError("simulated pods listen on no port")


class NodeRuntimes:
    """Implements ``interfaces.Runtime``. ``runtimes``: by name of the node; all other nodes are simulated."""

    def __init__(self, runtimes: Mapping[str, Runtime]) -> None:
        self._runtimes, self._simulated = dict(runtimes), NoRuntime()

    def _of(self, pod: Manifest) -> Runtime:
        return self._runtimes.get(pod["spec"].get("nodeName", ""), self._simulated)

    def log(self, pod: Manifest, container: str, options: PodLogOptions) -> AsyncIterator[bytes]:
        """Yield the log in chunks."""
        return self._of(pod).log(pod, container, options)

    async def exec(self, pod: Manifest, container: str, command: list[str], *, stdin: bool, tty: bool) -> Process:
        """Start a command beside the container's process."""
        return await self._of(pod).exec(pod, container, command, stdin=stdin, tty=tty)

    async def attach(self, pod: Manifest, container: str, *, stdin: bool) -> Process:
        """Join the container's own output from now on."""
        return await self._of(pod).attach(pod, container, stdin=stdin)

    async def dial(self, pod: Manifest, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port of the pod."""
        return await self._of(pod).dial(pod, port)
