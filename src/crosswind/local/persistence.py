"""A file that keeps the cluster's objects across runs, written whole and in one step: a crash leaves a good one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import time
from pathlib import Path

import orjson

from crosswind import ownership
from crosswind.errors import ConfigError
from crosswind.local.kinds import KINDS
from crosswind.local.store import Store
from crosswind.ownership import Mark, Owner
from crosswind.types import Json, Manifest

__all__ = ["StateFile"]

FORMAT = 1
_log = logging.getLogger(__name__)

_HEAD = re.compile(rb'\{"crosswind":"local state","owner":(\{[^{}]*\}|null),')


def _owner(content: bytes) -> Owner | None:
    head = _HEAD.match(content)
    with contextlib.suppress(ValueError):
        return Owner.read(orjson.loads(head[1])) if head else None
    return None


MARK = Mark("crosswind local up --state", lambda content: bool(_HEAD.match(content)), _owner)
"""The mark of a state file: how it begins."""


class StateFile:
    """Loads a store from ``path`` and keeps it there.

    ``me``: who uses the file; another cluster is refused it until ``close``. ``interval``: seconds between looks for
    changes; a crash loses at most these. Writing never takes more than a tenth of the time, however large the state.
    """

    def __init__(self, path: Path, me: Owner | None = None, *, interval: float = 0.5) -> None:
        self._path = path
        self._me = me or Owner.this_process()
        self._interval = interval
        self._saved: int | None = None
        self._writing = threading.Lock()  # the last save may meet one that is still under way in its thread

    def load(self, store: Store) -> bool:
        """Fill a new store and take the file; return whether there was one.

        Raises ``ConfigError`` for a file that is not ours, is in use by another cluster or is damaged.
        """
        ownership.check(self._path, MARK, self._me)
        try:
            content = orjson.loads(self._path.read_bytes())
            objects = [_placed(manifest) for manifest in _objects(content)]
            store.restore(content["version"], objects)
        except FileNotFoundError:
            self._take(store)
            return False
        except OSError as problem:
            raise ConfigError(f"state file {self._path} cannot be read: {problem.strerror}") from problem
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            mend = "move it away to begin with an empty cluster"
            raise ConfigError(f"state file {self._path} does not hold a cluster ({problem}): {mend}") from problem
        self._take(store)
        return True

    def _take(self, store: Store) -> None:
        """Put our name on the file at once: who comes second must see it before it has loaded what we change."""
        ownership.write(self._path, _dump(store, self._me), MARK, me=self._me, mode=0o600, durable=True)
        self._saved = store.version

    async def run(self, store: Store) -> None:
        """Save whenever something changed, until cancelled; once more then."""
        pause = self._interval
        try:
            while True:
                await asyncio.sleep(pause)
                begun = time.monotonic()
                if store.version != self._saved:
                    version, content = store.version, _dump(store, self._me)
                    if await asyncio.to_thread(self._write, content):
                        self._saved = version
                pause = max(self._interval, 10 * (time.monotonic() - begun))
        finally:
            self.save(store)

    def save(self, store: Store) -> None:
        """Save now, if something changed."""
        if store.version != self._saved and self._write(_dump(store, self._me)):
            self._saved = store.version

    def close(self, store: Store) -> None:
        """Save, and leave the file to the next cluster."""
        if self._write(_dump(store, None)):
            self._saved = store.version

    def _write(self, content: bytes) -> bool:
        try:
            with self._writing:
                # it holds Secrets: nobody else may read it
                ownership.write(self._path, content, MARK, me=self._me, mode=0o600, durable=True)
        except ConfigError as problem:
            _log.error("The state is not saved: %s", problem)
            return False
        return True


def _dump(store: Store, owner: Owner | None) -> bytes:
    objects = b",\n".join(entry.json for _, _, _, entry in store.everything())
    head = b'{"crosswind":"local state","owner":%b,' % orjson.dumps(owner.fields if owner else None)
    return head + b'"format":%d,"version":%d,"objects":[\n%b\n]}\n' % (FORMAT, store.version, objects)


def _objects(content: Json) -> list[Manifest]:
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']}, not {FORMAT}")
    objects: list[Manifest] = content["objects"]
    return objects


def _placed(manifest: Manifest) -> tuple[str, str, str, Manifest]:
    kind, metadata = KINDS[manifest["kind"]], manifest["metadata"]
    return kind.kind, metadata.get("namespace", ""), metadata["name"], manifest
