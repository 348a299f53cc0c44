"""A pod's volumes as folders of this machine, and a container's mounts.

Content from objects is written as the kubelet's atomic writer does: into a fresh folder to which the link ``..data``
points, so that a reader sees old or new content, never a mixture (``pkg/volume/util/atomic_writer.go``).
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from kubelocal.kubelet.environment import ContainerConfigError, Lookup, data_of, downward, expand, references
from kubelocal.kubelet.pod_actions import all_containers
from kubelocal.types import Manifest

__all__ = ["ContainerMount", "Ownership", "PodVolumes", "Sources", "VolumeError", "mounted_volumes"]

CONTENT = ("secret", "configMap", "downwardAPI", "projected")
"""Kinds of volumes whose content the kubelet writes; they are read-only."""

TOKEN_LIFE, TOKEN_LONGEST_S = 0.8, 24 * 3600.0
"""A token is renewed after this part of its life, and at least once a day (``pkg/kubelet/token``)."""


class File(NamedTuple):
    """A file to be written. ``mode``: None for 0644. ``owner``: None leaves it to the kubelet's user."""

    content: bytes
    mode: int | None = None
    owner: int | None = None


class VolumeError(Exception):
    """A volume cannot be set up; the message is that of the event FailedMount."""


@dataclass(frozen=True, slots=True)
class ContainerMount:
    """A folder or file of this machine and where a container sees it."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Sources:
    """Where content comes from. ``lookup``: Secrets, ConfigMaps and claims. ``token``: (audience or None, seconds)."""

    lookup: Lookup
    token: Callable[[str | None, int], str]
    allocatable: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who owns the files of a pod's volumes: ``group`` is its fsGroup, ``user`` the owner of its tokens.

    None leaves them to the kubelet's user: there is no such setting, or the kubelet may not give files away here.
    """

    group: int | None = None
    user: int | None = None
    on_root_mismatch: bool = False
    """fsGroupChangePolicy OnRootMismatch: a claim whose folder has the group already is not walked through."""


def mounted_volumes(pod: Manifest) -> list[Manifest]:
    """Return the volumes that a container mounts: the kubelet ignores the others, whatever is wrong with them."""
    names = {
        mount["name"] for container in all_containers(pod).values() for mount in container.get("volumeMounts") or ()
    }
    return [volume for volume in pod["spec"].get("volumes") or () if volume["name"] in names]


