"""Cleans every text on its way into the metadata database. Pure."""

from __future__ import annotations

__all__ = ["storable"]

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_CUT = " … (cut)"


def storable(text: object, *, most_bytes: int | None = None, most_chars: int | None = None) -> str:
    """Return a text that PostgreSQL, MySQL and SQLite store, and that encodes as UTF-8.

    NUL characters, which PostgreSQL refuses, and lone surrogates, which UTF-8 cannot encode, become U+FFFD.
    ``most_bytes`` and ``most_chars``: the column's limits; a longer text is cut, with a mark where it fits.
    """
    clean = text if type(text) is str else str(text)
    if clean.isascii():
        fits = most_chars is None or len(clean) <= most_chars
        if fits and most_bytes is None and "\0" not in clean:
            return clean  # nearly every text; a pod's row has ten
    else:
        # JSON escapes write a character beyond U+FFFF as a pair of surrogates: UTF-16 joins pairs, "replace" the rest.
        clean = clean.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    clean = clean.replace("\0", _REPLACEMENT)
    if most_chars is not None and len(clean) > most_chars:
        clean = clean[: most_chars - len(_CUT)] + _CUT if most_chars > 2 * len(_CUT) else clean[:most_chars]
    if most_bytes is not None and len(data := clean.encode()) > most_bytes:
        clean = data[: most_bytes - len(_CUT.encode())].decode(errors="ignore") + _CUT
    return clean
