"""How pods are reached and reach each other: all on this machine's network, or each in a network namespace of its own.

``SharedNetwork`` works everywhere. A pod's IP is a loopback address, which its /etc/hosts calls ``localhost``. The
number 127.0.0.1 and ports bound to all addresses are the machine's: two pods cannot both listen on 0.0.0.0:8080.

``BridgedNetwork`` needs root (CAP_SYS_ADMIN, CAP_NET_ADMIN) on Linux. A pod has its own loopback, 0.0.0.0 and ports, as
in Kubernetes; it reaches other pods and, at ``host_address``, this machine, but nothing beyond: there is no NAT.
Services of the machine that listen on 127.0.0.1 alone are not seen by pods.

No task is started here. Entering a namespace takes a thread of its own, which is joined by its caller's thread; a
caller that is cancelled meanwhile abandons the result, at most ``REACHABILITY_TIMEOUT_S`` later.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import random
import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from kubelocal.kubelet import netlink
from kubelocal.settings import LocalSettings

__all__ = ["BridgedNetwork", "Network", "PodAddress", "SharedNetwork", "open_network"]

PREFIX = "cw"
REACHABILITY_TIMEOUT_S = 2.0
Result = TypeVar("Result")
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PodAddress:
    """A pod's place in the network: its IP, what its hosts file calls localhost, and its namespace or None."""

    address: str
    localhost: str
    namespace: int | None = None


class Network(Protocol):
    """Gives pods their places. ``host_address``: this machine as pods reach it."""

    host_address: str
    direct: bool
    """Whether pods share this machine's ports, so that names of Services lead to them and not to a relay."""

    def service_address(self) -> str:
        """Return an address of this machine for one more Service. ``OSError``: there is none."""
        ...

    async def join(self) -> PodAddress:
        """Make a place for a pod. ``OSError``: there is none."""
        ...

    def leave(self, place: PodAddress) -> None:
        """Release a pod's address and namespace once no process uses them."""
        ...

    async def dial(self, place: PodAddress, port: int) -> Connection:
        """Connect to a port as from inside the pod. ``OSError``: nobody listens."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...


class SharedNetwork:
    """Loopback addresses, each used once."""

    direct = True

    def __init__(self, host_address: str = "127.0.0.1") -> None:
        self.host_address = host_address
        self._numbers = itertools.count(random.randrange(1 << 20))  # noqa: S311 - so that clusters seldom meet

    def service_address(self) -> str:
        """Return the next address of 127.128.0.0/10."""
        number = next(self._numbers) % (1 << 22)
        return f"127.{128 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"

    async def join(self) -> PodAddress:
        """Take the next address of 127.64.0.0/10."""
        number = next(self._numbers) % (1 << 22)
        address = f"127.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
        return PodAddress(address, address)

    def leave(self, place: PodAddress) -> None:
        """Do nothing: this network holds no resources."""

    async def dial(self, place: PodAddress, port: int) -> Connection:
        """Connect to the pod's own address, else to 127.0.0.1."""
        try:
            return await asyncio.open_connection(place.address, port)
        except OSError:
            return await asyncio.open_connection("127.0.0.1", port)

    def close(self) -> None:
        """Do nothing: this network holds no resources."""


