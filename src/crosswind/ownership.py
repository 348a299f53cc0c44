"""Paths that Crosswind writes or removes: nothing of the user's is overwritten, and nothing of theirs is deleted.

One rule for every such path. A path is ours when it is a regular file that carries our mark, or a folder with a marked
file in it; an empty file carries none. A link is never followed and never replaced. A file of ours whose owner, a
process that still runs, is another one is left alone, and the message names that process; what a dead owner left is
taken over. Whoever finds something else at the path gets a ``ConfigError`` that says what to do.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from crosswind.errors import ConfigError
from crosswind.types import Json

__all__ = [
    "FOLDER_FILE",
    "Mark",
    "Owner",
    "check",
    "check_folder",
    "check_tree",
    "claim_folder",
    "folder_owner",
    "line_mark",
    "release_folder",
    "remove",
    "temporary_folder",
    "write",
    "write_new",
]

FOLDER_FILE = ".crosswind"
"""The marked file that makes a folder ours."""

_HEAD = 4096
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that uses a file, and which of its uses that is.

    ``started`` tells the process from a later one with the same id: ticks since boot, or seconds where there is no
    ``/proc``. ``use`` tells two uses by one process apart.
    """

    pid: int
    started: int
    use: str = field(default_factory=lambda: secrets.token_hex(8))

    @classmethod
    def this_process(cls) -> Owner:
        """Return a new use by the current process."""
        return cls(os.getpid(), _started(os.getpid()) or 0)

    @classmethod
    def read(cls, fields: Json) -> Owner | None:
        """Return the owner that ``fields`` gave; None when there is none, or what stands there is damaged."""
        if not isinstance(fields, dict):
            return None
        pid, started, use = fields.get("pid"), fields.get("started"), fields.get("use")
        return cls(pid, started, str(use)) if isinstance(pid, int) and isinstance(started, int) else None

    @property
    def fields(self) -> dict[str, Json]:
        """The owner as it stands in a file."""
        return {"pid": self.pid, "started": self.started, "use": self.use}

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs. A zombie does not."""
        return self.pid > 0 and _started(self.pid) == self.started


@dataclass(frozen=True, slots=True)
class Mark:
    """How to recognise a file of ours."""

    command: str
    """Who writes it, for messages: ``crosswind local up``."""

    is_in: Callable[[bytes], bool]
    """Whether a file with this content is ours. An empty file carries no mark."""

    owner_in: Callable[[bytes], Owner | None] = lambda content: None
    """Which process uses the file; None when it needs none to be left alone."""

    head: int = _HEAD
    """Bytes at the beginning of the file that are needed to tell."""


def line_mark(command: str, line: str) -> Mark:
    """Return the mark of text files that begin with ``line``."""
    return Mark(command, lambda content: content.startswith(line.encode()))


def check(path: Path, mark: Mark, me: Owner | None = None) -> None:
    """Raise ``ConfigError`` unless there is nothing at ``path``, or what is there is ours to replace.

    ``me``: the use of the caller, whose own file is no obstacle.
    """
    with _translated(path), _opened(path) as handle:
        if handle is not None:
            _judge(path, os.pread(handle, mark.head, 0), mark, me)


def write(
    path: Path, content: bytes, mark: Mark, *, me: Owner | None = None, mode: int | None = None, durable: bool = False
) -> None:
    """Write a file of ours in one step; readers see the old content or the new one.

    ``mode``: permissions; None keeps those of the file that is replaced, and gives a new one what the umask allows.
    ``durable``: it survives a power failure. Raises ``ConfigError`` as ``check`` does, and when it cannot be written.
    """
    with _translated(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _translated(path):
        for _ in range(_ATTEMPTS):
            if _placed(path, content, mark, me, mode, durable):
                return
    raise ConfigError(f"{path} is being replaced by others all the time: name another file")


def check_tree(folder: Path, names: Iterable[str], mark: Mark) -> None:
    """Raise ``ConfigError`` unless all these files may be written below ``folder``. Links on the way are refused, too.

    ``folder`` itself may be a link to a folder: whoever named it, meant where it leads.
    """
    for name in names:
        path = folder / name
        if ".." in path.relative_to(folder).parts:
            raise ConfigError(f"{path} leads out of {folder}: choose another name for what is written there")
        for parent in path.relative_to(folder).parents[:-1]:
            if (folder / parent).is_symlink():
                raise ConfigError(_link_text(folder / parent))
        check(path, mark)


def write_new(path: Path, text: str) -> None:
    """Write a file that only its owner may read into a folder of ours. ``ConfigError`` when the name is taken."""
    with _translated(path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)


def remove(path: Path, mark: Mark, me: Owner | None = None) -> bool:
    """Remove a file if it is ours; return whether. What others put there in the meantime stays."""
    try:
        with _opened(path) as handle:
            if handle is None:
                return False
            _judge(path, os.pread(handle, mark.head, 0), mark, me)
            path.unlink()
            return True
    except (ConfigError, OSError):
        return False


def claim_folder(path: Path, command: str, me: Owner) -> None:
    """Take a folder for one process: a new one, an empty one, or one of ours whose owner has died.

    Raises ``ConfigError`` as ``check_folder`` does.
    """
    check_folder(path, command, me)
    with _translated(path):
        path.mkdir(0o700, parents=True, exist_ok=True)
    write(path / FOLDER_FILE, _folder_text(command, me), _folder_mark(command), me=me, mode=0o600)


@contextlib.contextmanager
def temporary_folder(prefix: str, command: str) -> Iterator[Path]:
    """Make a folder that goes with the block. First those go whose owner, the same command, was killed."""
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        owner = folder_owner(left, command)
        if owner is not None and not owner.is_alive:
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        claim_folder(folder, command, Owner.this_process())
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_folder(path: Path, command: str, me: Owner | None = None) -> None:
    """Raise ``ConfigError`` for a link, a file, a folder that holds something else, and one that is in use."""
    with _translated(path):
        if path.is_symlink():
            raise ConfigError(_link_text(path))
        if not path.exists():
            return
        if not path.is_dir():
            raise ConfigError(f"{path} is a file: name a folder")
        if os.path.lexists(path / FOLDER_FILE):
            check(path / FOLDER_FILE, _folder_mark(command), me)
        elif next(path.iterdir(), None) is not None:
            raise ConfigError(
                f"{path} holds files and is no folder of {command}: move them away, or name another folder"
            )


def release_folder(path: Path, command: str, me: Owner) -> None:
    """Give up a folder that was claimed, with all that it holds: the next one may claim it."""
    with contextlib.suppress(ConfigError):  # it was removed, or somebody else has put his own there
        if path.is_dir():
            write(path / FOLDER_FILE, _folder_text(command, None), _folder_mark(command), me=me, mode=0o600)


def folder_owner(path: Path, command: str) -> Owner | None:
    """Return who claimed a folder last. None: it is not ours, is another user's, or was released."""
    with contextlib.suppress(OSError, ConfigError):
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
            with _opened(path / FOLDER_FILE) as handle:
                mark = _folder_mark(command)
                if handle is not None and mark.is_in(content := os.pread(handle, mark.head, 0)):
                    return mark.owner_in(content)
    return None


