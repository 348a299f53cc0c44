"""Reads a folder of task files: the files, the settings of each folder, and the queries with their facts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from crosswind.documents import read_regular
from crosswind.errors import ConfigError, DocumentError
from crosswind.tasks.asset_names import asset_problem
from crosswind.tasks.cache import Cache
from crosswind.tasks.field_lines import MAX_BYTES, FileFields, storable
from crosswind.tasks.model import MAX_ID, FolderSettings, TaskFile, errors_in
from crosswind.tasks.plain_names import plain_name
from crosswind.tasks.problems import TaskFileProblem
from crosswind.tasks.query_facts import QueryFacts
from crosswind.types import Json

__all__ = ["SETTINGS_FILE", "BrokenTaskFile", "TaskFolder", "TaskSource", "read_folder", "read_task"]

SETTINGS_FILE = "crosswind.yaml"
MAX_SQL_BYTES = 256 * 1024
"""Of a query; longer ones insert data, which does not belong into a query."""


@dataclass(frozen=True, slots=True)
class TaskSource:
    """One valid task file with its query and settings. Paths are below the root, with slashes."""

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
        start = 1 + len(self.task.produced())
        return self.facts.names[start : start + len(self.task.tables)]

    @property
    def appends(self) -> tuple[str, ...]:
        """The tables of ``appends``, normalised."""
        return tuple(dict.fromkeys(self.facts.names[1 + len(self.task.produced()) + len(self.task.tables) :]))

    @property
    def writes(self) -> tuple[str, ...]:
        """The tables that it makes: of ``produces``, else those of the SQL except ``appends``, else the task's id."""
        explicit = self.facts.names[1 : 1 + len(self.task.produced())]
        written = [table for table in self.facts.writes if table not in self.appends]
        return tuple(dict.fromkeys(explicit or written or self.facts.names[:1]))


@dataclass(frozen=True, slots=True)
class BrokenTaskFile:
    """A broken task file, as far as it could be read. The task keeps its place in the graph."""

    path: str
    folder: str
    id: str
    writes: tuple[str, ...]
    settings: FolderSettings


@dataclass(slots=True)
class TaskFolder:
    """The content of a folder of task files."""

    sources: list[TaskSource] = field(default_factory=list)
    broken: list[BrokenTaskFile] = field(default_factory=list)
    problems: list[TaskFileProblem] = field(default_factory=list)
    settings: dict[str, FolderSettings] = field(default_factory=dict)
    """By folder, except folders with wrong settings and the folders below these."""


class _FileError(Exception):
    """A file is broken: the lines and messages of its problems."""

    def __init__(self, *problems: tuple[int, str]) -> None:
        super().__init__(problems)
        self.problems = problems


@contextmanager
def _errors_of_one_file() -> Iterator[None]:
    """Raise any error of the block as ``_FileError``: a file that no check has foreseen must not stop the others."""
    try:
        yield
    except _FileError:
        raise
    except Exception as error:  # parsers of YAML, SQL, Jinja and cron expressions raise errors of any class
        problem = f"cannot be read: {type(error).__name__}: {error}; simplify the file, and report this to Crosswind"
        raise _FileError((0, problem)) from error


def read_folder(root: Path, defaults: Mapping[str, Json], cache: Cache) -> TaskFolder:
    """Read every task file below ``root``. ``defaults`` are settings for fields that no ``crosswind.yaml`` has.

    Files and folders whose names begin with a dot are left out, and so are links that lead out of ``root``. Raises
    ``ConfigError`` if the folder or ``defaults`` are wrong; any other error becomes a problem of its file.
    """
    reader = _FolderReader(root, defaults, cache)
    for folder, files in reader.folders():
        for name in files:
            reader.add(folder, name)
    return reader.tree


def read_task(root: Path, defaults: Mapping[str, Json], cache: Cache, task_id: str) -> TaskSource | None:
    """Read the task with that id, and no other query; None unless exactly one valid file has the id."""
    reader, id_bytes = _FolderReader(root, defaults, cache), task_id.encode()
    for folder, files in reader.folders():
        for name in files:
            if id_bytes in reader.raw(folder, name, MAX_BYTES):
                reader.add(folder, name, only=task_id)
    tree = reader.tree
    return tree.sources[0] if len(tree.sources) == 1 and not tree.broken else None


