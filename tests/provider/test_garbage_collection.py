from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from crosswind.provider.garbage_collection import tune_garbage_collector


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


def test_full_collections_become_rare_and_skip_what_is_loaded() -> None:
    gc.set_threshold(700, 10, 10)
    gc.collect()
    loaded = len(gc.get_objects())
    tune_garbage_collector.__wrapped__()
    assert gc.get_freeze_count() >= 0.9 * loaded
    assert gc.get_threshold() == (5_000, 4, 18)


def test_a_threshold_of_the_deployment_stays() -> None:
    gc.set_threshold(900, 20, 30)
    tune_garbage_collector.__wrapped__()
    assert gc.get_threshold() == (900, 20, 30)