class PodVolumes:
    """The volumes of one pod below ``folder``; claims are folders below ``claims``, shared by all pods."""

    def __init__(self, folder: Path, claims: Path, sources: Sources, ownership: Ownership) -> None:
        self._folder = folder
        self._claims = claims
        self._sources = sources
        self._ownership = ownership
        self._written: dict[str, dict[str, File]] = {}
        self._places: dict[str, str] = {}
        self._tokens: dict[tuple[str | None, int], tuple[str, float]] = {}

    def set_up(self, pod: Manifest) -> None:
        """Make the volumes that are mounted, or bring the content of those from objects up to date.

        Raises ``VolumeError`` for the first that cannot be made or renewed, after it has tried all.
        """
        failed: VolumeError | None = None
        for volume in mounted_volumes(pod):
            name = volume["name"]
            try:
                self._places[name] = self._set_up(pod, volume)
            except (ContainerConfigError, OSError) as problem:
                failed = failed or VolumeError(f'MountVolume.SetUp failed for volume "{name}" : {problem}')
        if failed is not None:
            raise failed

    def _set_up(self, pod: Manifest, volume: Manifest) -> str:
        if "hostPath" in volume:
            return _host_path(volume["hostPath"])
        if "persistentVolumeClaim" in volume:
            return self._claim(pod, volume["persistentVolumeClaim"]["claimName"])
        folder = self._folder / volume["name"]
        files = self._files(pod, volume)
        if files is None:
            if volume["name"] not in self._places:
                folder.mkdir(parents=True, exist_ok=True)
                folder.chmod(0o777)
                share(folder, self._ownership.group)
        elif self._written.get(volume["name"]) != files:
            _check_paths(files)
            write_atomically(folder, files, self._ownership)
            self._written[volume["name"]] = files
        return str(folder)

    def _files(self, pod: Manifest, volume: Manifest) -> dict[str, File] | None:
        """Return the content of a volume made from objects; None for an empty one."""
        if "secret" in volume:
            source = volume["secret"]
            return self._object_files("Secret", {**source, "name": source["secretName"]}, source.get("defaultMode"))
        if "configMap" in volume:
            return self._object_files("ConfigMap", volume["configMap"], volume["configMap"].get("defaultMode"))
        if "downwardAPI" in volume:
            return self._downward(pod, volume["downwardAPI"], volume["downwardAPI"].get("defaultMode"))
        if "projected" in volume:
            return self._projected(pod, volume["projected"])
        if "emptyDir" in volume:
            return None
        kind = next((key for key in volume if key != "name"), "none")
        raise ContainerConfigError(f"volumes of type {kind} are not known to this kubelet")

    def _object_files(self, kind: str, source: Manifest, mode: int | None) -> dict[str, File]:
        source_object, optional = self._sources.lookup(kind, source["name"]), bool(source.get("optional"))
        if source_object is None:
            if optional:
                return {}
            raise ContainerConfigError(f'{kind.lower()} "{source["name"]}" not found')
        data = data_of(source_object)
        items = source.get("items") or [{"key": key, "path": key} for key in data]
        missing = [item["key"] for item in items if item["key"] not in data]
        if missing and not optional:
            raise ContainerConfigError(f"references non-existent {kind.lower()} key: {missing[0]}")
        selected_items = [item for item in items if item["key"] in data]
        return {item["path"]: File(data[item["key"]], item.get("mode", mode)) for item in selected_items}

    def _downward(self, pod: Manifest, source: Manifest, mode: int | None) -> dict[str, File]:
        return {
            item["path"]: File(downward(pod, item, self._sources.allocatable).encode(), item.get("mode", mode))
            for item in source.get("items") or ()
        }

    def _projected(self, pod: Manifest, volume: Manifest) -> dict[str, File]:
        mode, files = volume.get("defaultMode"), dict[str, File]()
        for source in volume.get("sources") or ():
            if "secret" in source:
                files |= self._object_files("Secret", source["secret"], mode)
            elif "configMap" in source:
                files |= self._object_files("ConfigMap", source["configMap"], mode)
            elif "downwardAPI" in source:
                files |= self._downward(pod, source["downwardAPI"], mode)
            elif "serviceAccountToken" in source:
                projection = source["serviceAccountToken"]
                token = self._token(projection.get("audience"), projection.get("expirationSeconds") or 3600)
                # with an owner of its own, or a group, the token is for these alone
                private = self._ownership.user is not None or self._ownership.group is not None
                files[projection["path"]] = File(token.encode(), 0o600 if private else mode, self._ownership.user)
            else:
                raise ContainerConfigError(f"projected source {', '.join(source)} is not known to this kubelet")
        return files

    def _token(self, audience: str | None, seconds: int) -> str:
        """Return a token, the same one until four fifths of its life are over, or a day."""
        now = time.time()
        token, renew_at = self._tokens.get((audience, seconds), ("", 0.0))
        if now >= renew_at:
            token = self._sources.token(audience, seconds)
            self._tokens[audience, seconds] = (token, now + min(TOKEN_LIFE * seconds, TOKEN_LONGEST_S))
        return token

    def _claim(self, pod: Manifest, name: str) -> str:
        if self._sources.lookup("PersistentVolumeClaim", name) is None:
            raise ContainerConfigError(f'persistentvolumeclaim "{name}" not found')
        folder = self._claims / pod["metadata"]["namespace"] / name
        if str(folder) not in self._places.values():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)
            group = self._ownership.group
            if group is not None and not (self._ownership.on_root_mismatch and folder.stat().st_gid == group):
                for path in [*folder.rglob("*"), folder]:
                    share(path, group)
            folder.chmod(0o777 | (0 if group is None else stat.S_ISGID))
        return str(folder)

    def mounts(self, pod: Manifest, container: Manifest, environment: Mapping[str, str]) -> list[ContainerMount]:
        """Return a container's mounts, outer paths first. Raises ``ContainerConfigError``."""
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or ()}
        mounts = []
        for number, mount in enumerate(container.get("volumeMounts") or ()):
            name = mount["name"]
            if name not in self._places:  # of an ephemeral container added later
                self._places[name] = self._set_up(pod, volumes[name])
            content = any(kind in volumes[name] for kind in CONTENT)
            below = _below(mount, container, environment)
            source = os.path.realpath(self._places[name])
            if below:
                source = _sub_path(source, below)
                if content:
                    source = self._frozen(source, f"{container['name']}-{number}")
            target = os.path.normpath("/" + mount["mountPath"].lstrip("/"))
            mounts.append(ContainerMount(source, target, bool(mount.get("readOnly")) or content))
        return sorted(mounts, key=lambda mount: mount.target.count("/"))

    def _frozen(self, source: str, name: str) -> str:
        """Return a copy of what a subPath leads to: such a mount keeps its content until the container starts anew."""
        copy = self._folder.parent / "volume-subpaths" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if copy.is_dir():
            shutil.rmtree(copy)
        copy.unlink(missing_ok=True)
        (shutil.copytree if os.path.isdir(source) else _copy)(source, str(copy))
        return str(copy)

    def clear(self) -> None:
        """Remove what belongs to this pod alone."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _copy(source: str, target: str) -> None:
    shutil.copy2(source, target)
    status = os.stat(source)
    with suppress(PermissionError):
        os.chown(target, status.st_uid, status.st_gid)


def _below(mount: Manifest, container: Manifest, environment: Mapping[str, str]) -> str:
    """Return a mount's subPath, or its subPathExpr expanded; ``ContainerConfigError``: it leads elsewhere."""
    if path := mount.get("subPath"):
        return str(path)
    template = mount.get("subPathExpr") or ""
    missing = [name for name in references(template) if name not in environment]
    if missing:
        raise ContainerConfigError(
            f'failed to expand subPath for volumeMount "{mount["name"]}": missing value for "{missing[0]}"'
        )
    path = expand(template, environment)
    if os.path.isabs(path):
        raise ContainerConfigError(f"error SubPath `{path}` must not be an absolute path")
    if ".." in path.split("/"):
        raise ContainerConfigError(f"unable to provision SubPath `{path}`: must not contain '..'")
    return path


