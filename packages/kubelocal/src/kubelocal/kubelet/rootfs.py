"""The root file system of a container: overlays over the machine's files, and what a container has of its own.

A part of the launcher, which runs without the package: nothing here imports anything but the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from typing import Any

__all__ = ["CONTAINER_PRIVATE_FOLDERS", "check", "enter_root", "libc", "new_root", "new_user_root"]

MS_RDONLY, MS_NOSUID, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = 1, 2, 32, 4096, 16384, 1 << 18, 1 << 21
MNT_DETACH = 2
PIVOT_ROOT = {"x86_64": 155, "s390x": 217, "ppc64le": 203, "armv7l": 218}  # all newer machines share 41
OLD_ROOT = "/.old"
CONTAINER_PRIVATE_FOLDERS = ("/proc", "/sys", "/dev", "/tmp", "/run")  # noqa: S108 - replaced in a container, never written here
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
MAX_COPIED_FILE_BYTES = 1 << 16  # bytes of a file that is copied into a container's root

libc: Any = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Turn the -1 of a system call into an OSError that names it."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Mount a file system; empty texts are left out."""
    texts = [text.encode() or None for text in (source, target, kind)]
    check(libc.mount(*texts, ctypes.c_ulong(flags), data.encode() or None), f"mount {kind or source} on {target}")


def read_only(target: str) -> None:
    """Make a bind mount read-only, keeping the flags that an unprivileged user may not take away."""
    have = os.statvfs(target).f_flag
    keep = have & (2 | 4 | 8 | 1024 | 2048) | (MS_RELATIME if have & 4096 else 0)
    mount("", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY | keep)


def bind(source: str, target: str, *, fixed: bool = False) -> None:
    """Bind a directory or file, making the mount point if it is missing."""
    # a runtime follows links inside the container's root: resolv.conf often leads into /run, which is empty here
    target = os.path.realpath(target)
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.lexists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(source, target, "", MS_BIND | MS_REC)
    if fixed:
        read_only(target)


def below(path: str, roots: tuple[str, ...]) -> bool:
    """Whether a path is one of these or lies under one."""
    return any(path == root or path.startswith(root + "/") for root in roots)


def mount_points() -> Iterator[str]:
    """The machine's mount points, parents first, without those that a container gets of its own."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [line.split()[4].encode().decode("unicode_escape") for line in file]
    return (point for point in dict.fromkeys(points) if point != "/" and not below(point, CONTAINER_PRIVATE_FOLDERS))


def new_root(scratch: str) -> str:
    """Lay overlays over the machine's files: what a container writes stays in memory and goes with it."""
    points = list(mount_points())
    root = f"{scratch}/root"
    make_scratch(scratch, root)
    for number, point in enumerate(["/", *points]):
        target = root + point.rstrip("/")
        try:
            lay_over(point, target, f"{scratch}/{number}")
        except OSError:
            if point == "/":
                raise
            with contextlib.suppress(OSError):  # a mount that cannot be passed on is left out
                mount(point, target, "", MS_BIND)
    return root


def new_user_root(scratch: str, used: list[str]) -> str:
    """Do the same in a user namespace, for a container that uses these paths.

    There the kernel refuses an overlay over a folder with mounts below it, / among them: such a folder is rebuilt from
    its entries. And in an overlay nothing changes in a folder that belongs to someone else, because the copy could not
    belong to them: only the overlay's top is ours. So the folders that a container writes to get overlays of their own.
    """
    points = list(mount_points())
    root = f"{scratch}/root"
    make_scratch(scratch, root)
    mount("tmpfs", root, "tmpfs", MS_NOSUID, "mode=755")
    rebuilt = {"/"} | {folder for point in points for folder in parents(point)}
    places = {path for folder in rebuilt for path in folders_in(folder)}
    places |= {folder for path in used if (folder := foreign_parent(path))} | set(usual_folders()) | set(points)
    rebuild("/", root)
    for number, place in enumerate(sorted(places - {"/"})):  # a folder sorts before the folders below it
        if below(place, CONTAINER_PRIVATE_FOLDERS):
            os.makedirs(root + place, exist_ok=True)
        elif place in rebuilt:
            os.makedirs(root + place, exist_ok=True)
            mount("tmpfs", root + place, "tmpfs", MS_NOSUID, f"mode={os.stat(place).st_mode & 0o7777:o}")
            rebuild(place, root)
        else:
            cover(place, root + place, f"{scratch}/{number}")
    return root


def make_scratch(scratch: str, root: str) -> None:
    """Make the file system in memory that holds what a container writes; no mount reaches the machine any more."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    mount("tmpfs", scratch, "tmpfs", MS_NOSUID, "mode=755")
    os.mkdir(root)


def lay_over(folder: str, target: str, store: str, options: str = "") -> None:
    """Mount an overlay over a folder; ``store``: prefix of the folders that keep the changes."""
    if not os.path.isdir(folder) or set(folder) & set(":,\\"):
        raise OSError(errno.EINVAL, f"no overlay over {folder}")
    os.mkdir(f"{store}.upper")
    os.mkdir(f"{store}.work")
    os.makedirs(target, exist_ok=True)
    layers = f"lowerdir={folder},upperdir={store}.upper,workdir={store}.work{options}"
    mount("overlay", target, "overlay", 0, layers)
    os.chmod(target, os.stat(folder).st_mode & 0o7777)


def cover(place: str, target: str, store: str) -> None:
    """Let a container write to a place; one that we may not read is empty for it, as root's home is for others."""
    if os.path.isdir(place) and not os.access(place, os.R_OK | os.X_OK):
        os.makedirs(target, exist_ok=True)
        mount("tmpfs", target, "tmpfs", MS_NOSUID, f"mode={os.stat(place).st_mode & 0o7777:o}")
        return
    try:
        lay_over(place, target, store, ",userxattr")
    except OSError:
        with contextlib.suppress(OSError):  # a mount that cannot be passed on is left out
            mount(place, target, "", MS_BIND | MS_REC)


