"""The one place that changes a setting of the whole scheduler process: Python's garbage collector.

``[crosswind] tune_garbage_collector = False`` turns it off.
"""

from __future__ import annotations

import functools
import gc

__all__ = ["tune_garbage_collector"]

_DEFAULTS = {(700, 10, 10), (2000, 10, 10)}
"""The thresholds that Python sets, by version. Any others are the deployment's, or of a collector of another kind."""

_THRESHOLDS = 5_000, 4, 18
"""New objects between two collections of the youngest, those between two of the middle generation, and so on.

A pod makes some hundred objects, of which nearly all are gone a second later. At Python's 700 the collector walks them
while they are in use: 4 % of the executor's CPU at 900 pods a second, 1 % at 5,000. Larger numbers save nothing
further, and a collection of the middle generation, which stops the scheduler, would take longer than some milliseconds.
"""


@functools.cache
def tune_garbage_collector() -> None:
    """Exempt all loaded objects from garbage collection, and make collections rarer; once per process.

    A full collection of a scheduler stops all its threads for 150 ms, because it walks through every object of Airflow.
    ``gc.freeze`` exempts those: objects loaded at start stay loaded anyway. But Python starts a full collection when
    the new objects exceed a quarter of the old ones, and frozen objects do not count as old. Thousands of tasks
    that wait would then be walked every few seconds. The raised thresholds amount to the same interval as with all of
    Airflow counted. Thresholds that the deployment has set stay.
    """
    gc.collect()
    gc.freeze()
    if gc.get_threshold() in _DEFAULTS:
        gc.set_threshold(*_THRESHOLDS)
