"""The loop over the changes of a kind that controllers, scheduler and simulation share.

The caller owns the task of ``follow``, which ends by cancellation only. A failure on one object is logged, and the next
object is handled, as client-go's controllers do: the parts share one task group, which an exception would end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from kubelocal.interfaces import Change, Registry
from kubelocal.types import Manifest

__all__ = ["failures_logged", "follow"]

_log = logging.getLogger(__name__)


async def follow(registry: Registry, kind: str, take: Callable[[Change], None], component: str) -> None:
    """Call ``take`` with each change of a kind, until cancelled. ``component``: who logs its failures."""
    with closing(registry.watch(kind)) as changes:
        async for change in changes:
            with failures_logged(component, change.object):
                take(change)


@contextmanager
def failures_logged(component: str, manifest: Manifest) -> Iterator[None]:
    """Log an exception of the block, with the object that it handles, and go on after it."""
    try:
        yield
    except Exception:
        metadata = manifest["metadata"]
        name = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
        _log.exception("%s: %s %s", component, manifest.get("kind"), name)
