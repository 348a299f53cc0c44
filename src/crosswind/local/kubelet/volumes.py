"""A pod's volumes as folders of this machine, and a container's mounts.

Content from objects is written as the kubelet's atomic writer does: into a fresh folder to which the link ``..data``
points, so that a reader sees old or new content, never a mixture (``pkg/volume/util/atomic_writer.go``).
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crosswind.local.kubelet.environment import ConfigError, Lookup, data_of, downward, expand
from crosswind.types import Manifest

__all__ = ["Mount", "Sources", "VolumeError", "Volumes"]

File = tuple[bytes, int | None]  # content and mode, None for 0644


class VolumeError(Exception):
    """A volume cannot be set up; the message is that of the event FailedMount."""


@dataclass(frozen=True, slots=True)
class Mount:
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


class Volumes:
    """The volumes of one pod below ``folder``; claims are folders below ``claims``, shared by all pods."""

    def __init__(self, folder: Path, claims: Path, sources: Sources) -> None:
        self._folder = folder
        self._claims = claims
        self._sources = sources
        self._written: dict[str, dict[str, File]] = {}
        self._places: dict[str, str] = {}

    def set_up(self, pod: Manifest) -> None:
        """Make all volumes, or bring the content of those from objects up to date. Raises ``VolumeError``."""
        for volume in pod["spec"].get("volumes") or ():
            name = volume["name"]
            try:
                self._places[name] = self._set_up(pod, volume)
            except (ConfigError, OSError) as problem:
                raise VolumeError(f'MountVolume.SetUp failed for volume "{name}" : {problem}') from problem

    def _set_up(self, pod: Manifest, volume: Manifest) -> str:
        if "hostPath" in volume:
            return _host_path(volume["hostPath"])
        if "persistentVolumeClaim" in volume:
            return self._claim(pod, volume["persistentVolumeClaim"]["claimName"])
        folder = self._folder / volume["name"]
        files = self._files(pod, volume)
        if files is None:
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o777)
        elif self._written.get(volume["name"]) != files:
            write_atomically(folder, files)
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
        raise ConfigError(f"volumes of type {kind} are not known to this kubelet")

    def _object_files(self, kind: str, source: Manifest, mode: int | None) -> dict[str, File]:
        found = self._sources.lookup(kind, source["name"])
        if found is None:
            if source.get("optional"):
                return {}
            raise ConfigError(f'{kind.lower()} "{source["name"]}" not found')
        data = data_of(found)
        if not (items := source.get("items")):
            return {key: (value, mode) for key, value in data.items()}
        missing = [item["key"] for item in items if item["key"] not in data]
        if missing and not source.get("optional"):
            raise ConfigError(f"references non-existent {kind.lower()} key: {missing[0]}")
        wanted = [item for item in items if item["key"] in data]
        return {item["path"]: (data[item["key"]], item.get("mode", mode)) for item in wanted}

    def _downward(self, pod: Manifest, source: Manifest, mode: int | None) -> dict[str, File]:
        return {
            item["path"]: (downward(pod, item, self._sources.allocatable).encode(), item.get("mode", mode))
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
                wanted = source["serviceAccountToken"]
                token = self._sources.token(wanted.get("audience"), wanted.get("expirationSeconds") or 3600)
                files[wanted["path"]] = (token.encode(), mode)
            else:
                raise ConfigError(f"projected source {', '.join(source)} is not known to this kubelet")
        return files

    def _claim(self, pod: Manifest, name: str) -> str:
        if self._sources.lookup("PersistentVolumeClaim", name) is None:
            raise ConfigError(f'persistentvolumeclaim "{name}" not found')
        folder = self._claims / pod["metadata"]["namespace"] / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        return str(folder)

    def mounts(self, pod: Manifest, container: Manifest, environment: Mapping[str, str]) -> list[Mount]:
        """Return a container's mounts, outer paths first. Raises ``ConfigError``."""
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or ()}
        found = []
        for mount in container.get("volumeMounts") or ():
            name = mount["name"]
            fixed = bool(mount.get("readOnly")) or any(
                kind in volumes[name] for kind in ("secret", "configMap", "downwardAPI", "projected")
            )
            below = mount.get("subPath") or expand(mount.get("subPathExpr") or "", environment)
            target = os.path.normpath("/" + mount["mountPath"].lstrip("/"))
            found.append(Mount(_sub_path(self._places[name], below, fixed), target, fixed))
        return sorted(found, key=lambda mount: mount.target.count("/"))

    def clear(self) -> None:
        """Remove what belongs to this pod alone."""
        shutil.rmtree(self._folder, ignore_errors=True)


def _sub_path(place: str, below: str, fixed: bool) -> str:
    if not below:
        return os.path.realpath(place)
    path = os.path.realpath(os.path.join(place, below))
    if path != os.path.realpath(place) and not path.startswith(os.path.realpath(place) + os.sep):
        raise ConfigError(f'failed to prepare subPath "{below}": it leads out of the volume')
    if not os.path.exists(path):
        if fixed:
            raise ConfigError(f'failed to prepare subPath "{below}": no such file or directory')
        os.makedirs(path)
        Path(path).chmod(0o777)
    return path


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
            raise ConfigError(f"hostPath type check failed: {path} is not a {_TYPES[kind][1]}")
    if kind and not _TYPES[kind][0](os.stat(path).st_mode):
        raise ConfigError(f"hostPath type check failed: {path} is not a {_TYPES[kind][1]}")
    return str(path)


def write_atomically(folder: Path, files: Mapping[str, Any]) -> None:
    """Replace a folder's content by these files (path -> bytes and mode, None is 0644) in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    old = os.readlink(folder / "..data") if (folder / "..data").is_symlink() else ""
    number = int(old.rsplit("_", 1)[1]) + 1 if old else 0
    fresh = folder / f"..data_{number}"
    for path, (content, mode) in files.items():
        file = fresh / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o644 if mode is None else mode)
    fresh.mkdir(exist_ok=True)
    link = folder / "..data_tmp"
    with suppress(FileNotFoundError):
        link.unlink()
    link.symlink_to(fresh.name)
    link.rename(folder / "..data")
    tops = {path.split("/")[0] for path in files}
    for name in tops:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    for entry in folder.iterdir():
        if entry.is_symlink() and entry.name not in tops and not entry.name.startswith(".."):
            entry.unlink()
    if old:
        shutil.rmtree(folder / old, ignore_errors=True)
