"""The examples that the demo can run: their files, and the results to show at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from crosswind.demo.airflow_api import AirflowApi
from crosswind.errors import ConfigError
from crosswind.types import Json

__all__ = ["ORDERS", "SHOP", "Example", "ExampleFiles"]


@dataclass(frozen=True, slots=True)
class ExampleFiles:
    """Files of an example that each pod mounts, in the folder ``name`` of Airflow's home."""

    name: str
    folder: str
    """Their folder, relative to the folder of all examples."""
    pattern: str

    def contents(self) -> dict[str, str]:
        """Return the texts of the files by their paths below the folder, with slashes."""
        folder = _examples() / self.folder
        paths = sorted(path for path in folder.glob(self.pattern) if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


@dataclass(frozen=True, slots=True)
class Example:
    """A DAG folder, the DAG to run, and the files that its pods need."""

    dags: str
    """The DAG folder, relative to the folder of all examples."""
    dag_id: str
    mounts: tuple[ExampleFiles, ...]
    result_task: str | None
    """The task that returns the rows to show; None if each task returns one row, as a JSON object."""
    columns: tuple[str, ...]

    def dags_folder(self) -> Path:
        """Return the DAG folder."""
        return _examples() / self.dags

    async def results(self, api: AirflowApi, run_id: str, tasks: Sequence[Json]) -> list[list[Json]]:
        """Return the rows of a run to show; empty if the tasks returned none."""
        if self.result_task:
            return await api.xcom(run_id, self.result_task) or []
        rows = [await api.xcom(run_id, name) for name in sorted(task["task_id"] for task in tasks)]
        return [list((json.loads(row) if isinstance(row, str) else row).values()) for row in rows if row]


ORDERS = Example(
    dags="demo/dags",
    dag_id="orders",
    mounts=(ExampleFiles("dags", "demo/dags", "*.py"), ExampleFiles("data", "demo/data", "*.csv")),
    result_task="report",
    columns=("month", "orders", "revenue in EUR"),
)
"""A Python DAG that merges six monthly exports into one table."""

SHOP = Example(
    dags="tasks/dags",
    dag_id="shop",
    mounts=(
        ExampleFiles("dags", "tasks/dags", "*.py"),
        ExampleFiles("bin", "tasks/bin", "*.py"),
        ExampleFiles("data", "demo/data", "*.csv"),
        ExampleFiles("task_files", "tasks/task_files", "**/*.*"),
    ),
    result_task=None,
    columns=("table", "rows", "digest"),
)
"""Thirty task files on the same exports."""


def _examples() -> Path:
    """Return the folder of the examples: inside the installed package, or in a checkout."""
    packaged = Path(str(resources.files("crosswind"))) / "_examples"
    checkout = Path(__file__).resolve().parents[3] / "examples"
    for folder in (packaged, checkout):
        if (folder / "demo" / "dags" / "orders.py").exists():
            return folder
    raise ConfigError(f"the demo's files are neither in {packaged} nor in {checkout}: install crosswind again")
