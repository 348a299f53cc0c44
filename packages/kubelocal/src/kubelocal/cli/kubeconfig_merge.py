"""Entries of local clusters in the user's own kubeconfig: added on demand, with a backup, and removed again."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from kubelocal.auth.kubeconfig_file import dumped, merged, parsed, users_part, without
from kubelocal.errors import SettingError
from kubelocal.types import Manifest

__all__ = ["add_to", "first_kubeconfig", "remove_from"]

_LOCK_S = 10.0
"""Deadline for the lock of the file, which kubectl takes too."""


def first_kubeconfig(environment: Mapping[str, str]) -> Path:
    """Return the file for new contexts: the first of ``KUBECONFIG``, else ``~/.kube/config``."""
    listed = [part for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part]
    return Path(listed[0] if listed else "~/.kube/config").expanduser().absolute()


def add_to(path: Path, ours: Manifest, *, switch: bool) -> str:
    """Add our cluster, user and context to a user's file; return its former current context.

    The file is replaced atomically; the former one becomes ``FILE.bak`` (``FILE.bak.2`` and so on where that exists).
    Raises ``SettingError``, with nothing changed, for a file that is no kubeconfig.
    """
    before: list[str] = []

    def change(config: Manifest) -> Manifest:
        before.append(str(config.get("current-context") or ""))
        return merged(config, ours, switch=switch)

    _change(path, change, backup=True)
    return before[0]


def remove_from(path: Path, name: str, current: str = "") -> None:
    """Remove our entries of this name from a user's file; nothing else in it changes.

    ``current``: the context to make current where ours is. A deleted file stays deleted.
    """
    if os.path.exists(path):
        _change(path, lambda config: without(config, name, current), backup=False)


def _change(path: Path, change: Callable[[Manifest], Manifest], *, backup: bool) -> None:
    target = Path(os.path.realpath(path))  # behind a link: the link itself is the user's
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(target):
            content, mode = _read(target)
            try:
                config = parsed(content)
                changed = change(config)
            except SettingError as problem:
                raise SettingError(f"{path} is left as it is: {problem}") from problem
            if changed == config:
                return
            if backup and content:
                _back_up(target, content, config)
            _replace(target, dumped(changed), mode)
    except OSError as problem:
        raise SettingError(f"cannot write {path}: {problem.strerror or problem}") from problem


def _read(target: Path) -> tuple[bytes, int]:
    """Return a file's content and mode; those of an empty file for a missing one."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return b"", 0o600
    if not stat.S_ISREG(mode):
        raise SettingError(f"{target} is not a file; set KUBECONFIG to a file")
    return target.read_bytes(), stat.S_IMODE(mode)


def _back_up(target: Path, content: bytes, config: Manifest) -> None:
    """Copy the content to a new backup, unless a backup with the user's entries exists."""
    for number in range(1, 1000):
        backup = target.with_name(f"{target.name}.bak" + (f".{number}" if number > 1 else ""))
        try:
            handle = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            if _keeps(backup, config):
                return
            continue
        with open(handle, "wb") as file:
            file.write(content)
        return
    raise SettingError(f"there are a thousand backups beside {target} already: remove some")


def _keeps(backup: Path, config: Manifest) -> bool:
    try:
        return backup.is_file() and users_part(parsed(backup.read_bytes())) == users_part(config)
    except (OSError, SettingError):
        return False


def _replace(target: Path, content: bytes, mode: int) -> None:
    part = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the lock that kubectl uses: the file ``FILE.lock``, created exclusively."""
    lock = target.with_name(f"{target.name}.lock")
    deadline = time.monotonic() + _LOCK_S
    while True:
        try:
            os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            break
        except FileExistsError:
            if time.monotonic() > deadline:
                raise SettingError(
                    f"{lock} exists: another program is changing {target}; if none is, remove the lock file"
                ) from None
            time.sleep(0.05)  # the removal of a file gives no event
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
