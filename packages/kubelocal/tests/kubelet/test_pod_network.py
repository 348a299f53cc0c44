"""Pods with a network of their own: ports, localhost, the way to this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubelet_node import Node, container, kubelet_of, status_of

from kubelocal.kubelet import netlink
from kubelocal.kubelet.pod_network import BridgedNetwork, SharedNetwork, open_network
from kubelocal.settings import LocalSettings

SERVE = "mkdir /www; echo $HOSTNAME > /www/x; python3 -m http.server 8080 --bind {} --directory /www"


@pytest.fixture
def network() -> Iterator[BridgedNetwork]:
    try:
        network = BridgedNetwork()
    except OSError as problem:
        pytest.skip(f"no network namespaces here: {problem}")
    yield network
    network.close()
    assert not [name for _, name in socket.if_nameindex() if name == network._bridge]


async def ask(node: Node, name: str) -> bytes:
    _, writer = connection = await node.kubelet.dial(node.registry.get("Pod", "default", name), 8080)
    writer.write(b"GET /x HTTP/1.0\r\n\r\n")
    answer = await connection[0].read()
    writer.close()
    return answer.splitlines()[-1]


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "$IP"])
async def test_each_pod_has_the_port_for_itself_and_is_dialled_at_localhost(
    network: BridgedNetwork, address: str
) -> None:
    variables = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    async with kubelet_of(LocalSettings(), network) as node:
        for name in ("a", "b"):
            probe = {"exec": {"command": ["sh", "-c", "grep -q :1F90 /proc/net/tcp"]}, "periodSeconds": 1}
            made = container(SERVE.format(address), image="python:3", env=variables, readinessProbe=probe)
            node.pod(name, made)
        for name in ("a", "b"):
            await node.until(name, lambda pod: status_of(pod).get("ready"))
            if address == "$IP":
                with pytest.raises(ConnectionRefusedError):
                    await ask(node, name)
            else:
                assert await ask(node, name) == name.encode()


@pytest.mark.parametrize("size", [3_000, 5_000, 100_000])
async def test_a_container_may_have_long_variables(network: BridgedNetwork, size: int) -> None:
    """Its description then reaches the launcher in several pieces, the first with the network's descriptor."""
    async with kubelet_of(LocalSettings(), network) as node:
        node.pod("a", container("echo ${#LONG}", env=[{"name": "LONG", "value": "x" * size}]))
        assert await node.log(await node.ended("a")) == f"{size}\n"


async def test_a_name_that_nobody_knows_is_refused_at_once(network: BridgedNetwork) -> None:
    """Well before the 10 s in which a resolver gives up on a name server that it cannot reach."""
    look = "python3 -c 'import socket; socket.getaddrinfo(\"nobody.example.org\", 80)'"
    async with kubelet_of(LocalSettings(), network) as node:
        node.pod("a", container(f"timeout 5 {look}; test $? = 1", image="python:3"))
        assert (await node.ended("a"))["status"]["phase"] == "Succeeded"


async def test_a_pod_reaches_this_machine_and_its_neighbours(network: BridgedNetwork) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), network.host_address, 0)
    port = server.sockets[0].getsockname()[1]
    connect = "python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)'"
    async with kubelet_of(LocalSettings(), network) as node:
        probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
        node.pod("a", container(SERVE.format("0.0.0.0"), image="python:3", readinessProbe=probe))
        pod = await node.until("a", lambda pod: status_of(pod).get("ready"))
        address = pod["status"]["podIP"]
        node.pod(
            "b", container(f"{connect} {network.host_address} {port} && {connect} {address} 8080", image="python:3")
        )
        ended = await node.ended("b")
        assert ended["status"]["phase"] == "Succeeded", await node.log(ended)
        assert ended["status"]["hostIP"] == network.host_address
    server.close()


async def test_this_machine_stays_where_pods_know_it_when_others_come_and_go(network: BridgedNetwork) -> None:
    known = Path(f"/sys/class/net/{network._bridge}/address")
    before = known.read_text()
    places = [await network.join() for _ in range(3)]
    assert known.read_text() == before
    for place in places:
        network.leave(place)
    assert known.read_text() == before


@pytest.mark.skipif(shutil.which("busybox") is None, reason="there is no busybox here")
async def test_containers_of_a_pod_share_its_localhost(network: BridgedNetwork) -> None:
    knock = "until busybox wget -qO- http://localhost:8080/x; do sleep 0.05; done"
    async with kubelet_of(LocalSettings(), network) as node:
        side = container(SERVE.format("127.0.0.1"), "side", image="python:3", restartPolicy="Always")
        node.pod("a", container(knock), initContainers=[side], terminationGracePeriodSeconds=1)
        pod = await node.ended("a")
        assert pod["status"]["phase"] == "Succeeded"
        assert (await node.log(pod)).splitlines()[-1] == "a"


async def test_places_are_given_back(network: BridgedNetwork) -> None:
    before = set(os.listdir("/proc/self/fd"))
    places = await asyncio.gather(*(network.join() for _ in range(20)))
    assert len({place.address for place in places}) == 20
    for place in places:
        network.leave(place)
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 1


def test_bridges_of_dead_processes_are_swept() -> None:
    try:
        netlink.add_bridge("cw4194399xdead")  # above the highest pid that Linux gives
    except OSError as problem:
        pytest.skip(f"no bridges here: {problem}")
    BridgedNetwork().close()
    assert "cw4194399xdead" not in [name for _, name in socket.if_nameindex()]


async def test_shared_places_are_loopback_addresses_used_once() -> None:
    network = SharedNetwork()
    places = [await network.join() for _ in range(1000)]
    assert len({place.address for place in places}) == 1000
    assert all(place.address.startswith("127.") and place.localhost == place.address for place in places)


def test_the_shared_network_is_what_one_gets_by_asking_or_without_namespaces() -> None:
    assert isinstance(open_network(LocalSettings(network="shared")), SharedNetwork)
    assert isinstance(open_network(LocalSettings(network="isolated", sandbox="none")), SharedNetwork)