class BridgedNetwork:
    """A bridge, and for each pod a network namespace with an interface on it. Raises ``OSError`` where not allowed."""

    direct = False

    def __init__(self) -> None:
        _sweep()
        self._bridge = f"{PREFIX}{os.getpid()}x{secrets.token_hex(2)}"  # at most 15 characters
        self._net = _free_net()
        self._free = (f"10.{self._net}.{a}.{b}" for a in range(254) for b in range(2, 255))
        self._for_services = (f"10.{self._net}.{a}.{b}" for a in (254, 255) for b in range(1, 255))
        self._returned: list[str] = []
        self.host_address = f"10.{self._net}.0.1"
        netlink.add_bridge(self._bridge)
        try:
            netlink.add_address(self._bridge, self.host_address, 16)
            self._try()
        except OSError:
            self.close()
            raise

    def _try(self) -> None:
        """Check whether a pod can reach this machine; a firewall may prevent it."""
        place = self._join(next(self._free))
        try:
            with socket.create_server((self.host_address, 0)) as server:
                socket.socket.close(_inside(place.namespace, lambda: _connected(server.getsockname())))
        finally:
            self.leave(place)

    def service_address(self) -> str:
        """Give the bridge one address more; it stays, for a Service that is gone answers as nobody does."""
        address = next(self._for_services, None)
        if address is None:
            raise OSError("all addresses for Services have been used")
        netlink.add_address(self._bridge, address, 32)
        return address

    async def join(self) -> PodAddress:
        """Make a namespace with its own loopback and an interface on the bridge."""
        # The longest unused first, and only out of many: connections to an address that is used again at once would
        # meet the wrong pod.
        address = self._returned.pop(0) if len(self._returned) > 1000 else next(self._free, "")
        address = address or self._returned.pop(0)
        # netlink answers in milliseconds, but a thousand pods that start at once would stop the loop for seconds.
        return await asyncio.to_thread(self._join, address)

    def _join(self, address: str) -> PodAddress:
        namespace = _in_thread(_fresh)
        try:
            netlink.add_pair(f"{PREFIX}v{secrets.token_hex(5)}", self._bridge, "eth0", namespace)
            _inside(namespace, lambda: self._furnish(address))
        except OSError:
            # The last descriptor: the kernel removes the namespace with its interface.
            os.close(namespace)
            raise
        return PodAddress(address, "127.0.0.1", namespace)

    def _furnish(self, address: str) -> None:
        netlink.add_address("eth0", address, 16)
        netlink.bring_up("eth0")
        netlink.add_route(self.host_address)

    def leave(self, place: PodAddress) -> None:
        """Release the namespace; the kernel removes it and its interface."""
        if place.namespace is not None:
            os.close(place.namespace)
            # At the end of the list, behind all that were free before.
            self._returned.append(place.address)

    async def dial(self, place: PodAddress, port: int) -> Connection:
        """Connect to localhost in the pod."""
        # Nowhere else, as containerd does: a second attempt at the pod's address would find a server that began to
        # listen in between, which then refuses what it allows its own pod only (Istio's /quitquitquit).
        connected = await asyncio.to_thread(_inside, place.namespace, lambda: _connected(("127.0.0.1", port)))
        # Made in the pod's namespace, where it stays; only its use is the loop's.
        connected.setblocking(False)
        return await asyncio.open_connection(sock=connected)

    def close(self) -> None:
        """Remove the bridge."""
        with contextlib.suppress(OSError):
            netlink.delete_link(self._bridge)


def open_network(settings: LocalSettings) -> Network:
    """Return the network that the settings ask for; where isolation is not allowed, the shared one."""
    if settings.network == "isolated" and settings.sandbox == "auto":
        try:
            return BridgedNetwork()
        except (OSError, AttributeError) as problem:
            _log.warning(
                "pods share this machine's network (%s): each has a loopback address of its own, and ports may"
                " conflict",
                problem,
            )
    return SharedNetwork(settings.host)


def _fresh() -> int:
    namespace = netlink.new_namespace()
    netlink.bring_up("lo")
    return namespace


def _connected(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, REACHABILITY_TIMEOUT_S)


def _inside(namespace: int | None, doing: Callable[[], Result]) -> Result:
    """Do something in a network namespace."""

    def enter_and_do() -> Result:
        if namespace is not None:
            netlink.enter(namespace)
        return doing()

    return _in_thread(enter_and_do)


def _in_thread(doing: Callable[[], Result]) -> Result:
    """Run a function in a new thread that ends with it, because the function may change the thread's namespace."""
    results: list[Result] = []
    problems: list[OSError] = []

    def run() -> None:
        try:
            results.append(doing())
        except OSError as problem:
            problems.append(problem)

    # Not a pool's thread: setns(2) changes the thread for good, and a pool would hand it to other code.
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return results[0]


def _free_net() -> int:
    """Return the second number of a network 10.N.0.0/16 to which no route leads."""
    used_numbers = set()
    with contextlib.suppress(OSError):
        for line in Path("/proc/net/route").read_text().splitlines()[1:]:
            destination = bytes.fromhex(line.split()[1])[::-1]
            if destination[0] == 10:
                used_numbers.add(destination[1])
    return random.choice([number for number in range(64, 192) if number not in used_numbers])  # noqa: S311


def _sweep() -> None:
    """Remove the bridges of processes that ended without doing so."""
    for _, name in socket.if_nameindex():
        pid = name.removeprefix(PREFIX).split("x")[0]
        if name.startswith(PREFIX) and pid.isdigit() and not Path(f"/proc/{pid}").exists():
            with contextlib.suppress(OSError):
                netlink.delete_link(name)
