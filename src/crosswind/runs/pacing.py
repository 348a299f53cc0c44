"""How many requests may be under way: grows while the server takes them, halves when it pushes back. Pure.

Additive increase, multiplicative decrease, with a fast start, as TCP does (RFC 5681): the limit doubles per round until
the first refusal, then grows by one per round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

__all__ = ["Pace"]


@dataclass(frozen=True, slots=True)
class Pace:
    """The number of requests that may be under way, and from when on new ones may start. Times: monotonic seconds."""

    limit: float = 8.0
    ceiling: float = 64.0
    threshold: float = math.inf
    """Below it the limit doubles per round, above it grows by one per round."""
    resume_at: float = -math.inf
    halved_at: float = -math.inf

    def accepted(self, under_way: int) -> Pace:
        """After an answer that was no push-back; only a limit that is used up grows."""
        if under_way < int(self.limit) or self.limit >= self.ceiling:
            return self
        step = 1.0 if self.limit < self.threshold else 1.0 / self.limit
        return replace(self, limit=min(self.ceiling, self.limit + step))

    def pushed_back(self, sent_at: float, now: float, pause: float = 0.0) -> Pace:
        """After a 429, a 5xx or no answer; requests that were sent before the last halving tell nothing new.

        ``pause``: seconds for which the server wants no request at all.
        """
        resume_at = max(self.resume_at, now + pause)
        if sent_at < self.halved_at:
            return replace(self, resume_at=resume_at)
        limit = max(1.0, self.limit / 2)
        return replace(self, limit=limit, threshold=limit, halved_at=now, resume_at=resume_at)

    def may_start(self, under_way: int, now: float) -> bool:
        """Whether one more request may start."""
        return under_way < int(self.limit) and now >= self.resume_at
