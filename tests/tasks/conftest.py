"""Folders of task files that a test writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from crosswind.tasks import CompiledFolder, compile_folder


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
        """Write ``FOLDER/ID.yaml`` and its query, which reads the tables and creates one with the task's id."""
        folder, _, name = path.rpartition("/")
        names = [table.strip() for table in tables.split(",") if table.strip()]
        reads = " JOIN ".join(names)
        if sql is None:
            sql = f"CREATE TABLE {name} AS SELECT 1 AS a{f' FROM {reads}' if names else ''}"
        lines = [f"id: {name}", f"query: {name}.sql", f"tables: [{', '.join(names)}]"]
        lines += [f"{key}: {value}" for key, value in more.items()]
        self.write(f"{path}.yaml", "\n".join(lines) + "\n")
        self.write(f"{folder}/{name}.sql" if folder else f"{name}.sql", sql)

    def compile(self, **settings: Any) -> CompiledFolder:
        return compile_folder(self.path, {"connection": "warehouse", **settings}, self.cache)

    def edges(self, **settings: Any) -> dict[str, dict[str, list[str]]]:
        """Return the tasks before each task, by DAG and task."""
        dags = self.compile(**settings).dags
        return {dag.dag_id: {task.task_id: list(task.upstream) for task in dag.tasks} for dag in dags}

    def problems(self, **settings: Any) -> list[str]:
        return [problem.describe() for problem in self.compile(**settings).problems]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "shop").mkdir()
    return Folder(tmp_path / "shop")


@pytest.fixture
def facts() -> Callable[..., Mapping[str, Any]]:
    """Return a function that returns the tables that a query reads and writes."""
    from crosswind.tasks.query_analysis import read_query

    def read(sql: str, dialect: str = "", schema: str = "") -> Mapping[str, Any]:
        query_facts = read_query(sql, [], dialect, schema)
        assert not query_facts.unread
        assert query_facts.no_query is None
        return {"reads": list(query_facts.reads), "writes": list(query_facts.writes)}

    return read
