"""The effects of a statement as values: the tables that it reads, creates, changes, renames or drops."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from crosswind.tasks.sql.names import Parts

__all__ = ["Effect", "EffectKind"]


class EffectKind(Enum):
    """The effect on ``table``; for ``RENAME`` and ``SWAP``, ``other`` is the second table."""

    READ = "reads"
    MAKE = "creates"
    CHANGE = "changes"
    TEMPORARY = "creates for the session"
    DROP = "drops"
    RENAME = "renames"
    SWAP = "swaps"
    USE_SCHEMA = "sets the schema"
    USE_CATALOG = "sets the database"
    RESET = "resets the schema"
    HIDDEN = "runs code that is not in this text"
    UNKNOWN = "is not understood"


@dataclass(frozen=True, slots=True)
class Effect:
    """One effect of a statement. ``line`` is a line of the text, 0 if it is unknown."""

    action: EffectKind
    table: Parts = ()
    line: int = 0
    other: Parts = ()
    reason: str = ""
    """Why it is unknown."""
    fatal: bool = False
    """Whether the text is certainly not SQL."""