def parents(path: str) -> list[str]:
    """Return the folders above a path, the nearest first."""
    above = []
    while path != "/":
        path = os.path.dirname(path)
        above.append(path)
    return above


def folders_in(folder: str) -> list[str]:
    """Return the folders in a folder; none where we may not look."""
    try:
        return [entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def foreign_parent(path: str) -> str:
    """Return the nearest folder above a path that does not exist, if it belongs to someone else; else nothing."""
    path = os.path.realpath(path)
    if os.path.exists(path):
        return ""
    nearest = next(folder for folder in parents(path) if os.path.isdir(folder))
    owner = os.stat(nearest)
    return nearest if owner.st_uid or owner.st_gid else ""  # owners without an id in this namespace show as 65534


def usual_folders() -> Iterator[str]:
    """The folders in which programs write wherever they run, beside those of /."""
    for folder in ("/var", "/usr/local"):
        if os.path.isdir(folder) and not os.path.islink(folder):
            yield folder
            yield from folders_in(folder)


def rebuild(folder: str, root: str) -> None:
    """Put a folder's links and files into the new root; small files as copies, which can be changed."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        target = root + entry.path
        with contextlib.suppress(OSError):  # a file that cannot be passed on is left out
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), target)
            elif entry.is_dir():
                os.makedirs(target, exist_ok=True)
            elif entry.is_file() and entry.stat().st_size <= MAX_COPIED_FILE_BYTES and os.access(entry.path, os.R_OK):
                shutil.copy(entry.path, target)
            else:
                bind(entry.path, target)


def make_dev() -> None:
    """A /dev with the devices that every container has, the machine's terminals, and nothing else."""
    mount("tmpfs", "/dev", "tmpfs", MS_NOSUID, "mode=755")
    for name in DEVICES:
        bind(f"{OLD_ROOT}/dev/{name}", f"/dev/{name}")
    for name in ("pts", "ptmx"):
        with contextlib.suppress(OSError):
            bind(f"{OLD_ROOT}/dev/{name}", f"/dev/{name}")
    os.makedirs("/dev/shm", exist_ok=True)  # noqa: S108
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"/dev/{name}")
    os.symlink("/proc/self/fd", "/dev/fd")


def enter_root(spec: dict[str, Any]) -> None:
    """Move into the new root and mount what belongs there. Runs as process 1 of the pid namespace."""
    root = spec["root"]
    os.makedirs(root + OLD_ROOT, exist_ok=True)
    number = PIVOT_ROOT.get(os.uname().machine, 41)
    check(libc.syscall(number, root.encode(), (root + OLD_ROOT).encode()), "pivot_root")
    os.chdir("/")
    make_dev()
    for path, mode in (("/tmp", "1777"), ("/run", "755")):  # noqa: S108
        os.makedirs(path, exist_ok=True)
        mount("tmpfs", path, "tmpfs", MS_NOSUID, f"mode={mode}")
    mount(f"{OLD_ROOT}/sys", "/sys", "", MS_BIND | MS_REC)
    mount("proc", "/proc", "proc")
    if owned := spec.get("owned"):
        make_owned(owned, spec["user"])
    for volume_mount in spec["mounts"]:
        bind(OLD_ROOT + volume_mount["source"], volume_mount["target"], fixed=volume_mount.get("readOnly", False))
    check(libc.umount2(OLD_ROOT.encode(), MNT_DETACH), "umount of the machine's root")
    os.rmdir(OLD_ROOT)
    volumes = tuple(os.path.realpath(volume_mount["target"]) for volume_mount in spec["mounts"])
    if spec.get("reachable"):
        open_ways(spec["reachable"], volumes)
    if spec.get("readOnlyRoot"):
        os.makedirs(spec["cwd"] or "/", exist_ok=True)
        fix_root(volumes)


def make_owned(folders: list[str], user: dict[str, Any]) -> None:
    """Make folders that an image has for its user, where the machine has none of that name."""
    for folder in folders:
        if not os.path.lexists(folder):
            with contextlib.suppress(OSError):  # in a user namespace; it is missed only if it is written to
                os.makedirs(folder)
                os.chmod(folder, 0o775)  # noqa: S103 - as in the image
                if user["how"] == "set":
                    os.chown(folder, user["uid"], user["gid"])


def mounts_now() -> dict[str, str]:
    """Return the mount points that this process sees, with the kind of file system; of two at one place the upper."""
    kinds = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            head, _, tail = line.partition(" - ")
            kinds[head.split()[4].encode().decode("unicode_escape")] = tail.split()[0]
    return kinds


def fix_root(volumes: tuple[str, ...]) -> None:
    """Make all that is not a volume read-only: the root, and what lies over the machine's other file systems."""
    kept = (*volumes, "/proc", "/sys", "/dev")
    for point in mounts_now():
        if not below(point, kept):
            read_only(point)


def open_ways(paths: list[str], volumes: tuple[str, ...]) -> None:
    """Let every user pass through the folders above these paths, as in an image, where the machine keeps them closed.

    Only in the container's own layer: mounts from the machine are not changed.
    """
    kinds = mounts_now()
    for folder in {above for path in paths for above in [path, *parents(path)]}:
        point = next(above for above in [folder, *parents(folder)] if above in kinds)
        if os.path.isdir(folder) and kinds[point] in ("overlay", "tmpfs") and point not in volumes:
            mode = os.stat(folder).st_mode & 0o7777
            if mode & 0o011 != 0o011:
                os.chmod(folder, mode | 0o011)  # noqa: S103 - to pass, not to read
