"""The list of this user's local clusters: name, process, URL, and the kubeconfigs that they were merged into.

Each cluster has a file in a folder of the user, written by the process that serves it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from kubelocal import owned_paths
from kubelocal.auth.kubeconfig_file import context_name, parsed, renamed
from kubelocal.cli.kubeconfig_merge import add_to, remove_from
from kubelocal.errors import KubelocalError, SettingError
from kubelocal.owned_paths import FileSignature, Owner
from kubelocal.types import Json, Manifest

__all__ = ["DEFAULT", "ClusterEntry", "ClusterList", "ClusterRuns", "checked_name", "clusters_folder"]

DEFAULT = "local"
"""The name of a cluster that is started without one."""

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
_HEAD = b'{"crosswind": "local cluster", '
_STOP_TIMEOUT_S = 60.0
"""Deadline for the end of a cluster: its pods have grace periods."""


class ClusterRuns(SettingError):
    """A cluster of this name runs."""


@dataclass(frozen=True, slots=True)
class ClusterEntry:
    """A listed cluster, whose process may have died."""

    name: str
    owner: Owner
    url: str = ""
    kubeconfig: str = ""
    started_at: float = 0.0
    """Seconds since the epoch."""

    @property
    def is_alive(self) -> bool:
        """Whether its process still runs."""
        return self.owner.is_alive


def _fields(content: bytes) -> dict[str, Json]:
    try:
        fields = json.loads(content) if content.startswith(_HEAD) else {}
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _entry(content: bytes) -> ClusterEntry | None:
    fields = _fields(content)
    owner = Owner.read(fields.get("owner"))
    if owner is None or not isinstance(fields.get("name"), str):
        return None
    url, kubeconfig, started_at = str(fields.get("url", "")), str(fields.get("kubeconfig", "")), fields.get("begun")
    return ClusterEntry(
        fields["name"], owner, url, kubeconfig, started_at if isinstance(started_at, (int, float)) else 0.0
    )


def _owner(content: bytes) -> Owner | None:
    entry = _entry(content)
    return entry.owner if entry else None


_SIGNATURE = FileSignature("kubelocal up", lambda content: bool(_fields(content)), _owner)
_LOG_LINE = "# Log of kubelocal up --detach\n"
_FORMER_LOG_LINE = "# Log of crosswind local up --detach\n"
_LOG_SIGNATURE = FileSignature(
    "kubelocal up --detach", lambda content: content.startswith((_LOG_LINE.encode(), _FORMER_LOG_LINE.encode()))
)
_MERGED_SIGNATURE = FileSignature(
    "kubelocal kubeconfig", lambda content: content.startswith(b'{"crosswind": "merged", ')
)


def clusters_folder(environment: Mapping[str, str]) -> Path:
    """Return where this user's clusters are listed: below ``XDG_STATE_HOME``, else ``~/.local/state``."""
    base = environment.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().absolute() / "crosswind" / "clusters"


