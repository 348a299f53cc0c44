"""The two interfaces between the parts of the cluster, so that each part can be tested alone.

``Registry`` is the API as the scheduler, the kubelet and the controllers use it: the objects and rules of the HTTP API,
called directly and with all permissions. ``Runtime`` is the kubelet as the API uses it: streams into containers.
Returned objects are shared with the watch history: never change one in place; ``update`` passes a copy to change.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from kubelocal.types import Manifest

__all__ = ["Change", "PodLogOptions", "Process", "Registry", "Runtime", "Subscription"]


@dataclass(frozen=True, slots=True)
class Change:
    """A watch event; for DELETED ``object`` is the last state."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: Manifest


class Subscription(Protocol):
    """A watch without end: an ADDED for each existing object, then every change. The caller closes it."""

    def __aiter__(self) -> AsyncIterator[Change]:
        """Iterate over the changes in the order in which they were stored."""
        ...

    def close(self) -> None:
        """End the iteration."""
        ...


class Registry(Protocol):
    """The objects of the cluster. ``kind`` is the Kubernetes kind (``Pod``); cluster-scoped kinds take namespace "".

    Synchronous, because all objects are in memory. Raises ``kubelocal.codec.status_errors.StatusError`` where the HTTP
    API answers with a Status: NotFound, AlreadyExists, Invalid and so on.
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
        """Apply ``change`` to a deep copy and store the result; an unchanged object is not stored.

        ``subresource="status"`` stores the status alone, "" the whole object, without HTTP's immutability checks.
        """
        ...

    def delete(
        self, kind: str, namespace: str, name: str, *, uid: str | None = None, grace_period: int | None = None
    ) -> Manifest | None:
        """Delete as over HTTP: a pod on a node only gets a deletionTimestamp, until the kubelet calls ``remove``."""
        ...

    def remove(self, kind: str, namespace: str, name: str, *, uid: str) -> None:
        """Remove an object that has a deletionTimestamp and no finalizers: the kubelet's last step for a pod."""
        ...

    def watch(self, kind: str, namespace: str | None = None) -> Subscription:
        """Watch a kind, in one namespace or (None) in all."""
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
        """Store an Event about an object; a repeated one increments its count, as in Kubernetes."""
        ...


@dataclass(frozen=True, slots=True)
class PodLogOptions:
    """The query of ``pods/log``, in seconds and bytes; None means no limit."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since_seconds: int | None = None
    since_time: str | None = None
    limit_bytes: int | None = None


class Process(Protocol):
    """An exec'ed command in a container, or (attach) the container's main process."""

    stdin: asyncio.StreamWriter | None
    stdout: asyncio.StreamReader | None
    stderr: asyncio.StreamReader | None

    async def wait(self) -> int:
        """Return the exit code; 128 + number for a signal."""
        ...

    def resize(self, columns: int, rows: int) -> None:
        """Set the size of the tty, if there is one."""
        ...

    def close(self) -> None:
        """End an exec'ed command, or detach from the main process: the client has disconnected."""
        ...


class Runtime(Protocol):
    """Streams into the containers of this node.

    Raises ``LookupError`` for a container that does not run, ``ConnectionError`` when the node does not answer.
    """

    def log(self, pod: Manifest, container: str, options: PodLogOptions) -> AsyncIterator[bytes]:
        """Yield the log in chunks; with ``follow`` until the container has ended and will not restart."""
        ...

    async def exec(self, pod: Manifest, container: str, command: list[str], *, stdin: bool, tty: bool) -> Process:
        """Start a command in the container's namespaces, environment and working directory.

        Raises ``FileNotFoundError`` for an unknown command.
        """
        ...

    async def attach(self, pod: Manifest, container: str, *, stdin: bool) -> Process:
        """Attach to the main process: its output from now on."""
        ...

    async def dial(self, pod: Manifest, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port of the pod's ``localhost``. Raises ``OSError`` when nothing listens there."""
        ...
