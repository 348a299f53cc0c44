"""One run of one container: started, probed, hooked, stopped, and its end told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from crosswind.local.kubelet import logs
from crosswind.local.kubelet.containers import Command, Container
from crosswind.local.kubelet.machine import Machine, rewritten
from crosswind.local.kubelet.network import Place
from crosswind.local.kubelet.pods import Ended
from crosswind.local.kubelet.probing import Refused, perform
from crosswind.types import Manifest

__all__ = ["Run"]

MESSAGE_BYTES, LOG_LINES, LOG_BYTES = 4096, 80, 2048
LEAST_GRACE = 2.0
OUTPUT_BYTES = 10 * 1024


class Run:
    """A container that runs, or ran. ``folder`` holds what belongs to this run; ``place``: where its pod is."""

    def __init__(self, machine: Machine, spec: Manifest, folder: Path, place: Place) -> None:
        self.spec = spec
        self.folder = folder
        self.log = folder / "log"
        self.message = folder / "message"
        self.container = Container(machine.forker)
        self.started_at = time.time()
        self.exited = asyncio.Event()
        self.ended: Ended | None = None
        self.hurry: asyncio.Event = asyncio.Event()
        self.background: list[asyncio.Task[None]] = []
        self._machine = machine
        self._place = place
        self._process: dict[str, Any] = {}

    async def start(self, process: dict[str, Any]) -> None:
        """Start the process that the launcher's spec describes. Raises ``StartError``."""
        self._process = process
        await self.container.start(process, stdin=bool(self.spec.get("stdin")), network=self._place.namespace)

    def address(self) -> str:
        """The pod's IP."""
        return self._place.address

    async def wait(self, identity: str) -> Ended:
        """Return how it ended, once it has; ``finish`` is to follow when that is noted."""
        exit_ = await self.container.wait()
        for task in self.background:
            task.cancel()
        reason = "OOMKilled" if exit_.oom else "Completed" if exit_.code == 0 else "Error"
        message = self._last_words(failed=exit_.code != 0)
        return Ended(exit_.code, reason, message, self.started_at, time.time(), identity)

    async def finish(self, ended: Ended) -> None:
        """Tell those who wait for the end, and let go of what the run needed."""
        self.ended = ended
        self.exited.set()
        await self.container.close()
        await asyncio.to_thread(self._tidy)

    def _tidy(self) -> None:
        for name in ("tmp", "root"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def _last_words(self, *, failed: bool) -> str:
        """Return the termination message: the end of the file, or where asked for the end of the log."""
        try:
            with self.message.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - MESSAGE_BYTES))
                text = file.read().decode(errors="replace")
        except OSError:
            text = ""
        if not text and failed and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            return logs.last_lines(self.log, LOG_LINES, LOG_BYTES)
        return text

    # asking

    async def exec(self, command: list[str], fds: dict[str, int]) -> Command:
        """Start a command beside the container's process; ``StartError`` when that fails."""
        if self.container.ended:
            raise LookupError("container not found")
        spec = {key: self._process[key] for key in ("env", "cwd", "user")}
        argv = [rewritten(part, self._process.get("places") or {}) for part in command]
        return await self.container.exec({**spec, "argv": argv, "tty": "tty" in fds}, fds)

    async def run_command(self, command: list[str]) -> tuple[int, str]:
        """Run a command; return its exit code and the beginning of what it wrote. ``OSError``: it cannot be started."""
        with contextlib.ExitStack() as stack:
            nothing = stack.enter_context(open(os.devnull, "rb"))  # noqa: ASYNC230 - not a file that makes one wait
            output = stack.enter_context((self.folder / "probe").open("w+b", buffering=0))
            descriptors = {"stdin": nothing.fileno(), "stdout": output.fileno(), "stderr": output.fileno()}
            try:
                started = await self.exec(command, descriptors)
            except Exception as problem:
                raise OSError(str(problem)) from problem
            try:
                code = await started.wait()
            except asyncio.CancelledError:
                started.kill()
                raise
            output.seek(0)
            return code, output.read(OUTPUT_BYTES).decode(errors="replace")

    async def connect(self, host: str | None, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port of the pod, or of a host."""
        return await asyncio.open_connection(host or self._place.address, port)

    async def hook(self, name: str, timeout: float | None = None) -> str:
        """Run a lifecycle hook if there is one; return why it failed, or ""."""
        action = (self.spec.get("lifecycle") or {}).get(name)
        if not action:
            return ""
        try:
            async with asyncio.timeout(timeout):
                await perform(action, self)
        except (Refused, TimeoutError) as problem:
            return str(problem) or "timed out"
        return ""

    # stopping

    async def stop(
        self,
        grace: Callable[[], float],
        tell: Callable[[str, str], None],
        turn: Coroutine[Any, Any, None] | None = None,
    ) -> None:
        """End it: preStop, its turn, TERM, and KILL when the grace is over.

        ``grace``: the moment (of the loop's clock) by which it must have ended; asked again whenever ``hurry`` is set.
        ``tell``: writes a warning event. ``turn``: waits for the containers that must end first.
        """
        loop = asyncio.get_running_loop()
        try:
            if grace() > loop.time() and (why := await self._unless_ended(self.hook("preStop"), grace)):
                tell("FailedPreStopHook", f"PreStopHook failed: {why}")
            if turn is not None:
                waiting, turn = turn, None
                await self._unless_ended(waiting, grace)
        finally:
            if turn is not None:
                turn.close()
        least = loop.time() + LEAST_GRACE
        self.container.signal(self._stop_signal())
        await self._unless_ended(asyncio.Event().wait(), lambda: max(least, grace()))
        if not self.exited.is_set():
            self.container.signal(signal.SIGKILL)
            await self.exited.wait()

    def _stop_signal(self) -> int:
        name = (self.spec.get("lifecycle") or {}).get("stopSignal") or "SIGTERM"
        return int(getattr(signal, name, signal.SIGTERM))

    async def _unless_ended(self, doing: Coroutine[Any, Any, Any], until: Callable[[], float]) -> Any:
        """Wait for something until the container has ended or the time is over; return its result, or None."""
        loop = asyncio.get_running_loop()
        task, ended = asyncio.ensure_future(doing), asyncio.ensure_future(self.exited.wait())
        try:
            while not (task.done() or ended.done()) and (left := until() - loop.time()) > 0:
                self.hurry.clear()
                hurried = asyncio.ensure_future(self.hurry.wait())
                await asyncio.wait({task, ended, hurried}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                hurried.cancel()
            return task.result() if task.done() else None
        finally:
            task.cancel()
            ended.cancel()
