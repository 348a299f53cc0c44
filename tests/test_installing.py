"""How Crosswind is installed: as the docs say, while it is on no package index."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import distributions, entry_points
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from deadlines import scaled

ROOT = Path(__file__).parents[1]
PATTERNS = ("*.md", "docs/**/*.md", "examples/**/*.md", "src/**/*.py", "packages/**/*.md", "packages/*/src/**/*.py")
PAGES = [path for pattern in PATTERNS for path in ROOT.glob(pattern)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_says_to_install_from_an_index_what_is_on_none(page: Path) -> None:
    asked = re.findall(r"pip install[^\n]*", page.read_text())
    assert [line for line in asked if re.search(r"(?<![/\w-])(crosswind|kubelocal)(\[|['\"` ]|$)", line)] == []


def test_every_pinned_version_installs_on_the_oldest_python_that_is_promised() -> None:
    """Some packages ask for a late patch release, such as 3.11.5; Debian 12 has 3.11.2."""
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = promised.removeprefix(">=") + ".0"
    newer = {
        package.name: asked
        for package in distributions()
        if (asked := package.metadata.get("Requires-Python")) and oldest not in SpecifierSet(asked)
    }
    assert newer == {}


@pytest.mark.timeout(300)
def test_make_wheel_builds_both_wheels_with_all_that_is_in_the_packages(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (checkout / name).write_bytes((ROOT / name).read_bytes())
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (checkout / ".venv" / ".ready").touch()
    (checkout / "dist").mkdir()
    (checkout / "dist" / "mine.txt").touch()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    ran = subprocess.run(
        ["make", "wheel"],
        env=environment,
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=scaled(280),
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    (wheel,) = (checkout / "dist").glob("crosswind-*.whl")
    (kubelocal,) = (checkout / "dist").glob("kubelocal-*.whl")
    assert ran.stdout.split() == [f"dist/{wheel.name}", f"dist/{kubelocal.name}"]
    assert (checkout / "dist" / "mine.txt").exists()
    names = set(zipfile.ZipFile(wheel).namelist())
    assert _files(ROOT / "src", "crosswind") <= names
    assert any(name.startswith("crosswind/_examples/demo/") for name in names)
    assert _files(ROOT / "packages" / "kubelocal" / "src", "kubelocal") <= set(zipfile.ZipFile(kubelocal).namelist())


def _files(folder: Path, package: str) -> set[str]:
    paths = (path for path in (folder / package).rglob("*") if path.suffix in {".py", ".yaml", ".txt"})
    return {str(path.relative_to(folder)) for path in paths}


def test_the_extra_local_is_kubelocal_of_the_same_version() -> None:
    crosswind = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    kubelocal = tomllib.loads((ROOT / "packages" / "kubelocal" / "pyproject.toml").read_text())["project"]
    assert kubelocal["version"] == crosswind["version"]
    assert crosswind["optional-dependencies"]["local"] == [f"kubelocal=={crosswind['version']}"]


def test_constraints_hold_packages_of_others_alone() -> None:
    names = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert not names & {"crosswind", "kubelocal"}


def test_only_kubelocal_registers_a_pytest_plugin() -> None:
    registered = {point.value for point in entry_points(group="pytest11") if "crosswind" in point.value}
    assert registered == set()
    assert [point.value for point in entry_points(group="pytest11", name="kubelocal")] == ["kubelocal.testing"]


WITHOUT_KUBELOCAL = """
import importlib, pkgutil, sys
sys.modules["kubelocal"] = None
import crosswind
needs_it = ("crosswind.demo", "crosswind.testing", "crosswind.__main__")
for module in pkgutil.walk_packages(crosswind.__path__, "crosswind."):
    if not module.name.startswith(needs_it):
        importlib.import_module(module.name)
        print(module.name)
"""


@pytest.mark.timeout(120)
def test_every_module_but_those_of_the_demo_is_imported_without_the_extra_local() -> None:
    ran = subprocess.run([sys.executable, "-c", WITHOUT_KUBELOCAL], capture_output=True, text=True, timeout=scaled(110))
    assert ran.returncode == 0, ran.stderr
    assert {"crosswind.executor", "crosswind.operators", "crosswind.cli.local"} <= set(ran.stdout.split())
