"""Runs a command until it ends or a signal cancels it; the command then cleans up everything that it has started.

``asyncio.run`` does this for SIGINT alone.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["run_until_interrupted"]

T = TypeVar("T")


def run_until_interrupted(command: Coroutine[Any, Any, T]) -> T | None:
    """Run a coroutine and return its result; None if SIGINT, SIGTERM or SIGHUP (the terminal closed) cancelled it.

    Signals that are ignored stay ignored: shells start ``command &`` in scripts with SIGINT ignored, and nohup ignores
    HUP. After the first signal further ones have no effect, so that they do not interrupt the cleanup.
    """
    with asyncio.Runner() as runner:
        return runner.run(_cancelled_by_signals(command))


async def _cancelled_by_signals(command: Coroutine[Any, Any, T]) -> T | None:
    task = asyncio.ensure_future(command)
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, interrupt)
    try:
        return await task
    except asyncio.CancelledError:
        if interrupted:
            return None
        raise
