"""What is known of a query."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["QueryFacts"]


@dataclass(frozen=True, slots=True)
class QueryFacts:
    """Tables by their full, normalised names. ``reads`` has the line of each, 0 where it is not known."""

    reads: dict[str, int] = field(default_factory=dict)
    writes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """The names that were asked for, in their order, normalised."""
    problem: tuple[int, str] | None = None
    """Line and reason, when the SQL cannot be read."""
