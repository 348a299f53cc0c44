"""Files that commands write and remove, without harm to files of the user.

A command replaces or removes a file only if it has written it: a regular file whose content begins with the command's
mark. Links are neither followed nor replaced. Anything else at the path raises ``ConfigError`` with the fix. Libraries
for atomic writes replace every file.
"""

# kubelocal.owned_paths has the same rule for files that a running process owns, with owners, locks and folders.
# The commands here must work without kubelocal, which must not import crosswind: both contain the code that they share.

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from crosswind.errors import ConfigError

__all__ = ["FileMark", "check", "check_tree", "line_mark", "remove", "write"]

_MARK_BYTES = 4096
"""Bytes at the beginning of a file in which the mark is looked for."""


@dataclass(frozen=True, slots=True)
class FileMark:
    """How to recognise a file that a command has written."""

    command: str
    """The command, for messages: ``crosswind render``."""

    is_in: Callable[[bytes], bool]
    """Whether the beginning of a file carries the mark. An empty file must not."""


def line_mark(command: str, line: str) -> FileMark:
    """Return the mark of text files whose first line is ``line``."""
    return FileMark(command, lambda content: content.startswith(line.encode()))


def check(path: Path, mark: FileMark) -> None:
    """Raise ``ConfigError`` unless the path is free or holds a file with the mark."""
    with _translated(path):
        beginning = _beginning(path)
    if beginning is not None and not mark.is_in(beginning):
        raise ConfigError(f"{path} is there and was not written by {mark.command}: move it away, or name another file")


def write(path: Path, content: bytes, mark: FileMark, *, mode: int | None = None) -> None:
    """Write a file atomically: readers see the old content or the new. Of two writers at once, the last one wins.

    ``mode``: permissions; None keeps those of the replaced file, and gives a new file those that the umask allows.
    Raises ``ConfigError`` as ``check`` does, and when the file cannot be written.
    """
    with _translated(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    check(path, mark)
    with _translated(path), _temporary_file(path, content, _mode_of(path) if mode is None else mode) as temporary:
        if not _link_if_free(temporary, path):
            check(path, mark)  # again: the user may have put a file there meanwhile
            temporary.replace(path)


def check_tree(folder: Path, names: Iterable[str], mark: FileMark) -> None:
    """Raise ``ConfigError`` unless all these files may be written below ``folder``.

    Links between ``folder`` and a file are refused. ``folder`` itself may be a link: the user has named it.
    """
    for name in names:
        path = folder / name
        if ".." in path.relative_to(folder).parts:
            raise ConfigError(f"{path} leads out of {folder}: choose another name for the file")
        for parent in path.relative_to(folder).parents[:-1]:
            if (folder / parent).is_symlink():
                raise ConfigError(_link_text(folder / parent))
        check(path, mark)


def remove(path: Path, mark: FileMark) -> bool:
    """Remove a file if it carries the mark; return whether it did."""
    try:
        check(path, mark)
        path.unlink()
    except (ConfigError, OSError):
        return False
    return True


def _link_if_free(temporary: Path, path: Path) -> bool:
    """Give the file its final name unless that is taken; return whether it has it.

    A hard link, because a rename would replace a file that another process has just created.
    """
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError:  # the file system has no hard links
        if os.path.lexists(path):
            return False
        temporary.replace(path)
    return True


@contextlib.contextmanager
def _temporary_file(path: Path, content: bytes, mode: int | None) -> Iterator[Path]:
    """Write a new file in the folder of ``path``, which is removed at the end unless it was renamed."""
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666 if mode is None else mode)
    try:
        with open(handle, "wb") as file:
            if mode is not None:
                os.fchmod(handle, mode)
            file.write(content)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _beginning(path: Path) -> bytes | None:
    """Read the bytes that may hold the mark; None for a free path. ``ConfigError`` for a link, a folder or a device."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            raise ConfigError(_link_text(path))
        if stat.S_ISDIR(mode):
            raise ConfigError(f"{path} is a folder: name a file")
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{path} is a device, a pipe or a socket: name a file")
        # Non-blocking and without links: the path may have become a pipe or a link since.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(handle, "rb") as file:
        return file.read(_MARK_BYTES)


def _mode_of(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.lstat().st_mode)
    except FileNotFoundError:
        return None


def _link_text(path: Path) -> str:
    target = os.readlink(path)
    return (
        f"{path} is a link to {target}, and links are neither followed nor replaced: name its target, or another path"
    )


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}; name another path") from error
