from __future__ import annotations

from collections.abc import Iterator

import pytest

from crosswind.settings import LocalSettings
from crosswind.testing import Cluster, serve_in_thread


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The local cluster, which these tests are about, whatever --cluster-context says."""
    with serve_in_thread(LocalSettings()) as served:
        yield served
