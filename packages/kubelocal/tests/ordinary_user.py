"""An ordinary user of this machine, for tests that root runs: ``python ordinary_user.py COMMAND…`` becomes that user.

An interpreter below /root cannot be read by others. It is shown to the user at its own path, in a mount namespace in
which the folders that are closed to others are empty but for what the command needs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deadlines import scaled
from kubelocal.kubelet.rootfs import check, libc, mount

USER = 61743
CHECKOUT = Path(__file__).resolve().parents[3]
CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 4096, 16384, 1 << 18


def command_of_user(command: Sequence[str]) -> list[str]:
    """Return the command as an ordinary user runs it: unchanged if we are one."""
    return [*command] if os.geteuid() else [sys.executable, __file__, *command]


@contextmanager
def users_home() -> Iterator[Path]:
    """Make a home folder that belongs to the user: pytest's own folders are closed to others."""
    home = Path(tempfile.mkdtemp(prefix="crosswind-user-"))
    try:
        if os.geteuid() == 0:
            os.chown(home, USER, USER)
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def environment_of_user(home: Path) -> dict[str, str]:
    """Return our environment with the user's name and folders, without Airflow's settings."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTEST", "XDG"))}
    own = {"HOME": str(home), "TMPDIR": str(home), "USER": "someone", "LOGNAME": "someone"}
    return kept | own | {"PYTHONDONTWRITEBYTECODE": "1"}


def why_not() -> str:
    """Say why no ordinary user can be had on this machine; nothing if one can."""
    trial = subprocess.run(
        command_of_user(["/bin/true"]), capture_output=True, text=True, timeout=scaled(60), check=False
    )
    return trial.stderr.strip().splitlines()[-1] if trial.returncode else ""


def closed_folders(needed: Sequence[str]) -> dict[str, set[str]]:
    """Return the outermost folders that others may not enter, each with the needed paths below it."""
    found: dict[str, set[str]] = {}
    for path in needed:
        way = [*reversed(Path(path).parents), Path(path)]
        if closed := next((folder for folder in way if not folder.stat().st_mode & 0o001), None):
            found.setdefault(str(closed), set()).add(path)
    return found


def become_user(command: Sequence[str]) -> None:
    """Open what is closed in a mount namespace of our own, then give root's rights up for good and run the command."""
    needed = [str(CHECKOUT), os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)]
    if closed := closed_folders(needed):
        check(libc.unshare(CLONE_NEWNS), "unshare of the mount namespace, to show the interpreter to others")
        mount("none", "/", "", MS_REC | MS_PRIVATE)
        for folder, paths in closed.items():
            held = {path: os.open(path, os.O_PATH) for path in sorted(paths)}
            mount("tmpfs", folder, "tmpfs", 0, "mode=755")
            for path, descriptor in held.items():
                os.makedirs(path, exist_ok=True)
                mount(f"/proc/self/fd/{descriptor}", path, "", MS_BIND | MS_REC)
                os.close(descriptor)
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    os.execvp(command[0], [*command])


if __name__ == "__main__":
    become_user(sys.argv[1:])
