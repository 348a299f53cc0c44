"""Services on this node: addresses of their own, relays from these to the ready pods, and the names that pods look up.

In a network of pods a Service's address is this machine's, where a relay listens for each of its ports. On the
machine's own network names lead to the pods themselves, for a relay would take the port from a pod that listens on all
addresses; only where a Service's port has another number than its pods' does a relay listen.

``ServiceProxy.run`` owns two watches and, through its relays, a task per connection. Cancelling it closes the relays,
and these their connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from kubelocal.codec.status_errors import StatusError
from kubelocal.controllers.service_endpoints import SERVICE, Target, headless, host_lines, targets, wants_relay
from kubelocal.interfaces import Change, Registry
from kubelocal.kubelet.pod_network import Network
from kubelocal.types import Manifest

__all__ = ["Relay", "ServiceProxy"]

_CHUNK = 1 << 16
_log = logging.getLogger(__name__)
_Port = tuple[int, str]


class ServiceProxy:
    """Watches Services and their endpoints; calls ``on_names_changed`` when names change. ``run`` opens it."""

    def __init__(self, registry: Registry, network: Network, on_names_changed: Callable[[], None]) -> None:
        self._registry = registry
        self._network = network
        self._on_names_changed = on_names_changed
        self._relays: dict[tuple[str, _Port], Relay] = {}
        self._turn = asyncio.Lock()  # both watches may speak of one Service
        self._lines: dict[str, list[str]] = {}

    def lines(self, namespace: str) -> list[str]:
        """Return the lines with which a hosts file in a namespace names the Services."""
        if namespace not in self._lines:
            services, slices = self._registry.list("Service"), self._registry.list("EndpointSlice")
            self._lines[namespace] = host_lines(services, slices, namespace, direct=self._network.direct)
        return self._lines[namespace]

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for kind in ("Service", "EndpointSlice"):
                    group.create_task(self._follow(kind))
        finally:
            for relay in self._relays.values():
                await relay.close()

    async def _follow(self, kind: str) -> None:
        with contextlib.closing(self._registry.watch(kind)) as changes:
            async for change in changes:
                await self._take(kind, change)

    async def _take(self, kind: str, change: Change) -> None:
        metadata = change.object["metadata"]
        name = metadata["name"] if kind == "Service" else metadata.get("labels", {}).get(SERVICE, "")
        with contextlib.suppress(StatusError):
            self._give_address(self._registry.get("Service", metadata["namespace"], name))
        # _relay awaits while it closes and opens: two at once could both open the same port.
        async with self._turn:
            await self._relay(metadata["namespace"], name)
        # All of them: names of other namespaces contain this Service too (name.namespace).
        self._lines.clear()
        self._on_names_changed()

    def _give_address(self, service: Manifest) -> None:
        spec, metadata = service["spec"], service["metadata"]
        if spec.get("clusterIP") or spec.get("type") == "ExternalName":
            return
        address = self._network.service_address()
        address_fields = {"clusterIP": address, "clusterIPs": [address]}
        update = self._registry.update
        update(
            "Service", metadata["namespace"], metadata["name"], lambda current: current["spec"].update(address_fields)
        )

    async def _relay(self, namespace: str, name: str) -> None:
        """Update the relays of one Service to its current endpoints."""
        try:
            service: Manifest | None = self._registry.get("Service", namespace, name)
        except StatusError:
            service = None
        key = f"{namespace}/{name}"
        desired_relays = self._desired_relays(service) if service else {}
        for place in [place for place in self._relays if place[0] == key and place[1] not in desired_relays]:
            # Popped first, so that a cancelled close leaves no relay in the table that does not listen.
            await self._relays.pop(place).close()
        for port, pods in desired_relays.items():
            if (key, port) not in self._relays and service:
                await self._open(key, service, port)
            if relay := self._relays.get((key, port)):
                relay.targets = pods

    def _desired_relays(self, service: Manifest) -> dict[_Port, list[Target]]:
        metadata = service["metadata"]
        slices = [
            endpoint_slice
            for endpoint_slice in self._registry.list("EndpointSlice", metadata["namespace"])
            if endpoint_slice["metadata"].get("labels", {}).get(SERVICE) == metadata["name"]
        ]
        own = service["spec"].get("clusterIP") and not headless(service)
        if not own or (self._network.direct and not wants_relay(service, slices)):
            return {}
        return {port: pods for port, pods in targets(service, slices).items() if port[1] in ("TCP", "UDP")}

    async def _open(self, key: str, service: Manifest, port: _Port) -> None:
        relay = Relay()
        try:
            await relay.open(service["spec"]["clusterIP"], *port)
        except OSError as problem:
            message = f"cannot listen on {service['spec']['clusterIP']}:{port[0]}: {problem.strerror or problem}"
            # An Event rather than an error: the port may be another program's, and all other Services must work.
            self._registry.record(service, "FailedToRelay", message, warning=True)
            return
        self._relays[key, port] = relay


class Relay:
    """Passes what arrives at one port of a Service on to its pods, in turn.

    ``targets``: the ready pods; with none, connections are closed at once. UDP goes one way: answers are not passed
    back.
    """

    def __init__(self) -> None:
        self.targets: list[Target] = []
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | asyncio.DatagramTransport | None = None

    async def open(self, address: str, port: int, protocol: str) -> None:
        """Listen. Raises ``OSError``: the port is taken."""
        if protocol == "UDP":
            loop = asyncio.get_running_loop()
            self._listener, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self), local_addr=(address, port)
            )
        else:
            self._listener = await asyncio.start_server(self._connected, address, port)

    async def close(self) -> None:
        """Stop listening and close all connections."""
        if self._listener is not None:
            self._listener.close()
        for task in self._tasks:
            task.cancel()
        # Their finally closes the sockets; without the wait, the loop could end before.
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def next(self) -> Target | None:
        """Return the pod whose turn it is."""
        self._turn += 1
        return self.targets[self._turn % len(self.targets)] if self.targets else None

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._pass_on(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target, other = self.next(), None
        try:
            if target is not None:
                answers, other = await asyncio.open_connection(*target)
                async with asyncio.TaskGroup() as group:
                    # Each way ends by its own end of data (half-close, as for kubectl exec); a broken one ends both.
                    group.create_task(_pump(reader, other))
                    group.create_task(_pump(answers, writer))
        # A reset by either side is how clients end; nobody here can do anything about it.
        except* OSError as problem:
            _log.debug("relay to %s: %s", target, problem)
        finally:
            for stream_writer in (writer, other):
                if stream_writer is not None:
                    stream_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str | Any, int]) -> None:
        if address not in self._relay.targets and (target := self._relay.next()):
            self._transport.sendto(data, target)
