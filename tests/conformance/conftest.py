from __future__ import annotations

import pytest

from crosswind.testing import Cluster


@pytest.fixture(scope="session")
def cluster(cluster: Cluster) -> Cluster:
    """The cluster itself: what it answers is what these tests are about."""
    return getattr(cluster, "direct", None) or cluster
