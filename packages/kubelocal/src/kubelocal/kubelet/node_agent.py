"""The kubelet: watches the pods of its node, runs a worker for each, and opens streams into their containers.

``Kubelet.run`` owns all tasks, in one task group: a watch per kind, the relays of Services, and a worker per pod. It
ends by cancellation alone; a worker that fails is logged, and its pod fails alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from kubelocal.controllers.node_lifecycle_controller import set_ready
from kubelocal.controllers.scheduler_filters import capacity_of, request_of
from kubelocal.injection.external_stop import ExternalStopper
from kubelocal.interfaces import Change, PodLogOptions, Registry
from kubelocal.kubelet.container_logs import read_log
from kubelocal.kubelet.container_run import ContainerRun
from kubelocal.kubelet.containers import StartError
from kubelocal.kubelet.exec_streams import Streams, attach, execute
from kubelocal.kubelet.node_context import NodeContext, Tokens
from kubelocal.kubelet.pod_admission import rejection
from kubelocal.kubelet.pod_network import Network, SharedNetwork
from kubelocal.kubelet.pod_worker import PodWorker
from kubelocal.kubelet.service_proxy import ServiceProxy
from kubelocal.settings import LocalSettings
from kubelocal.types import Manifest

__all__ = ["Kubelet"]

_log = logging.getLogger(__name__)


class Kubelet:
    """Runs the pods that are bound to ``settings.node_name`` as processes; implements ``interfaces.Runtime``.

    ``tokens``: issues service-account tokens; None leaves them empty. ``api_port``: given to pods as
    KUBERNETES_SERVICE_PORT. ``network``: how pods are reached, closed by who opened it; None shares the machine's.
    ``first``: the kubelet of another node of the cluster, whose Service proxy and claims this one shares.
    """

    def __init__(
        self,
        registry: Registry,
        settings: LocalSettings,
        tokens: Tokens | None = None,
        api_port: int = 443,
        network: Network | None = None,
        first: Kubelet | None = None,
    ) -> None:
        self.context: NodeContext = NodeContext(
            registry,
            settings,
            tokens,
            network or SharedNetwork(settings.host),
            api_port,
            first.context if first else None,
        )
        self._workers: dict[str, PodWorker] = {}
        self._first, self._further = first, list[Kubelet]()
        self._proxy: ServiceProxy
        if first is None:
            self._proxy = ServiceProxy(registry, self.context.network, self._names_changed)
        else:
            self._proxy = first._proxy
        self.context.names = self._proxy.lines
        if first:
            first._further.append(self)
        self._admitted: dict[str, Mapping[str, int]] = {}  # what each pod that runs here asks for
        self._shutting_down = False
        self._found = asyncio.Event()
        self._found.set()

    async def run(self) -> None:
        """Work until cancelled; then no process of a container is left."""
        async with self.context, asyncio.TaskGroup() as group:
            for kind in ("Secret", "ConfigMap"):
                group.create_task(self._watch_objects(kind))
            # Here, because one of them acts on the node; simulated pods have no processes to stop.
            group.create_task(ExternalStopper(self.context.registry, self).run())
            if self._first is None:
                group.create_task(self._proxy.run())
            with contextlib.closing(self.context.registry.watch("Pod")) as changes:
                async for change in changes:
                    # A lost node sees no change; those that wait in the watch are handled when it is found.
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
        elif pod["spec"].get("nodeName") == self.context.settings.node_name:
            worker = self._workers[uid] = PodWorker(self.context, pod)
            group.create_task(self._work(uid, worker))
        if change.type == "DELETED" or _is_over(pod):
            # Where the scheduler gives the room back too: it may bind the next pod as soon as it has seen this change.
            self._admitted.pop(uid, None)

    def _admit(self, uid: str, worker: PodWorker) -> None:
        """Count a pod on this node, or reject it; one that has started here is not rejected any more."""
        if _is_over(worker.pod):
            return
        if self._shutting_down:
            worker.reject("NodeShutdown", "Pod was rejected as the node is shutting down.")
            return
        ask = request_of(worker.pod)
        node = self.context.find("", "Node", self.name)
        if node is not None and "startTime" not in worker.pod.get("status", {}):
            room = capacity_of(node)
            for demand in self._admitted.values():
                room.used.update(demand)
            if problem := rejection(ask, room):
                worker.reject(*problem)
                return
        self._admitted[uid] = ask.demand

    async def _work(self, uid: str, worker: PodWorker) -> None:
        try:
            self._admit(uid, worker)
            await worker.run()
        except Exception as problem:
            _log.exception("pod %s: the kubelet gave up on it", worker.pod["metadata"]["name"])
            worker.give_up(_words(problem))
        finally:
            # Only now: until its last process has ended, the pod's name and log are found here. No await lies between
            # the last status and this line: the change gets the failed pod a new worker, which waits for its deletion.
            del self._workers[uid]
            self._admitted.pop(uid, None)

    async def _watch_objects(self, kind: str) -> None:
        """Wake the pods that wait for a Secret or ConfigMap."""
        with contextlib.closing(self.context.registry.watch(kind)) as changes:
            async for change in changes:
                metadata = change.object["metadata"]
                for worker in self._workers.values():
                    if worker.pod["metadata"]["namespace"] == metadata["namespace"]:
                        worker.retry_waiting_containers()

    def _names_changed(self) -> None:
        for kubelet in (self, *self._further):
            for worker in kubelet._workers.values():
                worker.names_changed()

    # on request

    def evict(self, namespace: str, name: str, message: str) -> None:
        """End a pod as under node pressure: phase Failed, reason Evicted. ``LookupError``: it is not here."""
        worker = self._worker(namespace, name)
        worker.evict(message)

    @property
    def name(self) -> str:
        """The node's name."""
        return self.context.settings.node_name

    def lose(self, *, dead: bool = True) -> None:
        """Lose the node: it neither reports nor acts on changes. ``dead``: its processes have ended.

        ``dead`` is a power cut. Otherwise the processes continue, as on a node that the network cuts off.
        """
        self._found.clear()
        for worker in self._workers.values():
            worker.lose(dead=dead)

    def find(self) -> None:
        """Recover the node: it reports and acts on changes again, and accepts pods after a shutdown."""
        self._shutting_down = False
        set_ready(self.context.registry, self.name, "True", "KubeletReady", "kubelet is posting ready status")
        for worker in self._workers.values():
            worker.find()
        self._found.set()

    def shut_down(self, grace: float) -> None:
        """Begin a graceful node shutdown: end every pod within ``grace`` seconds, and accept none.

        As ``pkg/kubelet/nodeshutdown``: the pods fail with the condition DisruptionTarget, reason TerminationByKubelet.
        """
        self._shutting_down = True
        set_ready(self.context.registry, self.name, "False", "KubeletNotReady", "node is shutting down")
        for worker in self._workers.values():
            worker.shut_down(grace)

    def _worker(self, namespace: str, name: str) -> PodWorker:
        for worker in self._workers.values():
            metadata = worker.pod["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, name) and not worker.removed:
                return worker
        raise LookupError(f"pod {namespace}/{name} is not on this node")

    def volume(self, pod: Manifest, name: str) -> Path:
        """Return the folder of a pod's volume, as the node's part of a CSI driver finds it. ``LookupError``: gone."""
        return self._of(pod).folder / "volumes" / name

    # interfaces.Runtime

    def log(self, pod: Manifest, container: str, options: PodLogOptions) -> AsyncIterator[bytes]:
        """Yield a log in chunks; with ``follow`` until the container has ended."""
        worker = self._of(pod)
        path, run = worker.log_of(container, previous=options.previous)
        # the container notifies its listeners before the run has recorded the end
        over = lambda: run is None or run.container.ended  # noqa: E731
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
        return await self.context.network.dial(worker.place, port)

    def _of(self, pod: Manifest) -> PodWorker:
        worker = self._workers.get(pod["metadata"]["uid"])
        if worker is None:
            raise LookupError("pod not found")
        if not self._found.is_set():
            raise ConnectionError(f"dial tcp {self.context.network.host_address}:10250: i/o timeout")
        return worker

    def _running(self, pod: Manifest, container: str) -> ContainerRun:
        run = self._of(pod).runs.get(container)
        if run is None or run.exited.is_set():
            raise LookupError("container not found")
        return run


def _is_over(pod: Manifest) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _words(problem: BaseException) -> str:
    """Name the first cause of an error; task groups wrap it."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return f"{type(problem).__name__}: {problem}"


def _listener(run: ContainerRun | None) -> Callable[[Callable[[], None]], AbstractContextManager[None]]:
    return run.container.listening if run is not None else lambda _: contextlib.nullcontext()
