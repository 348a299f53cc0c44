"""The one door for texts on their way to the database: whatever a pod or an author wrote, each database takes it."""

from __future__ import annotations

__all__ = ["storable"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_CUT = " … (cut)"


def storable(text: object, *, most_bytes: int | None = None, most_chars: int | None = None) -> str:
    """Return a text that PostgreSQL, MySQL and SQLite store, and that encodes as UTF-8.

    NUL characters, which PostgreSQL refuses, and lone surrogates, which no encoding takes, become U+FFFD.
    ``most_bytes`` and ``most_chars``: what the column takes; a longer text is cut, and says so where there is room.
    """
    clean = str(text)
    if not clean.isascii():
        # A pair of surrogates, as JSON escapes leave it, is one character; what is left over is replaced.
        clean = clean.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    clean = clean.replace("\0", _REPLACEMENT)
    if most_chars is not None and len(clean) > most_chars:
        clean = clean[: most_chars - len(_CUT)] + _CUT if most_chars > 2 * len(_CUT) else clean[:most_chars]
    if most_bytes is not None and len(data := clean.encode()) > most_bytes:
        clean = data[: most_bytes - len(_CUT.encode())].decode(errors="ignore") + _CUT
    return clean
