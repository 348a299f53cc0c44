"""One request, made again while its failure is transient."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from crosswind.errors import CrosswindError
from crosswind.kube.retry import Retries

__all__ = ["retried"]

T = TypeVar("T")


async def retried(act: Callable[[], Awaitable[T]], patience: float) -> T:
    """Return what ``act`` returns; raise its error when that is not transient, or ``patience`` seconds are over."""
    retries = Retries(patience=patience)
    while True:
        try:
            return await act()
        except CrosswindError as error:
            await asyncio.sleep(retries.after(error))
