"""Import errors of task files in Airflow's UI: one for each file, under the file's own path.

Airflow 3.3 has a registry of DAG importers, and an importer may report errors of any file. The registry does not serve
here. It has one importer for each file name extension, so an importer of ours for ``.py`` would replace Airflow's for
every DAG file; one for ``.yaml`` would be called for each task file alone, in a process of its own, although the edges
between tasks need all files. And Airflow gives the code of a DAG file no access to the result of its import. An
exception would reach the UI, but drop the DAGs of all good files.

So the result is looked up among the local variables of the callers, where Airflow's importer holds it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from crosswind.tasks.problems import TaskFileProblem, by_file

if TYPE_CHECKING:
    from airflow.dag_processing.importers import DagImportResult

__all__ = ["report_problems"]

log = logging.getLogger(__name__)


def report_problems(problems: Iterable[TaskFileProblem], root: Path, dag_file: FrameType) -> None:
    """Log the warnings; report each bad file as an import error where Airflow imports ``dag_file``, else in the log.

    ``root``: the folder of the task files. ``dag_file``: the frame of the DAG file's code.
    """
    for problem in problems:
        if not problem.fatal:
            log.warning("%s", problem.describe(f"{root}/"))
    errors = by_file(problems)
    if not errors:
        return
    result = _result_of_running_import(dag_file)
    if result is None:  # a plain Python process, such as a test
        for text in errors.values():
            log.error("%s", text)
        return
    from airflow.dag_processing.importers import DagImportError

    folder = _path_in_bundle(root, dag_file.f_globals["__file__"], result.file_path)
    for file, text in errors.items():
        result.errors.append(DagImportError(file_path=f"{folder}/{file}", message=text, error_type="task file"))


def _result_of_running_import(frame: FrameType | None) -> DagImportResult | None:
    """Return the result that the importer of this DAG file fills; None without an importer."""
    from airflow.dag_processing.importers import DagImportResult

    while frame is not None:
        for value in list(frame.f_locals.values()):
            if isinstance(value, DagImportResult):
                return value
        frame = frame.f_back
    return None


def _path_in_bundle(root: Path, dag_file: str, dag_file_in_bundle: str) -> str:
    """Return ``root`` relative to the bundle, as Airflow identifies files; its absolute path if it lies outside."""
    bundle = dag_file.removesuffix(dag_file_in_bundle)
    path = os.path.abspath(root)
    return os.path.relpath(path, bundle) if bundle and bundle != dag_file and path.startswith(bundle) else path
