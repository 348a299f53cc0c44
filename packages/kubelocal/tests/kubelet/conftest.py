"""A kubelet for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from kubelet_node import Node, kubelet_of

from kubelocal.settings import LocalSettings


@pytest.fixture
def settings() -> LocalSettings:
    return LocalSettings(crash_backoff=0.3, sidecar_ready_after=0.0)


@pytest_asyncio.fixture
async def node(settings: LocalSettings) -> AsyncIterator[Node]:
    async with kubelet_of(settings) as node:
        yield node
