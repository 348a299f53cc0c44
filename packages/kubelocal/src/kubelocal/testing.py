"""Pytest fixtures with a Kubernetes cluster, for your own tests.

Installed with kubelocal, they are available without an import::

    def test_my_pod(cluster, namespace):
        ...  # use any client with cluster.kubeconfig, in the fresh namespace of that name

By default the cluster is a ``kubelocal.cluster.LocalCluster``: it starts with the first test that asks for it (a
second), runs pods as processes of this machine and ends after the last test. ``pytest --cluster-context NAME`` uses a
real one instead, from your kubeconfig; ``--cluster-image``, ``--cluster-pull-policy`` and ``--cluster-airflow-image``
name the images that it can run. A test that needs an image that is not named is skipped. Mark tests that use a cluster
with ``@pytest.mark.cluster``. The fixture ``namespace`` and ``--cluster-context`` need the extra
``kubelocal[testing]``.
"""

from __future__ import annotations

import asyncio
import inspect
import ipaddress
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kubelocal.cluster import LocalCluster
    from kubelocal.settings import LocalSettings

__all__ = ["Cluster", "cluster", "namespace", "serve_in_thread"]

_START_S = 60


@dataclass(frozen=True)
class Cluster:
    """A cluster to test against, reached by ``kubeconfig``, whose current context is the right one.

    ``url`` and ``token`` are those of the context; ``token`` is "" on a real cluster that uses another credential.
    ``local``: whether it is a ``LocalCluster``. ``host``: this machine's address as its pods see it, "" if unknown.
    ``pull_policy``: the value for ``imagePullPolicy``.
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
    group = parser.getgroup("kubelocal", "a Kubernetes cluster for tests")
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
    """A cluster for the whole session: a local one, or that of ``--cluster-context``."""
    if context := pytestconfig.getoption("--cluster-context"):
        real = _real_cluster(pytestconfig, context, tmp_path_factory.mktemp("cluster") / "kubeconfig")
        host = pytestconfig.getoption("--cluster-host") or asyncio.run(_with_core_api(real, _own_address))
        yield replace(real, host=host)
        return
    from kubelocal.settings import LocalSettings

    with serve_in_thread(LocalSettings()) as served:
        yield served


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """The name of a namespace of this test's own, deleted afterwards with all its objects."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    asyncio.run(_with_core_api(cluster, _create_namespace, name))
    yield name
    asyncio.run(_with_core_api(cluster, _delete_namespace, name))


async def _with_core_api(cluster: Cluster, action: Any, *arguments: Any) -> Any:
    """Await ``action`` with a client of the core API, closed afterwards."""
    try:
        from kubernetes_asyncio.client import CoreV1Api
        from kubernetes_asyncio.config import new_client_from_config
    except ModuleNotFoundError as error:
        pytest.fail(f"this fixture needs the extra kubelocal[testing]: {error}", pytrace=False)

    async with await new_client_from_config(str(cluster.kubeconfig)) as client:
        return await action(CoreV1Api(client), *arguments)


async def _own_address(core: Any) -> str:
    """Return the address from which this machine reaches the first node: pods reach it there, if anywhere."""
    addresses = [address for node in (await core.list_node()).items for address in node.status.addresses or ()]
    node_address = next((address.address for address in addresses if address.type == "InternalIP"), "")
    try:
        ip = ipaddress.ip_address(node_address)
        family = socket.AF_INET6 if ip.version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((node_address, 9))  # a datagram socket sends nothing here: it only looks up the route
            own = str(probe.getsockname()[0])
    except (OSError, ValueError):
        return ""
    return "" if ipaddress.ip_address(own).is_loopback else own


async def _create_namespace(core: Any, name: str) -> None:
    """Create a namespace and wait for its service account, without which admission refuses pods."""
    from kubernetes_asyncio.client import ApiException

    await core.create_namespace({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    async with asyncio.timeout(_START_S):
        while True:
            try:
                await core.read_namespaced_service_account("default", name)
            except ApiException as error:
                if error.status != 404:
                    raise
                await asyncio.sleep(0.05)
            else:
                return


async def _delete_namespace(core: Any, name: str) -> None:
    from kubernetes_asyncio.client import ApiException

    with suppress(ApiException):
        await core.delete_namespace(name)


def _real_cluster(config: pytest.Config, context: str, path: Path) -> Cluster:
    """Cut the context out of the user's kubeconfig, so that one file is all that a client needs."""
    from kubelocal.auth.kubeconfig_file import dumped, single_context
    from kubelocal.owned_paths import write_new

    listed = os.environ.get("KUBECONFIG") or "~/.kube/config"
    chosen = single_context([Path(name).expanduser() for name in listed.split(os.pathsep) if name], context)
    write_new(path, dumped(chosen).decode())
    named = {kind: config.getoption(f"--cluster-{kind}") for kind in ("image", "airflow-image")}
    images = {kind: name for kind, name in named.items() if name}
    policy = config.getoption("--cluster-pull-policy")
    url, token = chosen["clusters"][0]["cluster"]["server"], chosen["users"][0]["user"].get("token", "")
    return Cluster(path, url, token, local=False, pull_policy=policy, images=images)


class serve_in_thread:
    """Serve a local cluster in a thread of its own while the ``with`` block lasts; gives its ``Cluster``."""

    def __init__(self, settings: LocalSettings) -> None:
        self._settings = settings
        self._thread = threading.Thread(target=self._run, name="kubelocal", daemon=True)
        self._ready = threading.Event()
        self._served: Cluster | None = None
        self._problem: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._local: LocalCluster

    def __enter__(self) -> Cluster:
        self._thread.start()
        self._ready.wait(_START_S)
        if self._served is None:
            raise self._problem or TimeoutError(f"the local cluster did not start in {_START_S} s")
        return self._served

    def call(self, work: Callable[[LocalCluster], Any], timeout: float = 60.0) -> Any:
        """Run ``work`` with the cluster, on its loop, and return its result: of a coroutine function what it returns.

        For what no request can do, such as the loss of a node: ``served.call(lambda cluster: cluster.lose_node())``.
        """

        async def worked() -> Any:
            result = work(self._local)
            return await result if inspect.isawaitable(result) else result

        return asyncio.run_coroutine_threadsafe(worked(), self._loop).result(timeout)

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
        from kubelocal.cluster import LocalCluster

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with LocalCluster(self._settings) as served:
            self._local = served
            images = {"image": "busybox", "airflow-image": "apache/airflow:local"}
            self._served = Cluster(served.kubeconfig, served.url, served.token, host=served.host_address, images=images)
            self._ready.set()
            await served.serve_until(self._stop)
