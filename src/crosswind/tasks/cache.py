"""A cache of parsed task files and queries by their content, so that unchanged ones are not parsed again.

It is one JSON file for each folder of task files, and optional: if it is missing, unreadable, damaged or of another
version, everything is parsed. A file without our header is never replaced. Writers replace the file atomically, so that
readers always see a whole one; the last of several writers wins. The key of an entry is the digest of the content and
of the versions of crosswind and sqlglot, so that no entry needs invalidation. Writing drops entries that were not used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import orjson

from crosswind.errors import DocumentError
from crosswind.tasks.field_lines import FileFields, read_fields
from crosswind.tasks.query_facts import QueryFacts
from crosswind.types import Json

__all__ = ["Cache", "cache_folder"]

_FORMAT = "4"
_HEAD = b'{"crosswind":"tasks cache",'
_MAX_BYTES = 256 * 1024 * 1024


def cache_folder(environment: Mapping[str, str]) -> Path | None:
    """Return the folder of caches: ``CROSSWIND_CACHE``, or a folder of this user in the temporary directory.

    None turns caching off: with an empty ``CROSSWIND_CACHE``, or if that folder is a link or belongs to another user,
    who could write wrong entries.
    """
    configured = environment.get("CROSSWIND_CACHE")
    if configured is not None:
        return Path(configured) if configured else None
    folder = Path(tempfile.gettempdir()) / f"crosswind-cache-{os.getuid()}"
    try:
        status = folder.lstat()
    except OSError:
        return folder
    return folder if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() else None


class Cache:
    """Returns cached results, or parses the content. A context manager for one use, which writes new entries on exit.

    It also writes when the block raises: a first load that exceeds Airflow's ``dagbag_import_timeout`` then makes the
    next one shorter.
    """

    def __init__(self, folder: Path | None, source: Path) -> None:
        name = hashlib.sha256(os.fsencode(source)).hexdigest()[:16]
        self._file = folder / f"tasks-{name}.json" if folder else None
        self._known: dict[str, Json] = _read(self._file) if self._file else {}
        self._used: dict[str, Json] = {}
        self._versions = "\0".join((_FORMAT, version("crosswind"), version("sqlglot")))

    def fields(self, data: bytes) -> FileFields:
        """Return ``read_fields`` of ``data``; raises its error, cached or new."""
        entry = self._entry(_digest("fields", self._versions, data), lambda: _fields_entry(data))
        if "error" in entry:
            raise DocumentError("task file", *entry["error"])
        return FileFields(entry["fields"], entry["lines"])

    def facts(self, sql: str, names: list[str], dialect: str, default_schema: str) -> QueryFacts:
        """Return ``read_query`` of the arguments."""
        key = _digest("query", self._versions, dialect, default_schema, "\n".join(names), sql)
        entry = self._entry(key, lambda: _facts_entry(sql, names, dialect, default_schema))
        unread = tuple((line, reason) for line, reason in entry["unread"])
        no_query = (entry["no_query"][0], entry["no_query"][1]) if entry["no_query"] else None
        writes, normalised = tuple(entry["writes"]), tuple(entry["names"])
        return QueryFacts(entry["reads"], writes, normalised, unread, no_query, entry["complete"])

    def wrong_dialect(self, dialect: str) -> str:
        """Return ``check_dialect`` of a name."""
        return str(self._entry(_digest("dialect", self._versions, dialect), lambda: _wrong_dialect(dialect)))

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write if entries are new or unused; errors of the file system are ignored."""
        # After an error, entries of the previous load are kept: this load may not have come to use them.
        kept = self._used if kind is None else {**self._known, **self._used}
        if self._file is not None and kept.keys() != self._known.keys():
            with contextlib.suppress(OSError):
                self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _replace(self._file, orjson.dumps({"crosswind": "tasks cache", "entries": kept}))

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


def _fields_entry(data: bytes) -> Json:
    try:
        read = read_fields(data)
    except DocumentError as error:
        return {"error": [error.line, error.problem]}
    return {"fields": read.fields, "lines": read.lines}


def _facts_entry(sql: str, names: list[str], dialect: str, default_schema: str) -> Json:
    from crosswind.tasks.query_analysis import read_query  # takes 0.3 s, because it imports sqlglot

    facts = read_query(sql, names, dialect, default_schema)
    return {name: getattr(facts, name) for name in ("reads", "writes", "names", "unread", "no_query", "complete")}


def _wrong_dialect(dialect: str) -> str:
    from crosswind.tasks.query_analysis import check_dialect

    return check_dialect(dialect)


def _read(file: Path) -> dict[str, Json]:
    """Return the entries of the file; none if it does not exist, belongs to another user, or is no cache."""
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # opening a FIFO must not block
        with os.fdopen(descriptor, "rb") as opened:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid not in (os.getuid(), 0) or status.st_size > _MAX_BYTES:
                return {}
            content = orjson.loads(opened.read())
        entries = content.get("entries") if isinstance(content, dict) else None
        return entries if isinstance(entries, dict) else {}
    return {}


def _replace(file: Path, content: bytes) -> None:
    """Write the cache atomically, unless the path holds a link or a file that is not a cache."""
    if os.path.lexists(file) and not _is_cache(file):
        return
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as output:
            output.write(content)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _is_cache(file: Path) -> bool:
    if not stat.S_ISREG(file.lstat().st_mode):
        return False
    with file.open("rb") as opened:
        return opened.read(len(_HEAD)) == _HEAD
