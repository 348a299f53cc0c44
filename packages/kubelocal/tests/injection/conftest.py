from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from kubelocal.settings import LocalSettings
from kubelocal.testing import Cluster, serve_in_thread
from rest_client import RestClient


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The local cluster, whose injectors these tests are about, whatever --cluster-context names."""
    with serve_in_thread(LocalSettings()) as served:
        yield served


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[RestClient]:
    async with RestClient(cluster.kubeconfig) as client:
        yield client
