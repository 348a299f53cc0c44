"""User, groups and capabilities of a container's processes, taken on between fork and exec.

A part of the launcher, which runs without the package: nothing here imports anything but the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import stat
import sys
from typing import Any

__all__ = ["become"]

CLONE_NEWUSER = 0x10000000
PR_CAPBSET_READ, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 23, 24, 38
CAPABILITIES = 64  # more than any kernel knows

_libc: Any = ctypes.CDLL(None, use_errno=True)


def become(user: dict[str, Any], container: int | None) -> None:
    """Take on the credentials that a message's ``user`` describes; the exec that follows makes them final.

    ``how``: ``set``, by a privileged process; ``map``, by a user namespace in which the one id that we have is called
    ``uid`` and ``gid``; ``keep``, not at all. ``container``: a pidfd of the container's process, whose user namespace a
    command beside it joins.
    """
    if user["how"] == "map" and not _join(container):
        _map(user["uid"], user["gid"])
    if sys.platform == "linux":
        _bound(set(user["capabilities"]))
    if user["how"] == "set":
        _give_stdio(user["uid"])
        os.setgroups(user["groups"])
        os.setresgid(*[user["gid"]] * 3)
        os.setresuid(*[user["uid"]] * 3)
    if user["noNewPrivileges"] and sys.platform == "linux":
        _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _map(uid: int, gid: int) -> None:
    """Make a user namespace in which our ids go by these numbers; without privileges one of each can be mapped."""
    own_uid, own_gid = os.getuid(), os.getgid()
    _check(_libc.unshare(CLONE_NEWUSER), "unshare of the user namespace")
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {own_uid} 1"), ("gid_map", f"{gid} {own_gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _join(container: int | None) -> bool:
    """Join the user namespace of the container's process; False where there is none yet, or by kernels before 5.8."""
    return container is not None and _libc.setns(container, CLONE_NEWUSER) == 0


def _bound(kept: set[int]) -> None:
    """Take capabilities out of the bounding set: root has the kept ones after the exec, any other user none."""
    for number in range(CAPABILITIES):
        known = _libc.prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1
        if known and number not in kept and _libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            return  # without CAP_SETPCAP the process is not root and has no capabilities that an exec could grant


def _give_stdio(uid: int) -> None:
    """Let a user reopen /dev/stdout and the like, as a runtime does; files of others keep their owner."""
    for fd in range(3):
        with contextlib.suppress(OSError):
            if stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd):
                os.fchown(fd, uid, -1)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
