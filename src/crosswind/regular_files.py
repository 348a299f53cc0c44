"""Files that others write, read so that no path stops or kills the process that reads them.

Links are followed, since ConfigMaps and Secrets are mounted as links. What they lead to is a regular file of bounded
size: a FIFO would block its reader for ever, and ``/dev/zero`` would take all memory.
"""

from __future__ import annotations

import codecs
import os
import stat
import sys
from typing import BinaryIO

from crosswind.errors import ConfigError

__all__ = ["MAX_BYTES", "check_regular", "read_bytes", "read_text"]

MAX_BYTES = 1024 * 1024
"""Of a file: as much as a ConfigMap holds, and the API server takes of one object."""

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

_ENCODINGS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


def read_text(path: str | os.PathLike[str], *, what: str = "file", pipes: bool = False) -> str:
    """Return the text of a file: UTF-8, or UTF-16 with the byte order mark that editors on Windows write.

    ``what``: the kind of file, for messages. ``pipes``: whether the path is a command's argument, so that pipes
    (``/dev/stdin``, ``<(...)``) and "-" for standard input are meant. Raises ``ConfigError`` with path and reason.
    """
    data = read_bytes(path, what=what, pipes=pipes)
    encoding = next((name for mark, name in _ENCODINGS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{what} {os.fspath(path)} is not UTF-8 text: {error.reason} at byte {error.start};"
            " save it in that encoding"
        ) from None


def read_bytes(
    path: str | os.PathLike[str], *, what: str = "file", pipes: bool = False, limit: int = MAX_BYTES
) -> bytes:
    """Return the content of a file of at most ``limit`` bytes, as ``read_text``."""
    try:
        if pipes and os.fspath(path) == "-":
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with _open(path, pipes=pipes) as file:
                data = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(
            f"{what} {os.fspath(path)} cannot be read: {error.strerror or error}; correct the path, or mount the file"
        ) from error
    except ValueError as error:  # a NUL byte in the path
        raise ConfigError(f"{what} {os.fspath(path)!r} cannot be read: {error}; correct the path") from error
    if len(data) > limit:
        raise ConfigError(
            f"{what} {os.fspath(path)} is larger than {limit // 1024} KiB; take out what it does not need"
        )
    return data


def check_regular(path: str | os.PathLike[str] | int) -> None:
    """Raise ``OSError`` unless a path or descriptor is a regular file's: for libraries that open files themselves."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise OSError(0, f"it is {_KINDS.get(stat.S_IFMT(mode), 'something else')}, not a regular file", path)


def _open(path: str | os.PathLike[str], *, pipes: bool) -> BinaryIO:
    if pipes:
        return open(path, "rb")
    check_regular(path)  # before it is opened: to open a device may block already, or do something
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        check_regular(descriptor)  # the path may have been replaced meanwhile
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
