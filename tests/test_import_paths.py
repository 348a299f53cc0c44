"""Names that deployments and DAG files import keep their paths; classes that the database names are defined there."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PUBLIC = (
    "crosswind.executor:KubernetesExecutor",
    "crosswind.operators:KubernetesPodOperator",
    "crosswind.triggers:PodTrigger",
    "crosswind.decorators:pod_task",
    "crosswind.dags:load_tasks",
    "crosswind.testing:cluster",
    "crosswind.provider:get_provider_info",
    "crosswind.provider:cli_commands",
    "crosswind.task_logs:ArchiveTaskHandler",
)


@pytest.mark.parametrize("path", PUBLIC)
def test_a_public_name_is_imported_from_its_path(path: str) -> None:
    module, name = path.split(":")
    assert callable(getattr(importlib.import_module(module), name))


@pytest.mark.parametrize(
    "path",
    [
        "crosswind.executor:KubernetesExecutor",
        "crosswind.operators:KubernetesPodOperator",
        "crosswind.triggers:PodTrigger",
    ],
)
def test_a_class_that_the_database_names_is_defined_where_it_is_public(path: str) -> None:
    module, name = path.split(":")
    assert getattr(importlib.import_module(module), name).__module__ == module


def test_the_provider_s_entry_point_imports_neither_airflow_nor_the_rest_of_the_package() -> None:
    program = "import sys, crosswind.provider; print(sorted(name for name in sys.modules if name.startswith(PREFIXES)))"
    command = [sys.executable, "-c", f"PREFIXES = ('airflow', 'crosswind'); {program}"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "['crosswind', 'crosswind.provider']"


ROOT = Path(__file__).parents[1]
ALIASES = {"task_logs", "local"}
"""Kept for one release, or for the configuration of deployments; they hold no code."""
IMPORT_AIRFLOW = {"dags", "decorators", "executor", "operators", "provider", "testing", "triggers", "worker"}


def entries_of_the_package() -> tuple[set[str], set[str]]:
    """Return the modules and the folders at the root of the package, without the aliases."""
    package = ROOT / "src" / "crosswind"
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    return modules - ALIASES, folders - ALIASES


def test_the_root_of_the_package_stays_small() -> None:
    modules, folders = entries_of_the_package()
    assert len(modules) <= 13, sorted(modules)
    assert len(folders) <= 11, sorted(folders)


def test_the_contract_about_airflow_names_every_module_that_must_not_import_it() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [contract for contract in contracts if contract.get("forbidden_modules") == ["airflow"]]
    modules, folders = entries_of_the_package()
    expected = (modules | folders) - IMPORT_AIRFLOW
    assert {name.removeprefix("crosswind.") for name in contract["source_modules"]} == expected
