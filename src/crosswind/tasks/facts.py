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
    unread: tuple[tuple[int, str], ...] = ()
    """Line and reason of each statement that is not understood; the others count."""
    no_query: tuple[int, str] | None = None
    """Line and reason, when the text is surely no SQL."""
    complete: bool = True
    """Whether ``reads`` is surely all: nothing is unread, made up by a template, or run from elsewhere."""
