"""The one-machine cluster as one object: opened it serves the Kubernetes API, closed it has left nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import uvicorn

from crosswind import ownership
from crosswind.errors import ConfigError
from crosswind.local import quota
from crosswind.local.admission import ADMITTERS, mutators
from crosswind.local.app import Api, make_app
from crosswind.local.authorization import BOOTSTRAP, Authorizer
from crosswind.local.certificates import issue
from crosswind.local.cron_jobs import CronJobController
from crosswind.local.garbage import GarbageCollector
from crosswind.local.injection import switch_on
from crosswind.local.jobs import JobController
from crosswind.local.kubeconfigs import MARK, kubeconfig, remove_kubeconfig, write_kubeconfig
from crosswind.local.kubelet import Kubelet, Network, open_network
from crosswind.local.namespaces import SYSTEM_NAMESPACES, NamespaceController
from crosswind.local.nodes import node_manifest
from crosswind.local.persistence import StateFile
from crosswind.local.registry import ClusterRegistry
from crosswind.local.replicating import ReplicaController
from crosswind.local.scheduling import Scheduler
from crosswind.local.seams import LogOptions, Process, Runtime
from crosswind.local.simulating import Simulator
from crosswind.local.slicing import EndpointSliceController
from crosswind.local.store import Store
from crosswind.local.tokens import TokenIssuer
from crosswind.local.upgrading import UpgradingWebSocket
from crosswind.ownership import Owner, write_new
from crosswind.settings import LocalSettings
from crosswind.types import Manifest

__all__ = ["LocalCluster"]

BACKLOG = 2048
"""Connections that may wait to be accepted: a load test opens hundreds at once."""

_LAST_WORDS_S = 0.05
_Part: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
_log = logging.getLogger(__name__)


class LocalCluster:
    """A Kubernetes API on loopback, with a scheduler, a kubelet and the controllers, in the running event loop.

    ::

        async with LocalCluster(LocalSettings()) as cluster:
            print(cluster.url, cluster.kubeconfig)

    How to reach it: ``url``, ``token`` and, as files, ``kubeconfig``, ``token_file``, ``authority_file``.
    ``host_address``: this machine as its pods see it. ``kubelet``: to evict pods or lose the node; None when simulated.
    Raises ``ConfigError`` on entry: the port is taken, a file of the settings cannot be read or written.
    """

    def __init__(self, settings: LocalSettings | None = None) -> None:
        self.settings = settings or LocalSettings()
        self.token = secrets.token_urlsafe(24)
        self._owner = Owner.this_process()
        # versions begin above those of an earlier cluster, so that a client of that one is told to list again
        store = Store(history_length=self.settings.history_length, begin=int(time.time()) * 1000)
        self.registry = ClusterRegistry(store, mutators(self.settings), ADMITTERS)
        self.host_address = self.settings.host
        self.kubelet: Kubelet | None = None
        self._network: Network
        self._stack = contextlib.AsyncExitStack()
        self._parts: asyncio.Task[None]

    async def __aenter__(self) -> LocalCluster:
        """Build, start and wait until the API answers."""
        async with contextlib.AsyncExitStack() as stack:
            await self._open(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End every process, task and connection."""
        await self._stack.aclose()

    async def serve_until(self, stop: asyncio.Event) -> None:
        """Wait until ``stop`` is set. Raises what ended a part of the cluster, should one end before."""
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((stopping, self._parts), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if self._parts.done():
            self._parts.result()
            raise RuntimeError("a part of the local cluster has ended")

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crosswind-")))
        self.kubeconfig = (self.settings.kubeconfig or folder / "kubeconfig").absolute()
        # Before anything starts; it is checked again when it is written, for others may have been faster.
        ownership.check(self.kubeconfig, MARK, self._owner)
        if self.settings.pods_folder and not self.settings.simulate:
            ownership.check_folder(self.settings.pods_folder, MARK.command)
        listener = stack.enter_context(_listen(self.settings.host, self.settings.port))
        port = listener.getsockname()[1]
        listeners = [listener]
        self._network = open_network(self.settings)
        stack.callback(self._network.close)
        self.host_address = self._network.host_address
        if self.host_address != self.settings.host:
            listeners.append(stack.enter_context(_listen(self.host_address, port)))
        certificates = issue([self.settings.host, self.host_address])
        self.url = f"https://{_bracketed(self.settings.host)}:{port}"
        self.token_file, self.authority_file = folder / "token", folder / "ca.crt"
        write_new(self.token_file, self.token)
        write_new(self.authority_file, certificates.authority)
        write_new(folder / "server.pem", certificates.server + certificates.key)
        await self._open_parts(stack, listeners, certificates.authority, folder / "server.pem")
        # Last, so that whoever waits for the file finds a server that answers.
        config = kubeconfig(self.url, self.token, certificates.authority, self.settings.name or "local")
        write_kubeconfig(self.kubeconfig, config, self._owner)
        stack.callback(remove_kubeconfig, self.kubeconfig, self._owner)

    async def _open_parts(
        self, stack: contextlib.AsyncExitStack, listeners: list[socket.socket], authority: str, certificate: Path
    ) -> None:
        registry, settings = self.registry, self.settings
        keeping = self._restore(stack)
        namespaces = NamespaceController(registry, authority)
        for manifest in (*map(_namespace, SYSTEM_NAMESPACES), *BOOTSTRAP):
            self._ensure(manifest)
        for name in SYSTEM_NAMESPACES:
            namespaces.furnish(name)
        registry.update("Namespace", "", "default", lambda default: switch_on(default, settings.inject))
        tokens = TokenIssuer(registry, self.token)
        nodes, runtime = self._nodes(tokens)
        jobs = JobController(registry, backoff=settings.job_backoff)
        others = (
            ReplicaController,
            CronJobController,
            EndpointSliceController,
            GarbageCollector,
            quota.QuotaController,
        )
        controllers = (namespaces.run, jobs.run, *(one(registry).run for one in others))
        parts = (nodes, Scheduler(registry).run, *controllers, *keeping)
        self._parts = asyncio.create_task(_run_all(parts))
        stack.push_async_callback(_cancelled, self._parts)
        app = make_app(registry, runtime, tokens.authenticate, Authorizer(registry), tokens)
        server = _Server(app, certificate)
        await server.open(listeners)
        stack.push_async_callback(server.close)

    def _restore(self, stack: contextlib.AsyncExitStack) -> list[_Part]:
        """Load the kept state, if there is to be one; return what keeps it."""
        if not self.settings.state_file:
            return []
        state = StateFile(self.settings.state_file, self._owner)
        state.load(self.registry.store)
        # closed last: what the kubelet says while it ends belongs to the state
        stack.callback(state.close, self.registry.store)
        return [functools.partial(state.run, self.registry.store)]

    def _nodes(self, tokens: TokenIssuer) -> tuple[_Part, Runtime]:
        """Return what runs pods, and what streams from them."""
        if self.settings.simulate:
            return Simulator(self.registry, self.settings).run, NoRuntime()
        self._ensure(node_manifest(self.settings, self.settings.host))
        port = int(self.url.rpartition(":")[2])
        kubelet = Kubelet(self.registry, self.settings, tokens, port, self._network)
        self.kubelet = kubelet
        return kubelet.run, kubelet

    def _ensure(self, manifest: Manifest) -> None:
        """Create a cluster-wide object that a kept state may hold already."""
        if self.registry.store.get(manifest["kind"], "", manifest["metadata"]["name"]) is None:
            self.registry.create(manifest["kind"], "", manifest)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _namespace(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


class NoRuntime:
    """The streams of simulated nodes: there is nothing to stream from."""

    async def log(self, pod: Manifest, container: str, options: LogOptions) -> AsyncIterator[bytes]:
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


class _Server(uvicorn.Server):
    """A uvicorn that leaves signals alone and does not wait for streams that have no end."""

    def __init__(self, app: Api, certificate: Path) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws=UpgradingWebSocket,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                ws_per_message_deflate=False,
                ws_ping_interval=None,
                ssl_certfile=certificate,
                ssl_keyfile=certificate,
                # longer than clients keep idle connections, so that they, not we, close them
                timeout_keep_alive=600,
                timeout_graceful_shutdown=2,
            )
        )
        self._app = app
        self._listening = asyncio.Event()
        self._task: asyncio.Task[None]

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        """Leave signals to the program that we are part of."""
        return contextlib.nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self._listening.set()

    async def open(self, listeners: list[socket.socket]) -> None:
        """Serve from now on."""
        self._task = asyncio.create_task(self.serve(listeners))
        await self._listening.wait()

    async def close(self) -> None:
        """End every watch and connection, then the server."""
        self.should_exit = True
        await self._task

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let answers under way out, for a moment; then cut what clients hold open."""
        self._app.close()
        await asyncio.sleep(_LAST_WORDS_S)
        for connection in list(self.server_state.connections):
            if not connection.transport.is_closing():  # a second close would make abort powerless under TLS
                connection.transport.close()
        await asyncio.sleep(_LAST_WORDS_S)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


@contextlib.contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches Nagle's delays off (40 ms a reply) only where the protocol is named
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as problem:
            why = f"cannot serve on {host}:{port}: {problem.strerror}; leave the port out for a free one"
            raise ConfigError(why) from problem
        yield listener


async def _run_all(parts: Sequence[_Part]) -> None:
    async with asyncio.TaskGroup() as group:
        for part in parts:
            group.create_task(part())


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled() and (problem := task.exception()):
        _log.error("a part of the local cluster failed", exc_info=problem)
