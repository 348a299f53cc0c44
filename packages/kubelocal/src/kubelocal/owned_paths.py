"""Files and folders that a process owns: written atomically, never over a file of the user's.

A path is ours when it is a regular file with our signature, or a folder that contains such a file; an empty file has
none. Links are neither followed nor replaced. A file whose owner still runs is not touched, and the error names that
process; a file or folder of a dead owner is taken over. Anything else at the path raises ``SettingError`` with the fix.
"""

# crosswind.cli.output_files has the small form of this rule, for files without owners. This package stands alone and
# crosswind's commands must work without it, so the atomic write and its messages stand twice.

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kubelocal.errors import SettingError
from kubelocal.types import Json

__all__ = [
    "FOLDER_FILE",
    "FileSignature",
    "Owner",
    "check",
    "check_folder",
    "claim_folder",
    "folder_owner",
    "line_signature",
    "release_folder",
    "remove",
    "temporary_folder",
    "write",
    "write_new",
]

FOLDER_FILE = ".crosswind"
"""The marked file that makes a folder ours."""

_FORMER_COMMANDS = {"kubelocal up": "crosswind local up"}
"""Earlier names of commands: their folders are ours too."""

_HEAD = 4096
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that uses a file, and the identity of that use.

    ``started`` distinguishes the process from a later one with the same id: ticks since boot, or seconds where there is
    no ``/proc``. ``use`` distinguishes two uses by one process.
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
        """Return the owner with these ``fields``; None for missing or damaged ones."""
        if not isinstance(fields, dict):
            return None
        pid, started, use = fields.get("pid"), fields.get("started"), fields.get("use")
        return cls(pid, started, str(use)) if isinstance(pid, int) and isinstance(started, int) else None

    @property
    def fields(self) -> dict[str, Json]:
        """The owner's fields in a file."""
        return {"pid": self.pid, "started": self.started, "use": self.use}

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs; a zombie does not."""
        return self.pid > 0 and _started(self.pid) == self.started


@dataclass(frozen=True, slots=True)
class FileSignature:
    """How a file of ours is recognised."""

    command: str
    """The command that writes it, for messages: ``kubelocal up``."""

    is_in: Callable[[bytes], bool]
    """Whether a file with this content is ours. An empty file carries no mark."""

    owner_in: Callable[[bytes], Owner | None] = lambda content: None
    """The process that uses the file; None for files that have no owner."""

    head: int = _HEAD
    """Bytes at the beginning of the file that the functions above need."""


def line_signature(command: str, line: str) -> FileSignature:
    """Return the signature of text files that begin with ``line``."""
    return FileSignature(command, lambda content: content.startswith(line.encode()))


def check(path: Path, signature: FileSignature, me: Owner | None = None) -> None:
    """Raise ``SettingError`` unless ``path`` is free or holds a file of ours that may be replaced.

    ``me``: the caller's use, whose own file may be replaced.
    """
    with _translated(path), _opened(path) as handle:
        if handle is not None:
            _judge(path, os.pread(handle, signature.head, 0), signature, me)


def write(
    path: Path,
    content: bytes,
    signature: FileSignature,
    *,
    me: Owner | None = None,
    mode: int | None = None,
    durable: bool = False,
) -> None:
    """Write a file of ours atomically: readers see the old content or the new one.

    ``mode``: permissions; None keeps those of a replaced file and applies the umask to a new one. ``durable``: the file
    survives a power failure. Raises ``SettingError`` as ``check`` does, and for an unwritable path.
    """
    with _translated(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _translated(path):
        for _ in range(_ATTEMPTS):
            if _placed(path, content, signature, me, mode, durable):
                return
    raise SettingError(f"{path} is continually replaced by other processes; choose another file")


def write_new(path: Path, text: str) -> None:
    """Write a new file with mode 0600 into a folder of ours. Raises ``SettingError`` when it exists."""
    with _translated(path):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)


def remove(path: Path, signature: FileSignature, me: Owner | None = None) -> bool:
    """Remove a file if it is ours; return whether. A file that others put there meanwhile stays."""
    try:
        with _opened(path) as handle:
            if handle is None:
                return False
            _judge(path, os.pread(handle, signature.head, 0), signature, me)
            path.unlink()
            return True
    except (SettingError, OSError):
        return False


def claim_folder(path: Path, command: str, me: Owner) -> None:
    """Claim a folder for one process: a new one, an empty one, or one of ours whose owner has died.

    Raises ``SettingError`` as ``check_folder`` does.
    """
    check_folder(path, command, me)
    with _translated(path):
        path.mkdir(0o700, parents=True, exist_ok=True)
    write(path / FOLDER_FILE, _folder_text(command, me), _folder_signature(command), me=me, mode=0o600)


@contextlib.contextmanager
def temporary_folder(prefix: str, command: str) -> Iterator[Path]:
    """Make a folder for the block, and delete it afterwards; delete those of killed processes of this command first."""
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
    """Raise ``SettingError`` for a link, a file, a folder with other files, and a folder in use."""
    with _translated(path):
        if path.is_symlink():
            raise SettingError(_link_text(path))
        if not path.exists():
            return
        if not path.is_dir():
            raise SettingError(f"{path} is a file: name a folder")
        if os.path.lexists(path / FOLDER_FILE):
            check(path / FOLDER_FILE, _folder_signature(command), me)
        elif next(path.iterdir(), None) is not None:
            raise SettingError(
                f"{path} contains files and is not a folder of {command}: move them away, or name another folder"
            )


def release_folder(path: Path, command: str, me: Owner) -> None:
    """Release a claimed folder with its content, so that another process may claim it."""
    with contextlib.suppress(SettingError):  # it was removed, or replaced by the user
        if path.is_dir():
            write(path / FOLDER_FILE, _folder_text(command, None), _folder_signature(command), me=me, mode=0o600)


def folder_owner(path: Path, command: str) -> Owner | None:
    """Return the owner of a folder; None for a folder of others or of another user, and for a released one."""
    with contextlib.suppress(OSError, SettingError):
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
            with _opened(path / FOLDER_FILE) as handle:
                signature = _folder_signature(command)
                if handle is not None and signature.is_in(content := os.pread(handle, signature.head, 0)):
                    return signature.owner_in(content)
    return None


def _folder_signature(command: str) -> FileSignature:
    names = {command, _FORMER_COMMANDS.get(command)} - {None}
    return FileSignature(command, lambda content: _folder_fields(content).get("command") in names, _folder_owner)


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


def _placed(
    path: Path, content: bytes, signature: FileSignature, me: Owner | None, mode: int | None, durable: bool
) -> bool:
    """Try once; return False when another process was faster and the path must be checked again."""
    with _opened(path) as handle:
        if handle is not None:
            # Two processes that take over a dead owner's file meet at this lock; the second one finds another file.
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)
            if not _is_at(path, handle):
                return False
            _judge(path, os.pread(handle, signature.head, 0), signature, me)
            mode = stat.S_IMODE(os.fstat(handle).st_mode) if mode is None else mode
        with _temporary(path, content, mode, durable) as part:
            if handle is not None:
                part.replace(path)
                return True
            return _put(part, path)


def _put(part: Path, path: Path) -> bool:
    """Rename a file unless the name exists; return whether."""
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
    """Write a temporary file beside ``path``; remove it afterwards unless it was renamed."""
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
    """Open a regular file for reading, None for a missing one. Raises ``SettingError`` for a link, folder or device."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        yield None
        return
    if stat.S_ISLNK(mode):
        raise SettingError(_link_text(path))
    if stat.S_ISDIR(mode):
        raise SettingError(f"{path} is a folder: name a file")
    if not stat.S_ISREG(mode):
        raise SettingError(f"{path} is a device, a pipe or a socket: name a file")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:  # it was removed in this moment
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _judge(path: Path, content: bytes, signature: FileSignature, me: Owner | None) -> None:
    if not signature.is_in(content):
        raise SettingError(
            f"{path} is there and was not written by {signature.command}: move it away, or name another file"
        )
    owner = signature.owner_in(content)
    if owner is not None and owner != me and owner.is_alive:
        raise SettingError(
            f"{path} is in use by {signature.command} with process id {owner.pid}: end that one, or name another file"
        )


def _link_text(path: Path) -> str:
    target = os.readlink(path)
    return f"{path} is a link to {target}, and links are neither followed nor replaced: use its target or another path"


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
        raise SettingError(f"cannot write {path}: {problem.strerror or problem}; name another path") from problem


def _started(pid: int) -> int | None:
    """Return the start time of a process; None if it does not run or is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None if os.path.exists("/proc/self/stat") else _started_elsewhere(pid)
    fields = re.sub(r"^.*\)", "", text, flags=re.DOTALL).split()  # the program's name may hold spaces and brackets
    return None if fields[0] in "ZX" else int(fields[19])


def _started_elsewhere(pid: int) -> int | None:
    """Do the same without ``/proc``."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time())
    except psutil.Error:
        return None
