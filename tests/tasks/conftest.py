"""Folders of task files, written by hand in a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from crosswind.tasks import Compiled, compile_folder


class Folder:
    """A folder that a test fills."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cache: Path | None = None

    def write(self, path: str, text: str | bytes) -> Path:
        file = self.path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def task(self, path: str, tables: str = "", sql: str | None = None, **more: str) -> None:
        """Write ``FOLDER/ID.yaml`` and its query, which reads the tables and makes one called as the task."""
        folder, _, name = path.rpartition("/")
        names = [table.strip() for table in tables.split(",") if table.strip()]
        reads = " JOIN ".join(names)
        if sql is None:
            sql = f"CREATE TABLE {name} AS SELECT 1 AS a{f' FROM {reads}' if names else ''}"
        lines = [f"id: {name}", f"query: {name}.sql", f"tables: [{', '.join(names)}]"]
        lines += [f"{key}: {value}" for key, value in more.items()]
        self.write(f"{path}.yaml", "\n".join(lines) + "\n")
        self.write(f"{folder}/{name}.sql" if folder else f"{name}.sql", sql)

    def compile(self, **settings: Any) -> Compiled:
        return compile_folder(self.path, {"connection": "warehouse", **settings}, self.cache)

    def edges(self, **settings: Any) -> dict[str, dict[str, list[str]]]:
        """Return for each DAG what comes before each task."""
        found = self.compile(**settings)
        return {dag.dag_id: {task.task_id: list(task.upstream) for task in dag.tasks} for dag in found.dags}

    def told(self, **settings: Any) -> list[str]:
        return [problem.told() for problem in self.compile(**settings).problems]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "shop").mkdir()
    return Folder(tmp_path / "shop")


@pytest.fixture
def facts() -> Callable[..., Mapping[str, Any]]:
    """Read a query; gives what it reads and writes."""
    from crosswind.tasks.queries import read_query

    def read(sql: str, dialect: str = "", schema: str = "") -> Mapping[str, Any]:
        found = read_query(sql, [], dialect, schema)
        assert not found.unread
        assert found.no_query is None
        return {"reads": list(found.reads), "writes": list(found.writes)}

    return read
