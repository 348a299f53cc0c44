"""A file that keeps the cluster's objects across runs, written whole and in one step: a crash leaves a good one."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from pathlib import Path

import orjson

from crosswind.errors import ConfigError
from crosswind.local.kinds import KINDS
from crosswind.local.store import Store
from crosswind.types import Json, Manifest

__all__ = ["StateFile"]

FORMAT = 1
_log = logging.getLogger(__name__)


class StateFile:
    """Loads a store from ``path`` and keeps it there.

    ``interval``: seconds between looks for changes; a crash loses at most these. Writing never takes more than a tenth
    of the time, however large the state.
    """

    def __init__(self, path: Path, *, interval: float = 0.5) -> None:
        self._path = path
        self._interval = interval
        self._saved: int | None = None
        self._writing = threading.Lock()  # the last save may meet one that is still under way in its thread

    def load(self, store: Store) -> bool:
        """Fill a new store; return whether there was a file. Raises ``ConfigError`` for one that cannot be used."""
        try:
            content = orjson.loads(self._path.read_bytes())
            objects = [_placed(manifest) for manifest in _objects(content)]
            store.restore(content["version"], objects)
        except FileNotFoundError:
            return False
        except OSError as problem:
            raise ConfigError(f"state file {self._path} cannot be read: {problem.strerror}") from problem
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            mend = "move it away to begin with an empty cluster"
            raise ConfigError(f"state file {self._path} does not hold a cluster ({problem}): {mend}") from problem
        self._saved = store.version
        return True

    async def run(self, store: Store) -> None:
        """Save whenever something changed, until cancelled; once more then."""
        pause = self._interval
        try:
            while True:
                await asyncio.sleep(pause)
                begun = time.monotonic()
                if store.version != self._saved:
                    version, content = store.version, _dump(store)
                    if await asyncio.to_thread(self._write, content):
                        self._saved = version
                pause = max(self._interval, 10 * (time.monotonic() - begun))
        finally:
            self.save(store)

    def save(self, store: Store) -> None:
        """Save now, if something changed."""
        if store.version != self._saved and self._write(_dump(store)):
            self._saved = store.version

    def _write(self, content: bytes) -> bool:
        part = self._path.with_name(f".{self._path.name}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._writing:
                # it holds Secrets: nobody else may read it
                with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(self._path)
        except OSError as problem:
            _log.error("state file %s cannot be written: %s", self._path, problem.strerror)
            return False
        return True


def _dump(store: Store) -> bytes:
    objects = b",\n".join(entry.json for _, _, _, entry in store.everything())
    return b'{"format":%d,"version":%d,"objects":[\n%b\n]}\n' % (FORMAT, store.version, objects)


def _objects(content: Json) -> list[Manifest]:
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']}, not {FORMAT}")
    objects: list[Manifest] = content["objects"]
    return objects


def _placed(manifest: Manifest) -> tuple[str, str, str, Manifest]:
    kind, metadata = KINDS[manifest["kind"]], manifest["metadata"]
    return kind.kind, metadata.get("namespace", ""), metadata["name"], manifest