def _folder_mark(command: str) -> Mark:
    return Mark(command, lambda content: _folder_fields(content).get("command") == command, _folder_owner)


def _folder_owner(content: bytes) -> Owner | None:
    return Owner.read(_folder_fields(content).get("owner"))


def _folder_text(command: str, owner: Owner | None) -> bytes:
    return json.dumps({"command": command, "owner": owner.fields if owner else None}).encode() + b"\n"


def _folder_fields(content: bytes) -> dict[str, Json]:
    try:
        fields = json.loads(content)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _placed(path: Path, content: bytes, mark: Mark, me: Owner | None, mode: int | None, durable: bool) -> bool:
    """Try once; False when somebody else was faster and the path must be looked at again."""
    with _opened(path) as handle:
        if handle is not None:
            # Two that take over what a dead owner left meet at this lock; the second finds another file at the path.
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            if not _is_at(path, handle):
                return False
            _judge(path, os.pread(handle, mark.head, 0), mark, me)
            mode = stat.S_IMODE(os.fstat(handle).st_mode) if mode is None else mode
        with _temporary(path, content, mode, durable) as part:
            if handle is not None:
                part.replace(path)
                return True
            return _put(part, path)


def _put(part: Path, path: Path) -> bool:
    """Give a file its name unless the name is taken; return whether."""
    try:
        path.hardlink_to(part)
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            return False
        part.replace(path)
    return True


@contextlib.contextmanager
def _temporary(path: Path, content: bytes, mode: int | None, durable: bool) -> Iterator[Path]:
    """Write a new file beside ``path``; it is removed in the end unless it was renamed."""
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666 if mode is None else mode)
    try:
        with open(handle, "wb") as file:
            if mode is not None:
                os.fchmod(handle, mode)
            file.write(content)
            if durable:
                file.flush()
                os.fsync(handle)
        yield part
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """Open a regular file for reading; None when there is nothing. ``ConfigError`` for a link, a folder, a device."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        yield None
        return
    if stat.S_ISLNK(mode):
        raise ConfigError(_link_text(path))
    if stat.S_ISDIR(mode):
        raise ConfigError(f"{path} is a folder: name a file")
    if not stat.S_ISREG(mode):
        raise ConfigError(f"{path} is a device, a pipe or a socket: name a file")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:  # it went in this moment
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _judge(path: Path, content: bytes, mark: Mark, me: Owner | None) -> None:
    if not mark.is_in(content):
        raise ConfigError(f"{path} is there and was not written by {mark.command}: move it away, or name another file")
    owner = mark.owner_in(content)
    if owner is not None and owner != me and owner.is_alive:
        raise ConfigError(
            f"{path} is in use by {mark.command} with process id {owner.pid}: end that one, or name another file"
        )


def _link_text(path: Path) -> str:
    target = os.readlink(path)
    return (
        f"{path} is a link to {target}, and links are neither followed nor replaced: name what it points to, or another"
    )


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as problem:
        raise ConfigError(f"cannot write {path}: {problem.strerror or problem}; name another path") from problem


def _started(pid: int) -> int | None:
    """Return when a process began; None when there is none, or only its zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None if os.path.exists("/proc/self/stat") else _started_elsewhere(pid)
    fields = re.sub(r"^.*\)", "", text, flags=re.DOTALL).split()  # the program's name may hold spaces and brackets
    return None if fields[0] in "ZX" else int(fields[19])


def _started_elsewhere(pid: int) -> int | None:
    """Do it where there is no ``/proc``."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time())
    except psutil.Error:
        return None
