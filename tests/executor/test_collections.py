from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from crosswind import executor


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_full_walks_become_rare_once_what_is_loaded_does_not_count() -> None:
    gc.set_threshold(700, 10, 10)
    executor._freeze.__wrapped__()
    assert gc.get_freeze_count() > 100_000
    assert gc.get_threshold() == (700, 10, 50)


def test_a_deployments_own_threshold_stays() -> None:
    gc.set_threshold(900, 20, 30)
    executor._freeze.__wrapped__()
    assert gc.get_threshold() == (900, 20, 30)