class _FolderReader:
    def __init__(self, root: Path, defaults: Mapping[str, Json], cache: Cache) -> None:
        self.root = os.path.realpath(root)
        if not os.path.isdir(self.root):
            raise ConfigError(f"{root}: there is no such folder of task files; correct the path")
        self._inside_root = os.path.join(self.root, "")
        """The prefix of the paths of all files below the root."""
        self._real_folders: dict[str, str] = {}
        self.tree = TaskFolder()
        self._cache = cache
        self._fields: dict[str, dict[str, Json]] = {}
        """The merged fields of the settings, by folder."""
        try:
            self._check(FileFields(dict(defaults), dict.fromkeys(defaults, 0)))
        except _FileError as error:
            messages = "; ".join(message for _, message in error.problems)
            raise ConfigError(f"the settings given for {root}: {messages}") from None
        self._defaults = dict(defaults)

    def folders(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each folder with valid settings, and the names of its task files, in order."""
        # Links are followed, because a mounted ConfigMap shows its folders as links.
        for path, subfolders, names in os.walk(self.root, onerror=self._unreadable, followlinks=True):
            folder = os.path.relpath(path, self.root).replace(os.sep, "/")
            folder = "" if folder == "." else folder
            names = self._decodable(folder, names)
            subfolders[:] = self._subfolders(path, self._decodable(folder, subfolders))
            if self._read_settings(folder, SETTINGS_FILE in names):
                yield folder, sorted(filter(_is_task_file, names))
            else:
                subfolders.clear()

    def _subfolders(self, path: str, names: list[str]) -> list[str]:
        return sorted(name for name in names if not name.startswith((".", "__")) and self._inside(path, name))

    def _unreadable(self, error: OSError) -> None:
        path = os.path.relpath(error.filename, self.root)
        self.tree.problems.append(TaskFileProblem(path, 0, f"the folder cannot be read: {error.strerror}"))

    def _decodable(self, folder: str, names: list[str]) -> list[str]:
        """Return the names that are UTF-8, and report the others, which neither database nor UI can show."""
        decodable = [name for name in names if name.isascii() or name.encode(errors="replace").decode() == name]
        for name in sorted({*names} - {*decodable}):
            path = _join(folder, name.encode(errors="replace").decode())
            self.tree.problems.append(TaskFileProblem(path, 0, "the name is not UTF-8; rename it"))
        return decodable

    def _inside(self, path: str, name: str) -> bool:
        """Return whether a folder is no link, or links to a folder inside the root that is not one of its parents."""
        linked = os.path.join(path, name)
        if not os.path.islink(linked):
            return True
        real = os.path.realpath(linked)
        above = os.path.commonpath((real, os.path.realpath(path))) == real
        return os.path.commonpath((self.root, real)) == self.root and not above

    def _read_settings(self, folder: str, has_file: bool) -> bool:
        """Set the settings of a folder; return False if its settings file is broken, which is then reported."""
        parent = folder.rpartition("/")[0]
        inherited = self._fields[parent] if folder else self._defaults
        if not has_file:
            self._fields[folder] = inherited
            self.tree.settings[folder] = self.tree.settings[parent] if folder else _validated(inherited)
            return True
        path = _join(folder, SETTINGS_FILE)
        try:
            with _errors_of_one_file():
                content = self._read(path)
                self._check(content)
        except _FileError as error:
            self._report(path, error)
            return False
        self._fields[folder] = _merged(inherited, content.fields)
        self.tree.settings[folder] = _validated(self._fields[folder])
        return True

    def _check(self, content: FileFields) -> None:
        """Raise ``_FileError`` if the fields are no valid settings."""
        _, problems = errors_in(FolderSettings, content)
        dialect = content.fields.get("dialect")
        if not problems and dialect and (reason := self._cache.wrong_dialect(dialect)):
            problems = [(content.lines["dialect"], f"dialect {reason[0].lower()}{reason[1:]}")]
        if problems:
            raise _FileError(*problems)

    def add(self, folder: str, name: str, only: str | None = None) -> None:
        """Read a task file; with ``only``, skip it unless it has that id."""
        path, settings, content = _join(folder, name), self.tree.settings[folder], None
        try:
            with _errors_of_one_file():
                content = self._read(path)
                if only is not None and content.fields.get("id") != only:
                    return
                self.tree.sources.append(self._source(path, folder, content, settings))
        except _FileError as error:
            self._report(path, error)
            if content is not None and isinstance(task_id := content.fields.get("id"), str) and task_id:
                self.tree.broken.append(self._broken(path, folder, content, settings))

    def _source(self, path: str, folder: str, content: FileFields, settings: FolderSettings) -> TaskSource:
        task, problems = errors_in(TaskFile, content)
        if task is None:
            raise _FileError(*problems)
        query_path, sql = self._query(folder, task.query, content.lines["query"])
        names = [task.id, *task.produced(), *task.tables, *task.appended()]
        facts = self._cache.facts(sql, names, settings.dialect, settings.default_schema)
        source = TaskSource(path, folder, task, content.lines, query_path, sql, settings, facts)
        if refused := [*_refused_tables(source)]:
            raise _FileError(*refused)
        return source

    def _broken(self, path: str, folder: str, content: FileFields, settings: FolderSettings) -> BrokenTaskFile:
        produces = content.fields.get("produces") or content.fields["id"]
        listed = produces if isinstance(produces, list) else [produces]
        names = [name for name in listed if isinstance(name, str) and storable(name)]
        try:
            with _errors_of_one_file():
                writes = self._cache.facts("", names, settings.dialect, settings.default_schema).names
        except _FileError:  # the names may be the fault of the file
            writes = ()
        # Airflow refuses a whole DAG for one task whose id it does not accept.
        return BrokenTaskFile(path, folder, plain_name(content.fields["id"], MAX_ID), writes, settings)

    def _query(self, folder: str, query: str, line: int) -> tuple[str, str]:
        """Return path and text of a query. The path with links resolved must be inside the root."""
        named = f"query {query if query.isprintable() else ascii(query)}"
        real = self._real(os.path.join(self.root, folder, query))
        if real != self.root and not real.startswith(self._inside_root):
            raise _FileError((line, f"{named} leads out of the folder of task files; keep the file inside it"))
        path = real.removeprefix(self._inside_root).replace(os.sep, "/")
        if not storable(path):  # the target of a link
            raise _FileError((line, f"{named} is a link to a file whose name is not UTF-8; rename that file"))
        try:
            data = _bytes(real, MAX_SQL_BYTES)
        except OSError as error:
            reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
            raise _FileError((line, f"{named} {reason}; its path is relative to this file")) from None
        if len(data) > MAX_SQL_BYTES:
            raise _FileError((line, f"{named} is larger than {MAX_SQL_BYTES // 1024} KiB; load data by other means"))
        return path, _sql(data, named, line)

    def _real(self, path: str) -> str:
        """Return the path of a file with links resolved; those of its folder are resolved once for all its files."""
        above, name = os.path.split(path)
        if name in {"", ".", ".."} or os.path.islink(path):
            return os.path.realpath(path)
        if above not in self._real_folders:
            self._real_folders[above] = os.path.realpath(above)
        return os.path.join(self._real_folders[above], name)

    def raw(self, folder: str, name: str, limit: int) -> bytes:
        """Return up to ``limit`` + 1 bytes of a file; none if it cannot be read."""
        try:
            return _bytes(os.path.join(self.root, folder, name), limit)
        except OSError:
            return b""

    def _read(self, path: str) -> FileFields:
        try:
            return self._cache.fields(_bytes(os.path.join(self.root, path), MAX_BYTES))
        except OSError as error:
            raise _FileError((0, f"cannot be read: {error.strerror}; correct the file or its permissions")) from None
        except DocumentError as error:
            raise _FileError((error.line, error.problem)) from None

    def _report(self, path: str, error: _FileError) -> None:
        self.tree.problems += [TaskFileProblem(path, line, message) for line, message in error.problems]


def _refused_tables(source: TaskSource) -> Iterator[tuple[int, str]]:
    """Yield line and message of each table that the task makes or appends to and that cannot be an Airflow asset.

    These are the full names, which the dialect and the default schema determine, and those of the query.
    """
    makes = source.lines.get("produces") or source.lines["query" if source.facts.writes else "id"]
    lines = dict.fromkeys(source.writes, makes) | dict.fromkeys(source.appends, source.lines.get("appends", 0))
    for table, line in lines.items():
        if problem := asset_problem(table):
            message = f"the table {table[:80]!r} cannot be an Airflow asset, because {problem}"
            yield line, f"{message}; write another name, in produces or in the query"


def _sql(data: bytes, named: str, line: int) -> str:
    """Return the text of a query; ``named`` and ``line`` are for messages."""
    try:
        sql = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _FileError((line, f"{named} is not UTF-8; save it in that encoding")) from None
    if not storable(sql):  # UTF-16 without its mark is UTF-8 with a NUL beside each letter
        raise _FileError((line, f"{named} has NUL characters; save it as UTF-8 without them"))
    if not sql.strip():
        raise _FileError((line, f"{named} is empty; write the SQL that the task runs"))
    return sql


def _is_task_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) and name != SETTINGS_FILE and not name.startswith(".")


def _validated(fields: Mapping[str, Json]) -> FolderSettings:
    return FolderSettings.model_validate(dict(fields))


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _bytes(path: str, limit: int) -> bytes:
    """Return up to ``limit`` + 1 bytes, so that a larger file is detected without reading all of it."""
    return read_regular(path, limit + 1)


def _merged(parent: Mapping[str, Json], child: Mapping[str, Json]) -> dict[str, Json]:
    """Return the settings of a folder. Its own fields replace inherited ones, those of ``external`` one by one."""
    merged = {**parent, **child}
    if isinstance(child.get("external"), dict):
        merged["external"] = {**(parent.get("external") or {}), **child["external"]}
    return merged
