"""The one-machine cluster as one object: opening it serves the Kubernetes API, closing it leaves nothing behind.

One exit stack owns every file, socket and task. The scheduler, the controllers and the kubelet run as tasks of one task
group, in a task of this object: when one of them fails, the group ends the others and ``serve_until`` raises the error.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import socket
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

from kubelocal import owned_paths
from kubelocal.admission.plugins import ADMITTERS, mutators
from kubelocal.api.app import make_app
from kubelocal.api.server import ApiServer, listen
from kubelocal.auth.bootstrap_roles import BOOTSTRAP
from kubelocal.auth.certificates import issue
from kubelocal.auth.kubeconfig_file import SIGNATURE, kubeconfig, remove_kubeconfig, write_kubeconfig
from kubelocal.auth.rbac import Authorizer
from kubelocal.auth.service_account_tokens import TokenIssuer
from kubelocal.controllers.cron_job_controller import CronJobController
from kubelocal.controllers.endpoint_slice_controller import EndpointSliceController
from kubelocal.controllers.garbage_collector import GarbageCollector
from kubelocal.controllers.job_controller import JobController
from kubelocal.controllers.namespace_controller import SYSTEM_NAMESPACES, NamespaceController
from kubelocal.controllers.node_lifecycle_controller import NodeLifecycleController, set_ready
from kubelocal.controllers.quota_controller import QuotaController
from kubelocal.controllers.scheduler import Scheduler
from kubelocal.controllers.taint_eviction_controller import TaintEvictionController
from kubelocal.controllers.workload_controllers import ReplicaController
from kubelocal.injection import switch_on
from kubelocal.interfaces import Runtime
from kubelocal.kubelet import Kubelet, Network, NodeRuntimes, open_network
from kubelocal.kubelet.node_object import node_manifest
from kubelocal.owned_paths import Owner, write_new
from kubelocal.registry.generic_registry import ClusterRegistry
from kubelocal.settings import LocalSettings
from kubelocal.simulation.node_simulator import Simulator
from kubelocal.storage.state_file import StateFile
from kubelocal.storage.store import Store
from kubelocal.types import Manifest

__all__ = ["LocalCluster"]

_SHUTDOWN_MARGIN_S = 10.0
"""Seconds beyond the grace in which a node's pods are reported as ended."""

_Part: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
_log = logging.getLogger(__name__)


