"""What was read before, by content: task files and queries that have not changed are not parsed again.

One JSON file for each folder of task files. It is an aid and never needed: when it cannot be read or written, is
damaged or of another version, everything is parsed. A file that does not begin as ours is left alone. Writers replace
it in one step, so that readers always see a whole file; the last of several writers wins. Entries are found by the
digest of what they were made from and of the versions that made them, so nothing has to be invalidated; entries that a
load did not use are left out when it writes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import orjson

from crosswind.errors import ConfigError
from crosswind.ownership import Mark, write
from crosswind.tasks.documents import Document, DocumentError, read_document
from crosswind.tasks.facts import QueryFacts
from crosswind.types import Json

__all__ = ["Cache", "cache_folder"]

_FORMAT = "2"
_HEAD = b'{"crosswind":"tasks cache",'
_MARK = Mark("crosswind tasks", lambda content: content.startswith(_HEAD))
_MAX_BYTES = 256 * 1024 * 1024


def cache_folder(environment: Mapping[str, str]) -> Path | None:
    """Return where caches are: ``CROSSWIND_CACHE`` or a folder of this user's own in the temporary one.

    An empty ``CROSSWIND_CACHE`` turns caching off: None. So does a folder in the temporary one that somebody else has
    made there, or a link: what another user can write is not trusted.
    """
    given = environment.get("CROSSWIND_CACHE")
    if given is not None:
        return Path(given) if given else None
    folder = Path(tempfile.gettempdir()) / f"crosswind-cache-{os.getuid()}"
    try:
        status = folder.lstat()
    except OSError:
        return folder
    return folder if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() else None


class Cache:
    """Parses what it has not seen. A context manager, to be used once: what is new is kept on leaving.

    That holds for an interrupted reading too, so that a first one that takes longer than Airflow's
    ``dagbag_import_timeout`` is shorter the next time.
    """

    def __init__(self, folder: Path | None, source: Path) -> None:
        name = hashlib.sha256(str(source).encode()).hexdigest()[:16]
        self._file = folder / f"tasks-{name}.json" if folder else None
        self._known: dict[str, Json] = _read(self._file) if self._file else {}
        self._used: dict[str, Json] = {}
        self._versions = "\0".join((_FORMAT, version("crosswind"), version("sqlglot")))

    def document(self, data: bytes) -> Document:
        """Return ``read_document`` of ``data``; raises its error, remembered or new."""
        entry = self._entry(_digest("document", self._versions, data), lambda: _document_entry(data))
        if "error" in entry:
            raise DocumentError(*entry["error"])
        return Document(entry["fields"], entry["lines"])

    def facts(self, sql: str, names: list[str], dialect: str, default_schema: str) -> QueryFacts:
        """Return ``read_query`` of the arguments."""
        key = _digest("query", self._versions, dialect, default_schema, "\n".join(names), sql)
        entry = self._entry(key, lambda: _facts_entry(sql, names, dialect, default_schema))
        unread = tuple((line, reason) for line, reason in entry["unread"])
        no_query = (entry["no_query"][0], entry["no_query"][1]) if entry["no_query"] else None
        writes, asked = tuple(entry["writes"]), tuple(entry["names"])
        return QueryFacts(entry["reads"], writes, asked, unread, no_query, entry["complete"])

    def wrong_dialect(self, dialect: str) -> str:
        """Return ``check_dialect`` of the name."""
        return str(self._entry(_digest("dialect", self._versions, dialect), lambda: _wrong_dialect(dialect)))

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write if there is anything new or superfluous; a folder that cannot be written is left."""
        kept = self._used if kind is None else {**self._known, **self._used}
        if self._file is not None and kept.keys() != self._known.keys():
            with contextlib.suppress(ConfigError, OSError):
                self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write(self._file, orjson.dumps({"crosswind": "tasks cache", "entries": kept}), _MARK, mode=0o600)

    def _entry(self, key: str, make: Callable[[], Json]) -> Json:
        if key not in self._used:
            self._used[key] = self._known[key] if key in self._known else make()
        return self._used[key]


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()


def _document_entry(data: bytes) -> Json:
    try:
        document = read_document(data)
    except DocumentError as error:
        return {"error": [error.line, error.message]}
    return {"fields": document.fields, "lines": document.lines}


def _facts_entry(sql: str, names: list[str], dialect: str, default_schema: str) -> Json:
    from crosswind.tasks.queries import read_query  # a third of a second: sqlglot

    found = read_query(sql, names, dialect, default_schema)
    return {name: getattr(found, name) for name in ("reads", "writes", "names", "unread", "no_query", "complete")}


def _wrong_dialect(dialect: str) -> str:
    from crosswind.tasks.queries import check_dialect

    return check_dialect(dialect)


def _read(file: Path) -> dict[str, Json]:
    """Return what the file holds; nothing when it is not there, not ours, or no cache."""
    with contextlib.suppress(OSError, ValueError):
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe must not hold us up
        with os.fdopen(handle, "rb") as opened:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode) or status.st_uid not in (os.getuid(), 0) or status.st_size > _MAX_BYTES:
                return {}
            held = orjson.loads(opened.read())
        entries = held.get("entries") if isinstance(held, dict) else None
        return entries if isinstance(entries, dict) else {}
    return {}
