"""The policy for a task after the cluster has taken its pod: the number of new tries, and their pods. Pure.

Global options, a queue and a task's ``executor_config`` can set each option; the last one that sets it takes
precedence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from crosswind.errors import OverrideError
from crosswind.pods.merge import check_override, merge_pods
from crosswind.types import Json, Manifest

__all__ = ["LOSS_KEYS", "LossChoice", "LossPolicy", "LostTry", "loss_choice", "loss_problems"]

LOSS_KEYS = ("infra_retries", "after_losses", "node_loss_seconds")
"""The options, by their names in ``[crosswind]``, in a queue and in ``executor_config["crosswind"]``."""


_MAX_NUMBER = 10**9
"""Of tries and of seconds; Kubernetes counts nanoseconds in 64 bits."""


@dataclass(frozen=True, slots=True)
class LossChoice:
    """The options of a queue or a task; None where unset."""

    retries: int | None = None
    after: Mapping[int, Manifest] | None = None
    node_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class LossPolicy:
    """The policy for one task."""

    retries: int = 3
    """Losses in a row after each of which the task gets another try without using up a retry. Three: a pod on spot
    machines may be taken twice; one that is taken a fourth time has another problem."""
    after: Mapping[int, Manifest] = field(default_factory=dict)
    """By number of losses, the patch of the pods from that loss on."""
    node_seconds: int = 30
    """Seconds that a pod stays bound to a node that does not answer; 0 leaves it to the cluster, which waits 300."""

    def chosen(self, *choices: LossChoice) -> LossPolicy:
        """Return the policy with these choices applied, the strongest last."""
        retries, after, node_seconds = self.retries, self.after, self.node_seconds
        for choice in choices:
            retries = retries if choice.retries is None else choice.retries
            after = after if choice.after is None else choice.after
            node_seconds = node_seconds if choice.node_seconds is None else choice.node_seconds
        return LossPolicy(retries, after, node_seconds)

    def patch(self, losses: int) -> Manifest | None:
        """Return the patch of a pod after so many losses, None for none."""
        patches = [self.after[number] for number in sorted(self.after) if number <= losses]
        patch: Manifest | None = None
        for addition in patches:
            patch = addition if patch is None else merge_pods(patch, addition)
        return patch


@dataclass(frozen=True, slots=True)
class LostTry:
    """What the metadata database did with a try that the cluster took."""

    losses: int
    """Losses in a row of the task instance, this one included."""
    refusal: str = ""
    """Why the task gets no further try, as the end of a sentence; "" when it gets one."""


def loss_problems(where: str, key: str, value: Json) -> Iterator[str]:
    """Yield the problems of one of the ``LOSS_KEYS``; each message begins with ``where``."""
    if key == "after_losses":
        yield from _patch_problems(where, value)
    elif not isinstance(value, int) or isinstance(value, bool) or value < 0:
        none = "no new try" if key == "infra_retries" else "the cluster's own tolerations"
        yield f"{where}: must be a whole number of at least 0, not {value!r}; 0 means {none}"
    elif value > _MAX_NUMBER:
        yield f"{where}: must be at most {_MAX_NUMBER}, not {value}"


def _patch_problems(where: str, value: Json) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f'{where}: must be a JSON object, pods by number of losses, like {{"1": {{}}}}, not {value!r}'
        return
    for number, patch in value.items():
        if not str(number).isdecimal() or int(number) < 1:
            yield f"{where}: {number!r} is not a number of losses; use whole numbers of at least 1"
            continue
        if not isinstance(patch, Mapping):
            yield f"{where}.{number}: must be a pod, not {patch!r}"
            continue
        try:
            check_override(patch, f"{where}.{number}")
        except OverrideError as error:
            yield from str(error).splitlines()


def loss_choice(options: Mapping[str, Json]) -> LossChoice:
    """Return the choice in a mapping in which ``loss_problems`` finds nothing wrong."""
    after = options.get("after_losses")
    patches = None if after is None else {int(number): patch for number, patch in after.items()}
    return LossChoice(options.get("infra_retries"), patches, options.get("node_loss_seconds"))