class LocalCluster:
    """A Kubernetes API on loopback, with a scheduler, a kubelet and the controllers, in the running event loop.

    ::

        async with LocalCluster(LocalSettings()) as cluster:
            print(cluster.url, cluster.kubeconfig)

    Clients use ``url`` and ``token``, or the files ``kubeconfig``, ``token_file`` and ``authority_file``.
    ``host_address``: this machine as its pods see it. ``kubelet``: of the first node that runs processes, None without
    one; evicts pods. ``kubelets``: all of them, by node. ``lose_node``, ``shut_down_node`` and ``recover_node`` play
    the failures of nodes.
    Raises ``SettingError`` on entry when the port is in use or a file of the settings cannot be read or written.
    """

    def __init__(self, settings: LocalSettings | None = None) -> None:
        self.settings = settings or LocalSettings()
        self.token = secrets.token_urlsafe(24)
        self._owner = Owner.this_process()
        # Versions begin above those of an earlier cluster on this port: its clients get 410 Expired and list again.
        store = Store(history_length=self.settings.history_length, begin=int(time.time()) * 1000)
        self.registry = ClusterRegistry(store, mutators(self.settings), ADMITTERS)
        self.host_address = self.settings.host
        self.kubelet: Kubelet | None = None
        self.kubelets: dict[str, Kubelet] = {}
        self._simulator: Simulator | None = None
        self._dead: set[str] = set()
        self._lifecycle = NodeLifecycleController(self.registry, self.settings.node_loss_time_scale)
        self._network: Network
        self._stack = contextlib.AsyncExitStack()
        self._parts: asyncio.Task[None]

    async def __aenter__(self) -> LocalCluster:
        """Start all parts and wait until the API answers."""
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
        """Wait until ``stop`` is set. Raises the error of a part that ends before."""
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((stopping, self._parts), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if self._parts.done():
            self._parts.result()
            raise RuntimeError("a part of the local cluster has ended")

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="crosswind-")))
        self.kubeconfig = (self.settings.kubeconfig or folder / "kubeconfig").absolute()
        # Fails early; the write below checks again, because another process may create the file meanwhile.
        owned_paths.check(self.kubeconfig, SIGNATURE, self._owner)
        if self.settings.pods_folder and not self.settings.simulate:
            owned_paths.check_folder(self.settings.pods_folder, SIGNATURE.command)
        listener = stack.enter_context(listen(self.settings.host, self.settings.port))
        port = listener.getsockname()[1]
        listeners = [listener]
        self._network = open_network(self.settings)
        stack.callback(self._network.close)
        self.host_address = self._network.host_address
        if self.host_address != self.settings.host:
            listeners.append(stack.enter_context(listen(self.host_address, port)))
        certificates = issue([self.settings.host, self.host_address])
        self.url = f"https://{_bracketed(self.settings.host)}:{port}"
        self.token_file, self.authority_file = folder / "token", folder / "ca.crt"
        write_new(self.token_file, self.token)
        write_new(self.authority_file, certificates.authority)
        write_new(folder / "server.pem", certificates.server + certificates.key)
        await self._open_parts(stack, listeners, certificates.authority, folder / "server.pem")
        # Last: a client that waits for this file finds a server that answers.
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
            QuotaController,
        )
        controllers = (namespaces.run, jobs.run, *(controller(registry).run for controller in others))
        taints = TaintEvictionController(registry, settings.node_loss_time_scale)
        parts = (*nodes, Scheduler(registry).run, self._lifecycle.run, taints.run, *controllers, *keeping)
        self._parts = asyncio.create_task(_run_all(parts))
        stack.push_async_callback(_cancelled, self._parts)
        app = make_app(registry, runtime, tokens.authenticate, Authorizer(registry), tokens)
        server = ApiServer(app, certificate)
        await server.open(listeners)
        stack.push_async_callback(server.close)

    def _restore(self, stack: contextlib.AsyncExitStack) -> list[_Part]:
        """Load the state file, if the settings name one; return the part that saves it."""
        if not self.settings.state_file:
            return []
        state = StateFile(self.settings.state_file, self._owner)
        state.load(self.registry.store)
        # The stack closes it last: statuses that the kubelet writes while it ends belong to the state.
        stack.callback(state.close, self.registry.store)
        return [functools.partial(state.run, self.registry.store)]

    def _nodes(self, tokens: TokenIssuer) -> tuple[list[_Part], Runtime]:
        """Return the parts that run pods and the runtime that streams from them."""
        settings, port = self.settings, int(self.url.rpartition(":")[2])
        count = settings.nodes if settings.nodes is not None else 0 if settings.simulate else 1
        parts: list[_Part] = []
        for number in range(1, count + 1):
            own = settings if number == 1 else _further(settings, number)
            self._ensure(node_manifest(own, settings.host))
            set_ready(self.registry, own.node_name, "True", "KubeletReady", "kubelet is posting ready status")
            kubelet = Kubelet(self.registry, own, tokens, port, self._network, self.kubelet)
            self.kubelet = self.kubelet or kubelet
            self.kubelets[own.node_name] = kubelet
            parts.append(kubelet.run)
        if settings.simulate:
            self._simulator = Simulator(self.registry, settings, self.kubelets.keys())
            parts.append(self._simulator.run)
        return parts, NodeRuntimes(self.kubelets)

    # nodes that fail

    async def shut_down_node(self, name: str = "", *, grace: float = 30.0) -> None:
        """Shut a node down gracefully, by default the first one, and switch it off once its pods have ended.

        Its pods end within ``grace`` seconds: phase Failed, condition DisruptionTarget, reason TerminationByKubelet.
        Raises ``LookupError`` for an unknown node, as the methods below.
        """
        name = name or self.settings.node_name
        if kubelet := self.kubelets.get(name):
            kubelet.shut_down(grace)
        else:
            self._simulated(name).shut_down(name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace + _SHUTDOWN_MARGIN_S):
                await self._pods_ended(name)
        self.lose_node(name)

    def lose_node(self, name: str = "", *, dead: bool = True) -> None:
        """Lose a node, by default the first one: it neither reports nor obeys until ``recover_node``.

        ``dead``: its processes end, as without power; else they go on, as behind a broken network. Its pods stay in the
        API. After 50 to 55 s times ``node_loss_time_scale`` the node turns Unknown and is tainted.
        """
        name = name or self.settings.node_name
        if kubelet := self.kubelets.get(name):
            kubelet.lose(dead=dead)
        else:
            self._simulated(name).lose(name)
        if dead:
            self._dead.add(name)
        self._lifecycle.heartbeats_stop(name)

    def recover_node(self, name: str = "") -> None:
        """Recover a lost node: its kubelet reports the state of its pods and ends those that are being deleted."""
        name = name or self.settings.node_name
        self._lifecycle.heartbeats_resume(name)
        if kubelet := self.kubelets.get(name):
            kubelet.find()
        else:
            self._simulated(name).find(name, dead=name in self._dead)
        self._dead.discard(name)

    def _simulated(self, name: str) -> Simulator:
        if self._simulator is None or self.registry.store.get("Node", "", name) is None:
            raise LookupError(f"the cluster has no node {name}")
        return self._simulator

    async def _pods_ended(self, node: str) -> None:
        """Wait until no pod of a node can have running containers."""
        live = {pod["metadata"]["uid"] for pod in self.registry.list("Pod") if _is_live(pod, node)}
        with contextlib.closing(self.registry.watch("Pod")) as changes:
            while live:
                change = await anext(aiter(changes))
                if change.type == "DELETED" or not _is_live(change.object, node):
                    live.discard(change.object["metadata"]["uid"])

    def _ensure(self, manifest: Manifest) -> None:
        """Create a cluster-wide object unless the restored state holds it."""
        if self.registry.store.get(manifest["kind"], "", manifest["metadata"]["name"]) is None:
            self.registry.create(manifest["kind"], "", manifest)


def _further(settings: LocalSettings, number: int) -> LocalSettings:
    """Return the settings of one more node: a name and folders of its own."""
    return replace(settings, node_name=f"{settings.node_name}-worker{number}", pods_folder=None)


def _is_live(pod: Manifest, node: str) -> bool:
    return pod["spec"].get("nodeName") == node and pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _namespace(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


async def _run_all(parts: Sequence[_Part]) -> None:
    async with asyncio.TaskGroup() as group:
        for part in parts:
            group.create_task(part())


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled() and (problem := task.exception()):
        _log.error("a part of the local cluster failed", exc_info=problem)