def _sub_path(place: str, below: str) -> str:
    """Return a path in a volume, made as a folder if it is not there, with the mode of the volume's."""
    path = os.path.realpath(os.path.join(place, below))
    if path != place and not path.startswith(place + os.sep):
        raise ContainerConfigError(f'failed to prepare subPath "{below}": it leads out of the volume')
    if not os.path.exists(path):
        whole = os.stat(place)
        made = ""
        for part in os.path.relpath(path, place).split(os.sep):
            made = os.path.join(made, part)
            folder = os.path.join(place, made)
            if not os.path.isdir(folder):
                os.mkdir(folder)
                with suppress(PermissionError):
                    os.chown(folder, -1, whole.st_gid)
                os.chmod(folder, stat.S_IMODE(whole.st_mode))
    return path


def share(path: Path, group: int | None) -> None:
    """Give a file or folder to a group that may read and write it; new files in a folder belong to the group too.

    After ``SetVolumeOwnership`` (``pkg/volume/volume_linux.go``).
    """
    if group is None:
        return
    os.chown(path, -1, group, follow_symlinks=False)
    if not path.is_symlink():
        folder = stat.S_ISGID | 0o110 if path.is_dir() else 0
        path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o660 | folder)


_TYPES: dict[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "directory"),
    "File": (stat.S_ISREG, "file"),
    "FileOrCreate": (stat.S_ISREG, "file"),
    "Socket": (stat.S_ISSOCK, "socket file"),
    "CharDevice": (stat.S_ISCHR, "character device"),
    "BlockDevice": (stat.S_ISBLK, "block device"),
}


def _host_path(source: Manifest) -> str:
    path, kind = source["path"], source.get("type") or ""
    if not os.path.exists(path):
        if kind in ("", "DirectoryOrCreate"):
            os.makedirs(path, 0o755, exist_ok=True)
        elif kind == "FileOrCreate":
            Path(path).touch(0o644)
        else:
            raise ContainerConfigError(f"hostPath type check failed: {path} is not a {_TYPES[kind][1]}")
    if kind and not _TYPES[kind][0](os.stat(path).st_mode):
        raise ContainerConfigError(f"hostPath type check failed: {path} is not a {_TYPES[kind][1]}")
    return str(path)


def write_atomically(folder: Path, files: Mapping[str, File], ownership: Ownership) -> None:
    """Replace a folder's content by these files in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    old = os.readlink(folder / "..data") if (folder / "..data").is_symlink() else ""
    number = int(old.rsplit("_", 1)[1]) + 1 if old else 0
    fresh = folder / f"..data_{number}"
    shutil.rmtree(fresh, ignore_errors=True)  # of a write that failed
    fresh.mkdir()
    for path, file in files.items():
        place = fresh / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.content)
        _own(place, 0o644 if file.mode is None else file.mode, file.owner, ownership.group)
    for inner in (path for path in [fresh, *fresh.rglob("*")] if path.is_dir()):
        _own(inner, 0o755, None, ownership.group)
    _own(folder, 0o1777, None, ownership.group)
    link = folder / "..data_tmp"
    with suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(fresh.name)
    link.rename(folder / "..data")
    _link_names(folder, {path.split("/")[0] for path in files})
    if old:
        shutil.rmtree(folder / old, ignore_errors=True)


def _check_paths(files: Iterable[str]) -> None:
    """Raise ``ContainerConfigError`` for a path that leads out of the volume or takes a name of the writer's own."""
    for path in files:
        if path.startswith(("/", "..")) or ".." in path.split("/"):
            raise ContainerConfigError(
                f'invalid path "{path}": must be relative and must not contain ".." nor start with it'
            )


def _own(path: Path, mode: int, owner: int | None, group: int | None) -> None:
    """Set mode, owner and group; a group may read at least, and enter folders, whose new files it gets."""
    if owner is not None or group is not None:
        os.chown(path, -1 if owner is None else owner, -1 if group is None else group)
    if group is not None:
        mode |= (stat.S_ISGID | 0o550) if path.is_dir() else 0o440
    path.chmod(mode)


def _link_names(folder: Path, names: set[str]) -> None:
    """Link each top-level name of the content, and remove the links of names that are gone."""
    for name in names:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    for entry in folder.iterdir():
        if entry.is_symlink() and entry.name not in names and not entry.name.startswith(".."):
            entry.unlink()
