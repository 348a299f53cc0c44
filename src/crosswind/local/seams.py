"""The two seams inside the one-machine cluster, so that its parts can be built and tested side by side.

``Registry`` is what the scheduler, the kubelet and the controllers see of the API: the same objects and rules as over
HTTP, without HTTP, with all rights. ``Runtime`` is what the API sees of the kubelet: streams into running containers.
Objects handed out are shared with the history: never change one in place; ``update`` hands a copy to change.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from crosswind.types import Manifest

__all__ = ["Change", "LogOptions", "Process", "Registry", "Runtime", "Subscription"]


@dataclass(frozen=True, slots=True)
class Change:
    """One step in the life of an object; for DELETED ``object`` is the last state."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: Manifest


class Subscription(Protocol):
    """An endless stream of changes; first an ADDED for each object that is there. Close it when done."""

    def __aiter__(self) -> AsyncIterator[Change]:
        """Iterate over the changes in the order in which they were stored."""
        ...

    def close(self) -> None:
        """End the iteration."""
        ...


class Registry(Protocol):
    """The objects of the cluster. ``kind`` is the Kubernetes kind (``Pod``); cluster-wide kinds take namespace "".

    Synchronous: nothing waits, all is in memory. Raises ``crosswind.local.statuses.StatusError`` where HTTP would
    answer with a Status: NotFound, AlreadyExists, Invalid and so on.
    """

    def get(self, kind: str, namespace: str, name: str) -> Manifest:
        """Return an object."""
        ...

    def list(self, kind: str, namespace: str | None = None) -> list[Manifest]:
        """Return all objects of a kind, of one namespace or (None) of all."""
        ...

    def create(self, kind: str, namespace: str, manifest: Manifest) -> Manifest:
        """Default, validate, admit and store a new object."""
        ...

    def update(
        self, kind: str, namespace: str, name: str, change: Callable[[Manifest], None], *, subresource: str = ""
    ) -> Manifest:
        """Let ``change`` work on a deep copy and store the outcome; nothing happens when it changed nothing.

        ``subresource="status"`` stores the status alone, "" everything, without the immutability checks of HTTP.
        """
        ...

    def delete(
        self, kind: str, namespace: str, name: str, *, uid: str | None = None, grace_period: int | None = None
    ) -> Manifest | None:
        """Delete as over HTTP: a pod on a node is only marked (deletionTimestamp) and goes with ``remove``."""
        ...

    def remove(self, kind: str, namespace: str, name: str, *, uid: str) -> None:
        """Take a marked object away, unless finalizers hold it: the kubelet's last word on a pod."""
        ...

    def watch(self, kind: str, namespace: str | None = None) -> Subscription:
        """Follow a kind."""
        ...

    def record(
        self,
        about: Manifest,
        reason: str,
        message: str,
        *,
        warning: bool = False,
        component: str = "kubelet",
        field_path: str = "",
    ) -> None:
        """Store an Event about an object, counting repeats up as Kubernetes does."""
        ...


@dataclass(frozen=True, slots=True)
class LogOptions:
    """The query of ``pods/log``. Seconds and bytes; None is no limit."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since_seconds: int | None = None
    since_time: str | None = None
    limit_bytes: int | None = None


class Process(Protocol):
    """A command that runs in a container, or (attach) the container's own process."""

    stdin: asyncio.StreamWriter | None
    stdout: asyncio.StreamReader | None
    stderr: asyncio.StreamReader | None

    async def wait(self) -> int:
        """Return the exit code; 128 + number for a signal."""
        ...

    def resize(self, columns: int, rows: int) -> None:
        """Tell a tty its size; nothing without one."""
        ...

    def close(self) -> None:
        """The client is gone: end an exec'ed command, let an attached one be."""
        ...


class Runtime(Protocol):
    """Streams into the containers of this node. Raises ``LookupError`` for a container that does not run (any more)."""

    def log(self, pod: Manifest, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        """Yield the log in chunks; with ``follow`` until the container has ended for good."""
        ...

    async def exec(self, pod: Manifest, container: str, command: list[str], *, stdin: bool, tty: bool) -> Process:
        """Start a command beside the container's process, in its namespaces, environment and directory.

        ``FileNotFoundError``: there is no such command.
        """
        ...

    async def attach(self, pod: Manifest, container: str, *, stdin: bool) -> Process:
        """Join the container's own output from now on."""
        ...

    async def dial(self, pod: Manifest, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port of the pod, as from inside (``localhost``). ``OSError``: nobody listens."""
        ...
