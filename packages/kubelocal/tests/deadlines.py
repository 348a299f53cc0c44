"""How long a test waits for an event before it fails: the one place that scales every deadline.

The seconds that stand in the tests are generous on an idle machine. A machine that is busy, or a coverage tracer, needs
more, so each deadline goes through ``scaled``, and the root conftest scales the limit of each whole test alike. Set
``TEST_TIME_SCALE=1`` to see a hang sooner, or a larger factor on a slow machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from hypothesis import HealthCheck, settings

T = TypeVar("T")

# Hypothesis measures by the clock how long an example takes; how busy the machine is says nothing about a test.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

TIME_SCALE = float(os.environ.get("TEST_TIME_SCALE") or 4)
"""Four: three test processes, their pods and three other programs on two cores leave a test a quarter of its speed."""


def scaled(seconds: float) -> float:
    """Return a deadline, given in seconds of an idle machine, for this machine."""
    return seconds * TIME_SCALE


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """Run a block whose CPU time is measured without coverage's tracer, which triples it."""
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(tracer)


async def eventually(condition: Callable[[], T], seconds: float = 20, *, every: float = 0.01) -> T:
    """Return the condition's first true value; for state that gives no event to wait for."""
    try:
        async with asyncio.timeout(scaled(seconds)):
            while not (value := condition()):  # noqa: ASYNC110 - its callers have no event
                await asyncio.sleep(every)
    except TimeoutError:
        raise AssertionError(f"not within {scaled(seconds):g} s: {condition!r}") from None
    return value


def eventually_blocking(condition: Callable[[], T], seconds: float = 20, *, every: float = 0.02) -> T:
    """Do the same in a test that runs no event loop."""
    end = time.monotonic() + scaled(seconds)
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {scaled(seconds):g} s: {condition!r}"
        time.sleep(every)
    return value
