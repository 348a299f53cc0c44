"""Names of files and tasks from any text: both accept few characters. Pure."""

from __future__ import annotations

import hashlib
import re

__all__ = ["plain_name"]

_OTHER = re.compile(r"[^A-Za-z0-9_.-]")


def plain_name(text: str, limit: int) -> str:
    """Return ``text`` in ASCII letters, digits, dots, dashes and underscores, at most ``limit`` characters.

    A name that differs from ``text`` ends in a digest of it: ``a/b`` and ``a_b`` must not become one name.
    """
    plain = _OTHER.sub("_", text)
    if plain == text and len(text) <= limit:
        return text
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{plain[: limit - len(digest) - 1]}.{digest}"
