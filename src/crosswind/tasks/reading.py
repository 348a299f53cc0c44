"""Reading a folder of task files: the files, the platform's settings of each folder, and what each query reads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crosswind.errors import ConfigError
from crosswind.tasks.cache import Cache
from crosswind.tasks.documents import MAX_BYTES, Document, DocumentError
from crosswind.tasks.facts import QueryFacts
from crosswind.tasks.model import FolderSettings, TaskFile, errors_in
from crosswind.tasks.problems import Problem
from crosswind.types import Json

__all__ = ["SETTINGS_FILE", "Broken", "Source", "Tree", "read_task", "read_tree"]

SETTINGS_FILE = "crosswind.yaml"
MAX_SQL_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """One task file that can be used, with all that belongs to it. Paths are below the root, with slashes."""

    path: str
    folder: str
    """"" is the root itself."""
    task: TaskFile
    lines: Mapping[str, int]
    query_path: str
    sql: str
    settings: FolderSettings
    facts: QueryFacts

    @property
    def declared(self) -> tuple[str, ...]:
        """The tables of ``tables``, normalised."""
        begin = 1 + len(self.task.produced())
        return self.facts.names[begin : begin + len(self.task.tables)]

    @property
    def appends(self) -> tuple[str, ...]:
        """The tables of ``appends``, normalised."""
        return tuple(dict.fromkeys(self.facts.names[1 + len(self.task.produced()) + len(self.task.tables) :]))

    @property
    def writes(self) -> tuple[str, ...]:
        """The tables it makes: of ``produces``, else as the SQL says, else called as the task; none of ``appends``."""
        explicit = self.facts.names[1 : 1 + len(self.task.produced())]
        made = [table for table in self.facts.writes if table not in self.appends]
        return tuple(dict.fromkeys(explicit or made or self.facts.names[:1]))


@dataclass(frozen=True, slots=True)
class Broken:
    """A task file that cannot be used, as far as it could be read: its place in the graph is kept."""

    path: str
    folder: str
    id: str
    writes: tuple[str, ...]
    settings: FolderSettings


@dataclass(slots=True)
class Tree:
    """What a folder holds."""

    sources: list[Source] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    settings: dict[str, FolderSettings] = field(default_factory=dict)
    """By folder; one whose settings are wrong is not in it, nor are those below."""


class _Bad(Exception):
    """A file that cannot be used."""

    def __init__(self, *found: tuple[int, str]) -> None:
        super().__init__(found)
        self.found = found


def read_tree(root: Path, defaults: Mapping[str, Json], cache: Cache) -> Tree:
    """Read every task file below ``root``; ``defaults`` count where no ``crosswind.yaml`` says otherwise.

    Files and folders whose names begin with a dot are left out, and so are links that lead out. Raises
    ``ConfigError`` when the folder or ``defaults`` are wrong; all else becomes a problem of its file.
    """
    reader = _Reader(root, defaults, cache)
    for folder, files in reader.folders():
        for name in files:
            reader.add(folder, name)
    return reader.tree


def read_task(root: Path, defaults: Mapping[str, Json], cache: Cache, task_id: str) -> Source | None:
    """Read the one task of that id, and no other query; None unless exactly one good file has it."""
    reader, wanted = _Reader(root, defaults, cache), task_id.encode()
    for folder, files in reader.folders():
        for name in files:
            if wanted in reader.raw(folder, name, MAX_BYTES):
                reader.add(folder, name, only=task_id)
    found = reader.tree
    return found.sources[0] if len(found.sources) == 1 and not found.broken else None


class _Reader:
    def __init__(self, root: Path, defaults: Mapping[str, Json], cache: Cache) -> None:
        self.root = os.path.realpath(root)
        if not os.path.isdir(self.root):
            raise ConfigError(f"{root}: there is no such folder of task files; mend the path")
        self.tree = Tree()
        self._cache = cache
        self._given: dict[str, dict[str, Json]] = {}
        try:
            self._check(Document(dict(defaults), dict.fromkeys(defaults, 0)))
        except _Bad as bad:
            told = "; ".join(message for _, message in bad.found)
            raise ConfigError(f"the settings given for {root}: {told}") from None
        self._defaults = dict(defaults)

    def folders(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each folder with good settings, and the names of its task files, in order."""
        # Links are followed: a ConfigMap that is mounted into a pod shows its folders as links.
        for path, below, names in os.walk(self.root, onerror=self._unreadable, followlinks=True):
            folder = os.path.relpath(path, self.root).replace(os.sep, "/")
            folder = "" if folder == "." else folder
            below[:], names = self._named(folder, below), self._named(folder, names)
            below[:] = sorted(name for name in below if not name.startswith((".", "__")) and self._inside(path, name))
            if not self._settle(folder, SETTINGS_FILE in names):
                below.clear()
                continue
            yield (
                folder,
                sorted(n for n in names if n.endswith((".yaml", ".yml")) and n != SETTINGS_FILE and n[0] != "."),
            )

    def _unreadable(self, error: OSError) -> None:
        path = os.path.relpath(error.filename, self.root)
        self.tree.problems.append(Problem(path, 0, f"the folder cannot be read: {error.strerror}"))

    def _named(self, folder: str, names: list[str]) -> list[str]:
        """Return the names that are text; tell of others, which no database and no UI could show."""
        good = [name for name in names if name.isascii() or name.encode(errors="replace").decode() == name]
        for name in sorted({*names} - {*good}):
            told = _join(folder, name.encode(errors="replace").decode())
            self.tree.problems.append(Problem(told, 0, "the name is not UTF-8; rename it"))
        return good

    def _inside(self, path: str, name: str) -> bool:
        """Whether a folder is a real one, or a link to one that is inside the root and not above itself."""
        linked = os.path.join(path, name)
        if not os.path.islink(linked):
            return True
        real = os.path.realpath(linked)
        above = os.path.commonpath((real, os.path.realpath(path))) == real
        return os.path.commonpath((self.root, real)) == self.root and not above

    def _settle(self, folder: str, has_file: bool) -> bool:
        parent = self._defaults if not folder else self._given[folder.rpartition("/")[0]]
        if not has_file:
            self._given[folder] = parent
            self.tree.settings[folder] = self._settings_of(folder, parent)
            return True
        path = _join(folder, SETTINGS_FILE)
        try:
            document = self._document(path)
            self._check(document)
        except _Bad as bad:
            self._report(path, bad)
            return False
        self._given[folder] = _merged(parent, document.fields)
        self.tree.settings[folder] = FolderSettings.model_validate(self._given[folder])
        return True

    def _check(self, document: Document) -> None:
        """Refuse settings that cannot be used."""
        _, wrong = errors_in(FolderSettings, document)
        dialect = document.fields.get("dialect")
        if not wrong and dialect and (reason := self._cache.wrong_dialect(dialect)):
            wrong = [(document.lines["dialect"], f"dialect {reason[0].lower()}{reason[1:]}")]
        if wrong:
            raise _Bad(*wrong)

    def _settings_of(self, folder: str, given: Mapping[str, Json]) -> FolderSettings:
        above = folder.rpartition("/")[0]
        return self.tree.settings[above] if folder else FolderSettings.model_validate(dict(given))

    def add(self, folder: str, name: str, only: str | None = None) -> None:
        """Read a task file; with ``only``, leave it out unless it has that id."""
        path, settings, document = _join(folder, name), self.tree.settings[folder], None
        try:
            document = self._document(path)
            if only is not None and document.fields.get("id") != only:
                return
            self.tree.sources.append(self._source(path, folder, document, settings))
        except _Bad as bad:
            self._report(path, bad)
            if document is not None and isinstance(known := document.fields.get("id"), str) and known:
                self.tree.broken.append(self._broken(path, folder, document, settings))

    def _source(self, path: str, folder: str, document: Document, settings: FolderSettings) -> Source:
        task, wrong = errors_in(TaskFile, document)
        if task is None:
            raise _Bad(*wrong)
        query_path, sql = self._query(folder, task.query, document.lines["query"])
        names = [task.id, *task.produced(), *task.tables, *task.appended()]
        facts = self._cache.facts(sql, names, settings.dialect, settings.default_schema)
        return Source(path, folder, task, document.lines, query_path, sql, settings, facts)

    def _broken(self, path: str, folder: str, document: Document, settings: FolderSettings) -> Broken:
        produces = document.fields.get("produces") or document.fields["id"]
        names = [name for name in (produces if isinstance(produces, list) else [produces]) if isinstance(name, str)]
        facts = self._cache.facts("", names, settings.dialect, settings.default_schema)
        return Broken(path, folder, document.fields["id"], facts.names, settings)

    def _query(self, folder: str, query: str, line: int) -> tuple[str, str]:
        """Return path and text of a query; the path must stay inside the root, links resolved."""
        real = os.path.realpath(os.path.join(self.root, folder, query))
        if os.path.commonpath((self.root, real)) != self.root:
            raise _Bad((line, f"query {query} leads out of the folder of task files; keep the file inside it"))
        try:
            data = _bytes(real, MAX_SQL_BYTES)
        except OSError as error:
            reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
            raise _Bad((line, f"query {query} {reason}; its path is relative to this file")) from None
        if len(data) > MAX_SQL_BYTES:
            raise _Bad((line, f"query {query} is larger than {MAX_SQL_BYTES // 1024} KiB; load data by other means"))
        try:
            sql = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise _Bad((line, f"query {query} is not UTF-8; save it in that encoding")) from None
        if not sql.strip():
            raise _Bad((line, f"query {query} is empty; write the SQL that the task runs"))
        return os.path.relpath(real, self.root).replace(os.sep, "/"), sql

    def raw(self, folder: str, name: str, limit: int) -> bytes:
        """Return up to ``limit`` bytes of a file and one more; nothing if it cannot be read."""
        try:
            return _bytes(os.path.join(self.root, folder, name), limit)
        except OSError:
            return b""

    def _document(self, path: str) -> Document:
        try:
            return self._cache.document(_bytes(os.path.join(self.root, path), MAX_BYTES))
        except OSError as error:
            raise _Bad((0, f"cannot be read: {error.strerror}; mend the file or its permissions")) from None
        except DocumentError as error:
            raise _Bad((error.line, error.message)) from None

    def _report(self, path: str, bad: _Bad) -> None:
        self.tree.problems += [Problem(path, line, message) for line, message in bad.found]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _bytes(path: str, limit: int) -> bytes:
    """Return up to ``limit`` bytes and one more, so that a larger file is noticed and not read."""
    if not os.path.isfile(path) and os.path.exists(path):
        raise OSError(0, "it is not a file")
    with open(path, "rb") as opened:
        return opened.read(limit + 1)


def _merged(parent: Mapping[str, Json], child: Mapping[str, Json]) -> dict[str, Json]:
    """Return the settings of a folder: its own fields replace those above, ``external`` field by field."""
    merged = {**parent, **child}
    if isinstance(child.get("external"), dict):
        merged["external"] = {**(parent.get("external") or {}), **child["external"]}
    return merged
