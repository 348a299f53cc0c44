"""The one place that changes a setting of the whole scheduler process: Python's garbage collector.

``[crosswind] tune_garbage_collector = False`` turns it off.
"""

from __future__ import annotations

import functools
import gc

__all__ = ["tune_garbage_collector"]

_DEFAULT_FULL_THRESHOLD, _FULL_THRESHOLD = 10, 50
"""Collections of the middle generation, of some 7,000 new objects each, between two full collections."""


@functools.cache
def tune_garbage_collector() -> None:
    """Exempt all loaded objects from garbage collection, and make full collections rarer; once per process.

    A full collection of a scheduler stops all its threads for 150 ms, because it walks through every object of Airflow.
    ``gc.freeze`` exempts those: objects loaded at start stay loaded anyway. But Python starts a full collection when
    the new objects exceed a quarter of the old ones, and frozen objects do not count as old. Thousands of tasks
    that wait would then be walked every few seconds. The raised threshold amounts to the same interval as with all of
    Airflow counted. A threshold that the deployment has set stays.
    """
    gc.collect()
    gc.freeze()
    young, middle, full = gc.get_threshold()
    if full == _DEFAULT_FULL_THRESHOLD:
        gc.set_threshold(young, middle, _FULL_THRESHOLD)
