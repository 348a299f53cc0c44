"""Standard input and output that are closed (``<&-``, ``>&-``) or full.

Python sets ``sys.stdin`` or ``sys.stdout`` to None if its descriptor is closed. A command would end in an
AttributeError, or print nothing and report success.
"""

from __future__ import annotations

import errno
import io
import os
import sys

__all__ = ["discard_output", "replace_closed"]


class _ClosedFile(io.RawIOBase):
    """A file whose reads and writes fail as those of a closed descriptor do, with its name."""

    def __init__(self, name: str) -> None:
        self._name = name

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        raise OSError(errno.EBADF, f"{self._name} is closed")

    def write(self, data: object) -> int:
        raise OSError(errno.EBADF, f"{self._name} is closed")


def replace_closed() -> None:
    """Replace closed streams by some that are not terminals, and that raise ``OSError`` when they are used."""
    # A type checker believes that there always are streams.
    streams: dict[str, io.TextIOWrapper | None] = {"in": sys.stdin, "out": sys.stdout}  # type: ignore[dict-item]
    if streams["in"] is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_ClosedFile("standard input")))
    if streams["out"] is None:
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(_ClosedFile("standard output")))


def discard_output() -> bool:
    """Return whether standard output cannot be written, and discard what it still holds.

    Python would write it again at its end, and report the error with a traceback.
    """
    try:
        sys.stdout.flush()
        return False
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        except OSError:  # a stream without a descriptor
            sys.stdout = open(nowhere, "w")  # noqa: SIM115 - it is open as long as the process runs
        return True