class ClusterList:
    """The clusters of a folder. Raises ``SettingError`` for invalid names and unwritable files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def entries(self) -> list[ClusterEntry]:
        """Return the clusters sorted by name, also those whose process has died."""
        entries = []
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink() and (entry := _entry(path.read_bytes())):
                    entries.append(entry)
        return sorted(entries, key=lambda entry: entry.name)

    def find(self, name: str) -> ClusterEntry:
        """Return a running cluster. Raises ``SettingError`` that names those that run."""
        entry = self.get(name)
        if entry is None or not entry.is_alive:
            names = [running.name for running in self.entries() if running.is_alive]
            offer = f"there are: {', '.join(names)}" if names else "none is running; start one with: kubelocal up"
            raise SettingError(f"there is no local cluster {name}; {offer}")
        return entry

    def get(self, name: str) -> ClusterEntry | None:
        """Return the entry of a name, None if there is none."""
        return next((entry for entry in self.entries() if entry.name == name), None)

    def put_unnamed(self, entry: ClusterEntry) -> ClusterEntry:
        """List a cluster without a name under the first free one: ``local``, ``local-2`` and so on."""
        for number in range(1, 100):
            named = replace(entry, name=DEFAULT if number == 1 else f"{DEFAULT}-{number}")
            with contextlib.suppress(ClusterRuns):
                self.put(named)
                return named
        raise SettingError("a hundred local clusters are already running; stop them with: kubelocal stop --all")

    def require_free(self, name: str) -> None:
        """Raise ``ClusterRuns`` when a cluster of this name runs."""
        entry = self.get(checked_name(name))
        if entry is not None and entry.is_alive:
            raise ClusterRuns(
                f"the local cluster {name} runs already, with process id {entry.owner.pid}: end it with"
                f" kubelocal stop {name}, or choose another --name"
            )

    def put(self, entry: ClusterEntry) -> None:
        """List a cluster of this process, or update its entry. Raises ``ClusterRuns`` for a name in use."""
        other = self.get(entry.name)
        if other is not None and other.owner != entry.owner:
            self.require_free(entry.name)
        fields = {"crosswind": "local cluster", "name": entry.name, "owner": entry.owner.fields, "url": entry.url}
        more = {"kubeconfig": entry.kubeconfig, "begun": entry.started_at}
        content = json.dumps({**fields, **more}).encode() + b"\n"
        owned_paths.write(self._path(entry.name), content, _SIGNATURE, me=entry.owner, mode=0o600)

    def take_off(self, name: str, owner: Owner | None = None) -> None:
        """Remove a cluster from the list, and its entries from the user's kubeconfigs."""
        try:
            self.forget_merged(name)
        finally:
            owned_paths.remove(self._path(name), _SIGNATURE, owner)

    def stop(self, name: str) -> bool:
        """End a cluster and wait for its process; return False when that had died, and only its files were left."""
        entry = self.get(name)
        if entry is None:
            self.find(name)
            return False
        alive = entry.is_alive
        if alive:
            _end(entry)
            owned_paths.remove(self._log_path(name), _LOG_SIGNATURE)
        self.take_off(name, entry.owner)
        return alive

    # the user's kubeconfigs

    def kubeconfig(self, name: str) -> Manifest:
        """Return the kubeconfig of a cluster that runs."""
        path = self.find(name).kubeconfig
        try:
            return parsed(Path(path).read_bytes())
        except OSError as problem:
            raise SettingError(f"cannot read {path}, the kubeconfig of {name}: {problem.strerror}") from problem

    def merge(self, name: str, path: Path, *, switch: bool) -> None:
        """Add a cluster to a user's kubeconfig, and record the file until the cluster ends."""
        called = context_name(name)
        try:
            ours = renamed(self.kubeconfig(name), called)
        except SettingError as problem:
            raise SettingError(f"the kubeconfig of {name} cannot be used: {problem}") from problem
        before = add_to(path, ours, switch=switch)
        known = self._merged(name)
        # the first merge's answer counts: at the second one our own context may be the current one
        files = {str(path): "" if before == called else before, **known}
        self._remember(name, files)

    def forget_merged(self, name: str) -> None:
        """Remove a cluster's entries from every kubeconfig that they were merged into."""
        for path, before in self._merged(name).items():
            remove_from(Path(path), context_name(name), before)
        owned_paths.remove(self._merged_path(name), _MERGED_SIGNATURE)

    def _merged(self, name: str) -> dict[str, str]:
        path = self._merged_path(name)
        try:
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
            files = json.loads(content)["files"] if _MERGED_SIGNATURE.is_in(content) else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return {str(path): str(before) for path, before in files.items()} if isinstance(files, dict) else {}

    def _remember(self, name: str, files: dict[str, str]) -> None:
        content = json.dumps({"crosswind": "merged", "files": files}).encode() + b"\n"
        owned_paths.write(self._merged_path(name), content, _MERGED_SIGNATURE, mode=0o600)

    def _path(self, name: str) -> Path:
        return self._folder / f"{checked_name(name)}.json"

    def _merged_path(self, name: str) -> Path:
        return self._folder / f"{checked_name(name)}.merged"

    def new_log(self, name: str) -> Path:
        """Create the log of a detached cluster; ``stop`` removes it."""
        path = self._log_path(name)
        owned_paths.write(path, _LOG_LINE.encode(), _LOG_SIGNATURE, mode=0o600)
        return path

    def log(self, name: str) -> str:
        """Return the text of the log, "" without one."""
        with contextlib.suppress(OSError):
            return self._log_path(name).read_text(errors="replace").removeprefix(_LOG_LINE)
        return ""

    def _log_path(self, name: str) -> Path:
        return self._folder / f"{checked_name(name)}.log"


def checked_name(name: str) -> str:
    """Return a valid name. Raises ``SettingError`` for any other."""
    if not _NAME.fullmatch(name):
        raise SettingError(
            f"{name!r} is not a valid cluster name: use at most 40 lower-case letters, digits and hyphens"
        )
    return name


def _end(entry: ClusterEntry) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(entry.owner.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while entry.is_alive:
        if time.monotonic() > deadline:
            raise KubelocalError(
                f"the cluster {entry.name} has not stopped after {_STOP_TIMEOUT_S:g} s;"
                f" its process id is {entry.owner.pid}"
            )
        time.sleep(0.05)  # not a child of this process, so its end gives no event
