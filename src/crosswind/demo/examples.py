"""The examples that the demo can run: where their files are, and what there is to show at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from crosswind.demo.webapi import AirflowApi
from crosswind.errors import ConfigError
from crosswind.types import Json

__all__ = ["ORDERS", "SHOP", "Example", "Mount"]


@dataclass(frozen=True, slots=True)
class Mount:
    """Files of an example that every pod sees, below Airflow's home in a folder called ``name``."""

    name: str
    folder: str
    """Below the folder of all examples."""
    pattern: str

    def contents(self) -> dict[str, str]:
        """Return the files' texts by their paths below the folder, with slashes."""
        folder = _examples() / self.folder
        paths = sorted(path for path in folder.glob(self.pattern) if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


@dataclass(frozen=True, slots=True)
class Example:
    """A DAG folder, the DAG that is watched, and what its pods need."""

    dags: str
    """The DAG folder, below the folder of all examples."""
    dag_id: str
    mounts: tuple[Mount, ...]
    result_task: str | None
    """The task that returns the rows to show; None when each task returns one, as a JSON object."""
    columns: tuple[str, ...]

    def dags_folder(self) -> Path:
        """Return the DAG folder."""
        return _examples() / self.dags

    async def results(self, api: AirflowApi, run_id: str, tasks: Sequence[Json]) -> list[list[Json]]:
        """Return the rows to show of a run, nothing if it returned none."""
        if self.result_task:
            return await api.xcom(run_id, self.result_task) or []
        found = [await api.xcom(run_id, name) for name in sorted(task["task_id"] for task in tasks)]
        return [list((json.loads(row) if isinstance(row, str) else row).values()) for row in found if row]


ORDERS = Example(
    dags="demo/dags",
    dag_id="orders",
    mounts=(Mount("dags", "demo/dags", "*.py"), Mount("data", "demo/data", "*.csv")),
    result_task="report",
    columns=("month", "orders", "revenue in EUR"),
)
"""Six monthly exports become one table, written in Python."""

SHOP = Example(
    dags="tasks/dags",
    dag_id="shop",
    mounts=(
        Mount("dags", "tasks/dags", "*.py"),
        Mount("bin", "tasks/bin", "*.py"),
        Mount("data", "demo/data", "*.csv"),
        Mount("task_files", "tasks/task_files", "**/*.*"),
    ),
    result_task=None,
    columns=("table", "rows", "digest"),
)
"""Thirty task files over the same exports."""


def _examples() -> Path:
    """Where the examples are: inside the installed package, or in the checkout."""
    packaged = Path(str(resources.files("crosswind"))) / "_examples"
    checkout = Path(__file__).resolve().parents[3] / "examples"
    for folder in (packaged, checkout):
        if (folder / "demo" / "dags" / "orders.py").exists():
            return folder
    raise ConfigError(f"the demo's files are neither in {packaged} nor in {checkout}: install crosswind again")
