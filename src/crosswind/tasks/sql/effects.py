"""What a statement does, as values: tables that it reads, makes, changes, moves or drops, in that order."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from crosswind.tasks.sql.names import Parts

__all__ = ["Did", "Effect"]


class Did(Enum):
    """What happened to ``table``; with ``RENAME`` and ``SWAP``, ``other`` is the second table."""

    READ = "reads"
    MAKE = "creates"
    CHANGE = "changes"
    TEMPORARY = "creates for the session"
    DROP = "drops"
    RENAME = "renames"
    SWAP = "swaps"
    USE_SCHEMA = "sets the schema"
    USE_CATALOG = "sets the database"
    RESET = "sets the schema back"
    HIDDEN = "runs something that is not in this text"
    UNKNOWN = "is not understood"


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that a statement does. ``line`` is that of the text, 0 where it is not known."""

    did: Did
    table: Parts = ()
    line: int = 0
    other: Parts = ()
    reason: str = ""
    """Why it is unknown."""
    fatal: bool = False
    """Whether the text is surely no SQL."""
