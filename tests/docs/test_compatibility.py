"""The compatibility page names the versions that the tests use."""

from __future__ import annotations

import importlib
import re
import tomllib

from tests.docs.pages import ROOT

from crosswind.deploy.findings import OLDEST

PAGE = (ROOT / "docs" / "reference" / "compatibility.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)


def row(name: str) -> str:
    (line,) = re.findall(rf"^\| {re.escape(name)} \|.*$", PAGE, re.MULTILINE)
    return str(line)


def test_airflow_and_its_provider() -> None:
    provider = "apache-airflow-providers-cncf-kubernetes"
    assert PINS["apache-airflow"] in row("Apache Airflow")
    assert PINS[provider] in row(f"`{provider}`")
    ranges = dict(re.findall(r"^([\w-]+)(.*)$", "\n".join(PROJECT["dependencies"]), re.MULTILINE))
    assert ranges["apache-airflow"] == ">=3.3,<3.4"
    assert "| 3.3 |" in row("Apache Airflow")
    assert ranges[provider] == f">={PINS[provider].rpartition('.')[0]}"


def test_python() -> None:
    cells = row("Python")
    assert PROJECT["requires-python"] == ">=3.11"
    assert "3.11 or newer" in cells
    workflow = next((ROOT / ".github" / "workflows").glob("*.yml")).read_text()
    for version in re.findall(r'"(3\.\d+)"', workflow):
        assert version in cells


def test_kubernetes() -> None:
    assert "{}.{} or newer".format(*OLDEST) in row("Kubernetes")


def test_each_stable_class_path_can_be_imported() -> None:
    for path in re.findall(r"`(crosswind\.[\w.]+)`", PAGE.partition("## What stays stable")[2].partition("\n## ")[0]):
        module, _, name = path.rpartition(".")
        if module == "crosswind":
            importlib.import_module(path)
        else:
            assert hasattr(importlib.import_module(module), name), path
