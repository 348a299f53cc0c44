"""One run of one container: start, probes, hooks, stop, and the report of its end.

The run starts no task that outlives a call. Its pod's worker owns the task that waits for the end, and the probes in
``background``, which ``wait`` cancels at the end of the container. ``stop`` may be cancelled: the container then runs
on, and the worker closes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from kubelocal.kubelet import container_logs
from kubelocal.kubelet.containers import Command, ContainerProcess
from kubelocal.kubelet.node_context import NodeContext, rewritten
from kubelocal.kubelet.pod_actions import ContainerEnd
from kubelocal.kubelet.pod_network import PodAddress
from kubelocal.kubelet.probes import ProbeFailed, run_hook
from kubelocal.types import Manifest

__all__ = ["ContainerRun"]

MESSAGE_BYTES, LOG_LINES, LOG_BYTES = 4096, 80, 2048
MIN_GRACE_PERIOD_S = 2.0
OUTPUT_BYTES = 10 * 1024


class ContainerRun:
    """A container that runs, or ran. ``folder`` holds what belongs to this run; ``place``: where its pod is."""

    def __init__(self, context: NodeContext, spec: Manifest, folder: Path, place: PodAddress) -> None:
        self.spec = spec
        self.folder = folder
        self.log = folder / "log"
        self.message = folder / "message"
        self.container = ContainerProcess(context.forker)
        self.started_at = time.time()
        self.exited = asyncio.Event()
        self.ended: ContainerEnd | None = None
        # Set when the grace is shortened, by a second deletion with less: stop then looks at its deadline again.
        self.grace_shortened: asyncio.Event = asyncio.Event()
        self.background: list[asyncio.Task[None]] = []
        self._context = context
        self._place = place
        self._process: dict[str, Any] = {}

    async def start(self, process: dict[str, Any]) -> None:
        """Start the process that the launcher's spec describes. Raises ``StartError``."""
        self._process = process
        await self.container.start(process, stdin=bool(self.spec.get("stdin")), network=self._place.namespace)

    def address(self) -> str:
        """The pod's IP."""
        return self._place.address

    async def wait(self, identity: str) -> ContainerEnd:
        """Return how it ended, once it has; ``finish`` is to follow when that is noted."""
        exit_ = await self.container.wait()
        # Probes of a container that has ended would fail, and their events would hide why it ended.
        for task in self.background:
            task.cancel()
        reason = "OOMKilled" if exit_.oom else "Completed" if exit_.code == 0 else "Error"
        message = self._last_words(failed=exit_.code != 0)
        return ContainerEnd(exit_.code, reason, message, self.started_at, time.time(), identity)

    async def finish(self, ended: ContainerEnd) -> None:
        """Wake all that wait for the end, and free what the run needed."""
        self.ended = ended
        # After the status is noted: those that wait for the end read it.
        self.exited.set()
        await self.container.close()
        # A root file system may hold thousands of files, which would stop the loop for a second.
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
            return container_logs.last_lines(self.log, LOG_LINES, LOG_BYTES)
        return text

    # asking

    async def exec(self, command: list[str], fds: dict[str, int]) -> Command:
        """Start a command beside the container's process; ``StartError`` when that fails."""
        if self.container.ended:
            raise LookupError("container not found")
        # The main process's: an exec takes user, variables and folder from the container, as CRI does.
        spec = {key: self._process[key] for key in ("env", "cwd", "user")}
        argv = [rewritten(part, self._process.get("places") or {}) for part in command]
        return await self.container.exec({**spec, "argv": argv, "tty": "tty" in fds}, fds)

    async def run_command(self, command: list[str]) -> tuple[int, str]:
        """Run a command; return its exit code and the beginning of what it wrote. ``OSError``: it cannot be started."""
        with contextlib.ExitStack() as stack:
            nothing = stack.enter_context(open(os.devnull, "rb"))  # noqa: ASYNC230 - not a file that makes one wait
            # A file of its own, because probes and hooks run side by side.
            output = stack.enter_context(tempfile.TemporaryFile(dir=self.folder, buffering=0))
            os.fchmod(output.fileno(), 0o666)  # a command of another user may open its standard output anew
            descriptors = {"stdin": nothing.fileno(), "stdout": output.fileno(), "stderr": output.fileno()}
            try:
                started = await self.exec(command, descriptors)
            except Exception as problem:
                raise OSError(str(problem)) from problem
            try:
                code = await started.wait()
            except asyncio.CancelledError:
                # The probe's time is over: the kubelet ends the command, unlike one of a client that has gone away.
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
                await run_hook(action, self)
        except (ProbeFailed, TimeoutError) as problem:
            return str(problem) or "timed out"
        return ""

    # stopping

    async def stop(
        self,
        grace: Callable[[], float],
        warn: Callable[[str, str], None],
        turn: Coroutine[Any, Any, None] | None = None,
    ) -> None:
        """End it: preStop, its turn, TERM, and KILL when the grace is over.

        ``grace``: the moment (of the loop's clock) by which it must have ended; asked again whenever
        ``grace_shortened`` is set.
        ``warn``: writes a warning event. ``turn``: waits for the containers that must end first.
        """
        loop = asyncio.get_running_loop()
        try:
            # With no grace left the kubelet skips preStop and goes on with the signal.
            if grace() > loop.time() and (why := await self._unless_ended(self.hook("preStop"), grace)):
                warn("FailedPreStopHook", f"PreStopHook failed: {why}")
            if turn is not None:
                waiting, turn = turn, None
                await self._unless_ended(waiting, grace)
        finally:
            if turn is not None:
                # A coroutine that nobody awaits makes Python warn.
                turn.close()
        # The kubelet gives at least two seconds to react to the signal (kuberuntime's minimumGracePeriodInSeconds).
        least = loop.time() + MIN_GRACE_PERIOD_S
        self.container.signal(self._stop_signal())
        # An event that never comes: only the end or the deadline ends this wait.
        await self._unless_ended(asyncio.Event().wait(), lambda: max(least, grace()))
        if not self.exited.is_set():
            self.container.signal(signal.SIGKILL)
            # Without a limit: KILL works, or the disk is broken and the pod stays, as in Kubernetes. Set by the
            # worker's task, which runs on.
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
                # Before the deadline is read again by the loop's condition, so that no change between the two is lost.
                self.grace_shortened.clear()
                hurried = asyncio.ensure_future(self.grace_shortened.wait())
                await asyncio.wait({task, ended, hurried}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                hurried.cancel()
            return task.result() if task.done() else None
        finally:
            task.cancel()
            ended.cancel()
