"""The kubelet: watches the pods of its node, runs a worker for each, and opens streams into their containers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path

from crosswind.local.injection.owners import Owners
from crosswind.local.kubelet.containers import StartError
from crosswind.local.kubelet.logs import read_log
from crosswind.local.kubelet.machine import Machine, Tokens
from crosswind.local.kubelet.network import Network, SharedNetwork
from crosswind.local.kubelet.proxying import ServiceProxy
from crosswind.local.kubelet.running import Run
from crosswind.local.kubelet.streams import Streams, attach, execute
from crosswind.local.kubelet.working import PodWorker
from crosswind.local.seams import Change, LogOptions, Registry
from crosswind.local.statuses import StatusError
from crosswind.settings import LocalSettings
from crosswind.types import Manifest

__all__ = ["Kubelet"]

_log = logging.getLogger(__name__)


class Kubelet:
    """Runs the pods that are bound to ``settings.node_name`` as processes; implements ``seams.Runtime``.

    ``tokens``: issues service-account tokens; None leaves them empty. ``api_port``: what pods are told as
    KUBERNETES_SERVICE_PORT. ``network``: how pods are reached, closed by who opened it; None shares the machine's.
    """

    def __init__(
        self,
        registry: Registry,
        settings: LocalSettings,
        tokens: Tokens | None = None,
        api_port: int = 443,
        network: Network | None = None,
    ) -> None:
        self.machine = Machine(registry, settings, tokens, network or SharedNetwork(settings.host), api_port)
        self._workers: dict[str, PodWorker] = {}
        self._proxy = ServiceProxy(registry, self.machine.network, self._names_changed)
        self.machine.names = self._proxy.lines
        self._found = asyncio.Event()
        self._found.set()

    async def run(self) -> None:
        """Work until cancelled; then no process of a container is left."""
        async with self.machine, asyncio.TaskGroup() as group:
            for kind in ("Secret", "ConfigMap"):
                group.create_task(self._watch_objects(kind))
            # here, because one of them is a part of the node, and without processes there is nothing to end
            group.create_task(Owners(self.machine.registry, self).run())
            group.create_task(self._proxy.run())
            with contextlib.closing(self.machine.registry.watch("Pod")) as changes:
                async for change in changes:
                    await self._found.wait()
                    self._take(change, group)

    def _take(self, change: Change, group: asyncio.TaskGroup) -> None:
        pod = change.object
        uid = pod["metadata"]["uid"]
        worker = self._workers.get(uid)
        if change.type == "DELETED":
            if worker is not None:
                worker.gone(pod)
        elif worker is not None:
            worker.update(pod)
        elif pod["spec"].get("nodeName") == self.machine.settings.node_name:
            worker = self._workers[uid] = PodWorker(self.machine, pod)
            group.create_task(self._work(uid, worker))

    async def _work(self, uid: str, worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception:
            _log.exception("pod %s: the kubelet gave up on it", worker.pod["metadata"]["name"])
        finally:
            del self._workers[uid]

    async def _watch_objects(self, kind: str) -> None:
        """Have pods that wait for a Secret or ConfigMap look again."""
        with contextlib.closing(self.machine.registry.watch(kind)) as changes:
            async for change in changes:
                metadata = change.object["metadata"]
                for worker in self._workers.values():
                    if worker.pod["metadata"]["namespace"] == metadata["namespace"]:
                        worker.nudge()

    def _names_changed(self) -> None:
        for worker in self._workers.values():
            worker.names_changed()

    # on request

    def evict(self, namespace: str, name: str, message: str) -> None:
        """End a pod as under node pressure: phase Failed, reason Evicted. ``LookupError``: it is not here."""
        worker = self._worker(namespace, name)
        worker.evict(message)

    def lose(self) -> None:
        """Lose the node: it no longer reports nor obeys, as after a power cut; its pods turn not ready."""
        self._found.clear()
        self._set_node_ready("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
        for worker in self._workers.values():
            worker.lose()

    def find(self) -> None:
        """Have a lost node back: it reports and obeys again."""
        self._set_node_ready("True", "KubeletReady", "kubelet is posting ready status")
        for worker in self._workers.values():
            worker.find()
        self._found.set()

    def _set_node_ready(self, status: str, reason: str, message: str) -> None:
        def change(node: Manifest) -> None:
            for condition in node.get("status", {}).get("conditions") or ():
                if condition["type"] == "Ready":
                    condition |= {"status": status, "reason": reason, "message": message}

        with contextlib.suppress(StatusError):
            self.machine.registry.update("Node", "", self.machine.settings.node_name, change, subresource="status")

    def _worker(self, namespace: str, name: str) -> PodWorker:
        for worker in self._workers.values():
            metadata = worker.pod["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, name) and not worker.removed:
                return worker
        raise LookupError(f"pod {namespace}/{name} is not on this node")

    def volume(self, pod: Manifest, name: str) -> Path:
        """Return the folder of a pod's volume, as the node's part of a CSI driver finds it. ``LookupError``: gone."""
        return self._of(pod).folder / "volumes" / name

    # seams.Runtime

    def log(self, pod: Manifest, container: str, options: LogOptions) -> AsyncIterator[bytes]:
        """Yield a log in chunks; with ``follow`` until the container has ended."""
        worker = self._of(pod)
        path, run = worker.log_of(container, previous=options.previous)
        # the container tells its listeners before the run has taken note of the end
        over = lambda: run is None or run.container.ended or run.container.ended  # noqa: E731
        return read_log(path, options, over, _listener(run))

    async def exec(self, pod: Manifest, container: str, command: list[str], *, stdin: bool, tty: bool) -> Streams:
        """Start a command beside the container's process."""
        run = self._running(pod, container)
        try:
            return await execute(run, command, stdin=stdin, tty=tty)
        except StartError as problem:
            if problem.number == errno.ESRCH:
                raise LookupError(str(problem)) from problem
            raise OSError(problem.number, str(problem)) from problem

    async def attach(self, pod: Manifest, container: str, *, stdin: bool) -> Streams:
        """Join the container's own output from now on."""
        return await attach(self._running(pod, container), stdin=stdin)

    async def dial(self, pod: Manifest, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port of the pod as from inside."""
        worker = self._of(pod)
        if worker.place is None:
            raise LookupError("the pod has no network")
        return await self.machine.network.dial(worker.place, port)

    def _of(self, pod: Manifest) -> PodWorker:
        worker = self._workers.get(pod["metadata"]["uid"])
        if worker is None:
            raise LookupError("pod not found")
        return worker

    def _running(self, pod: Manifest, container: str) -> Run:
        run = self._of(pod).runs.get(container)
        if run is None or run.exited.is_set():
            raise LookupError("container not found")
        return run


def _listener(run: Run | None) -> Callable[[Callable[[], None]], AbstractContextManager[None]]:
    return run.container.listening if run is not None else lambda _: contextlib.nullcontext()
