"""The processes of this machine: those of pods are among them."""

from __future__ import annotations

import asyncio

import psutil

from deadlines import scaled


def running(*command: str) -> set[int]:
    """Return the processes that run a command."""
    return {one.pid for one in psutil.process_iter(["cmdline"]) if one.info["cmdline"] == [*command]}


async def come(*command: str) -> set[int]:
    """Wait for a process that runs a command: a container runs, and may speak, while it is its shell still."""
    async with asyncio.timeout(scaled(30)):
        while not (found := running(*command)):  # noqa: ASYNC110 - a process gives no event
            await asyncio.sleep(0.05)
    return found


async def gone(processes: set[int], *command: str) -> None:
    """Wait until none of these processes runs that command any more."""
    async with asyncio.timeout(scaled(30)):
        while processes & running(*command):  # noqa: ASYNC110 - a process gives no event
            await asyncio.sleep(0.01)
