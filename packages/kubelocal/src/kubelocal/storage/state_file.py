"""The file that keeps the cluster's objects across runs, replaced as a whole: a crash leaves a complete one.

The cluster owns the task of ``run``, which saves in a thread; cancelling it saves a last time, and ``close`` releases
the file after the kubelet has written its last statuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import threading
import time
from pathlib import Path

import orjson

from kubelocal import owned_paths
from kubelocal.codec.kinds import KINDS
from kubelocal.errors import SettingError
from kubelocal.owned_paths import FileSignature, Owner
from kubelocal.storage.store import Store
from kubelocal.types import Json, Manifest

__all__ = ["StateFile"]

FORMAT = 1
_log = logging.getLogger(__name__)

_HEAD = re.compile(rb'\{"crosswind":"local state","owner":(\{[^{}]*\}|null),')


def _owner(content: bytes) -> Owner | None:
    head = _HEAD.match(content)
    with contextlib.suppress(ValueError):
        return Owner.read(orjson.loads(head[1])) if head else None
    return None


SIGNATURE = FileSignature("kubelocal up --state", lambda content: bool(_HEAD.match(content)), _owner)
"""A state file is recognised by its first bytes."""


class StateFile:
    """Loads a store from ``path`` and saves its changes there.

    ``me``: the owner of the file; no other cluster can use it until ``close``. ``interval``: seconds between saves,
    which a crash loses at most. A large state is saved less often, so that saving takes at most a tenth of the time.
    """

    def __init__(self, path: Path, me: Owner | None = None, *, interval: float = 0.5) -> None:
        self._path = path
        self._me = me or Owner.this_process()
        self._interval = interval
        self._saved: int | None = None
        self._writing = threading.Lock()  # the last save may meet one that still runs in its thread

    def load(self, store: Store) -> bool:
        """Fill a new store and claim the file; return whether it existed.

        Raises ``SettingError`` for a file of the user's, one in use by another cluster, and a damaged one.
        """
        owned_paths.check(self._path, SIGNATURE, self._me)
        try:
            content = orjson.loads(self._path.read_bytes())
            objects = [_placed(manifest) for manifest in _objects(content)]
            store.restore(content["version"], objects)
        except FileNotFoundError:
            self._take(store)
            return False
        except OSError as problem:
            raise SettingError(f"state file {self._path} cannot be read: {problem.strerror}") from problem
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            fix = "move it away to begin with an empty cluster"
            raise SettingError(f"state file {self._path} does not hold a cluster ({problem}): {fix}") from problem
        self._take(store)
        return True

    def _take(self, store: Store) -> None:
        """Write the owner into the file at once: a second cluster must not load a state that this one changes."""
        owned_paths.write(self._path, _dump(store, self._me), SIGNATURE, me=self._me, mode=0o600, durable=True)
        self._saved = store.version

    async def run(self, store: Store) -> None:
        """Save the store whenever it has changed, until cancelled, and once more then."""
        pause = self._interval
        try:
            while True:
                # The wait is the interval itself. Changes meanwhile are saved together.
                await asyncio.sleep(pause)
                started_at = time.monotonic()
                if store.version != self._saved:
                    # In the loop, so that it is one consistent state; only the writing, with its fsync, is left to the
                    # thread.
                    version, content = store.version, _dump(store, self._me)
                    if await asyncio.to_thread(self._write, content):
                        # The version that was written, not the present one: the store has gone on meanwhile.
                        self._saved = version
                pause = max(self._interval, 10 * (time.monotonic() - started_at))
        finally:
            # In the loop and blocking: the task is being cancelled, so nothing may be awaited here.
            self.save(store)

    def save(self, store: Store) -> None:
        """Save now, if the store has changed."""
        if store.version != self._saved and self._write(_dump(store, self._me)):
            self._saved = store.version

    def close(self, store: Store) -> None:
        """Save, and release the file to the next cluster."""
        if self._write(_dump(store, None)):
            self._saved = store.version

    def _write(self, content: bytes) -> bool:
        try:
            with self._writing:
                # mode 0600: it holds Secrets
                owned_paths.write(self._path, content, SIGNATURE, me=self._me, mode=0o600, durable=True)
        except SettingError as problem:
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
