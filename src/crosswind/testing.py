"""Pytest fixtures with a Kubernetes cluster, for your own tests.

Installed with crosswind, they are there without an import::

    def test_my_pod(cluster, namespace):
        ...  # talk to cluster.kubeconfig with any client, in the fresh namespace of that name

By default the cluster is the one of ``crosswind local``: it starts with the first test that asks for it (a second),
runs pods as processes of this machine and is gone after the last. ``pytest --cluster-context NAME`` takes a real one
instead, from your kubeconfig; ``--cluster-image``, ``--cluster-pull-policy`` and ``--cluster-airflow-image`` tell which
images are there. A test that needs an image that is not named is skipped. Mark tests that use a cluster with
``@pytest.mark.cluster``.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from crosswind.kube.client import Client
    from crosswind.settings import LocalSettings

__all__ = ["Cluster", "cluster", "namespace", "serve_in_thread"]

_START_S = 60


@dataclass(frozen=True)
class Cluster:
    """A cluster to test against, reached by ``kubeconfig``, whose current context is the right one.

    ``url`` and ``token`` are what is in it; the token of a real cluster that knows its users otherwise is "".
    ``local``: it is the one of ``crosswind local``. ``host``: this machine's address as its pods see it, "" if unknown.
    ``pull_policy``: what to put into ``imagePullPolicy``.
    """

    kubeconfig: Path
    url: str = ""
    token: str = field(default="", repr=False)
    local: bool = True
    host: str = ""
    pull_policy: str = "IfNotPresent"
    images: dict[str, str] = field(default_factory=dict)

    @property
    def image(self) -> str:
        """An image with a shell and the usual small commands; skips the test when none is named."""
        return self._named("image")

    @property
    def airflow_image(self) -> str:
        """An image with Airflow; skips the test when none is named."""
        return self._named("airflow-image")

    def _named(self, kind: str) -> str:
        if kind not in self.images:
            pytest.skip(f"needs an image of the cluster: name it by --cluster-{kind}")
        return self.images[kind]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that choose a real cluster."""
    group = parser.getgroup("crosswind", "a Kubernetes cluster for tests")
    group.addoption("--cluster-context", metavar="NAME", help="use this context of your kubeconfig")
    group.addoption("--cluster-image", metavar="IMAGE", help="image with a shell, for --cluster-context")
    group.addoption("--cluster-airflow-image", metavar="IMAGE", help="image with Airflow, for --cluster-context")
    group.addoption("--cluster-host", metavar="ADDRESS", help="this machine as pods see it, for --cluster-context")
    group.addoption("--cluster-pull-policy", metavar="POLICY", default="IfNotPresent", help="imagePullPolicy of both")


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "cluster: touches a Kubernetes cluster, local or real")


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster for the whole session: ``crosswind local``, or the one of ``--cluster-context``."""
    if context := pytestconfig.getoption("--cluster-context"):
        real = _real(pytestconfig, context, tmp_path_factory.mktemp("cluster") / "kubeconfig")
        host = pytestconfig.getoption("--cluster-host") or asyncio.run(_with_client(real, _host))
        yield replace(real, host=host)
        return
    from crosswind.settings import LocalSettings

    with serve_in_thread(LocalSettings()) as served:
        yield served


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """The name of a namespace of this test's own, deleted afterwards with all that is in it."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    asyncio.run(_with_client(cluster, _create, name))
    yield name
    asyncio.run(_with_client(cluster, _delete, name))


async def _host(client: Client) -> str:
    """Return the address from which this machine reaches the first node: pods reach it there, if anywhere."""
    from crosswind.kube.resources import Resource

    nodes = (await client.list(Resource("", "v1", "nodes", "Node", namespaced=False))).items
    addresses = [one for node in nodes for one in node.get("status", {}).get("addresses", [])]
    node_address = next((one["address"] for one in addresses if one["type"] == "InternalIP"), "")
    try:
        ip = ipaddress.ip_address(node_address)
        family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((node_address, 9))  # sends nothing: it only looks for the way
            own = str(probe.getsockname()[0])
    except (OSError, ValueError):
        return ""
    return "" if ipaddress.ip_address(own).is_loopback else own


async def _with_client(cluster: Cluster, action: Any, *arguments: Any) -> Any:
    from crosswind.kube.client import Client
    from crosswind.settings import KubeSettings

    async with await Client.connect(KubeSettings(kubeconfig=str(cluster.kubeconfig))) as client:
        return await action(client, *arguments)


async def _create(client: Client, name: str) -> None:
    """Create a namespace and wait for its service account, without which it takes no pods."""
    from crosswind.errors import NotFound
    from crosswind.kube.resources import NAMESPACES, SERVICE_ACCOUNTS

    await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    async with asyncio.timeout(_START_S):
        while True:
            with suppress(NotFound):
                await client.get(SERVICE_ACCOUNTS, "default", namespace=name)
                return
            await asyncio.sleep(0.05)


async def _delete(client: Client, name: str) -> None:
    from crosswind.errors import ApiError
    from crosswind.kube.resources import NAMESPACES

    with suppress(ApiError):
        await client.delete(NAMESPACES, name)


def _real(config: pytest.Config, context: str, path: Path) -> Cluster:
    """Cut the context out of the user's kubeconfig, so that its file is all that a client needs."""
    import yaml

    from crosswind.kube.kubeconfigs import read
    from crosswind.ownership import write_new

    chosen = read(None, context)
    alone = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "contexts": [{"name": context, "context": {"cluster": context, "user": context}}],
        "clusters": [{"name": context, "cluster": _absolute(chosen.cluster, chosen.paths)}],
        "users": [{"name": context, "user": _absolute(chosen.user, chosen.paths)}],
    }
    write_new(path, yaml.safe_dump(alone))
    given = {kind: config.getoption(f"--cluster-{kind}") for kind in ("image", "airflow-image")}
    images = {kind: name for kind, name in given.items() if name}
    policy = config.getoption("--cluster-pull-policy")
    url, token = chosen.cluster["server"], chosen.user.get("token", "")
    return Cluster(path, url, token, local=False, pull_policy=policy, images=images)


def _absolute(entry: dict[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    """Make file names absolute, which a kubeconfig gives relative to itself."""
    names = {key for key in ("certificate-authority", "client-certificate", "client-key", "tokenFile") if key in entry}
    folders = [Path(path).resolve().parent for path in paths]
    found = {key: [folder / entry[key] for folder in folders if (folder / entry[key]).exists()] for key in names}
    return {**entry, **{key: str(files[0]) for key, files in found.items() if files}}


class serve_in_thread:
    """Serve a local cluster in a thread of its own while the ``with`` block lasts; gives its ``Cluster``."""

    def __init__(self, settings: LocalSettings) -> None:
        self._settings = settings
        self._thread = threading.Thread(target=self._run, name="crosswind-local", daemon=True)
        self._ready = threading.Event()
        self._served: Cluster | None = None
        self._problem: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event

    def __enter__(self) -> Cluster:
        self._thread.start()
        self._ready.wait(_START_S)
        if self._served is None:
            raise self._problem or TimeoutError(f"crosswind local did not start in {_START_S} s")
        return self._served

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_S)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as problem:
            self._problem = problem
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        from crosswind.local.serving import LocalCluster

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with LocalCluster(self._settings) as served:
            images = {"image": "busybox", "airflow-image": "apache/airflow:local"}
            self._served = Cluster(served.kubeconfig, served.url, served.token, host=served.host_address, images=images)
            self._ready.set()
            await served.serve_until(self._stop)
