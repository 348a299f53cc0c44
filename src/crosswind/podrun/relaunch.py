"""The pod that follows one which the cluster took, in the same try of its task: its name and its label. Pure.

The label counts, so that a later try, or the worker that resumes a deferred task, goes on counting.
"""

from __future__ import annotations

from crosswind.pods.fields import as_pod, labels_of, text
from crosswind.types import AnyPod

__all__ = ["LOSSES", "losses_before", "name_after_losses"]

LOSSES = "crosswind/losses"
"""Label of a pod: how many pods of the same try the cluster took before it. Absent on the first one."""

_MAX_NAME = 63


def losses_before(pod: AnyPod) -> int:
    """Return how many pods of its try the cluster took before this one, by its label."""
    label = text(labels_of(as_pod(pod)).get(LOSSES))
    return int(label) if label.isdecimal() and label.isascii() else 0


def name_after_losses(name: str, before: int, losses: int) -> str:
    """Return the name of the next pod: that of the first one, and the number of losses.

    ``name``: of a pod with ``before`` losses. Another name than the lost pod's, because the object of a pod on a dead
    node stays.

    >>> name_after_losses("report", 0, 1), name_after_losses("report-1", 1, 2)
    ('report-1', 'report-2')
    """
    first = name.removesuffix(f"-{before}") if before else name
    suffix = f"-{losses}"
    return first[: _MAX_NAME - len(suffix)].rstrip("-.") + suffix
