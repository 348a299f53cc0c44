from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from crosswind.provider.garbage_collection import tune_garbage_collector


@pytest.fixture
def _default_collector() -> Iterator[None]:
    """Give the process Python's own thresholds, and whatever it had before back afterwards."""
    before = gc.get_threshold()
    tune_garbage_collector.cache_clear()
    gc.set_threshold(700, 10, 10)
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("_default_collector")
@pytest.mark.parametrize(("value", "tuned"), [(None, True), ("True", True), ("False", False), ("sometimes", False)])
def test_the_garbage_collector_of_the_process_is_tuned_unless_the_option_forbids_it(
    bench: Any, value: str | None, tuned: bool
) -> None:
    if value is not None:
        bench.set("crosswind", tune_garbage_collector=value)
    bench.start()
    assert (gc.get_threshold() != (700, 10, 10)) is tuned
    assert ("[crosswind] tune_garbage_collector" in bench.executor._refusal) == (value == "sometimes")
