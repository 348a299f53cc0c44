"""How Crosswind is installed: as the docs say, while it is on no package index."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md"), *ROOT.glob("src/**/*.py")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_says_to_install_from_an_index_what_is_on_none(page: Path) -> None:
    asked = re.findall(r"pip install[^\n]*", page.read_text())
    assert [line for line in asked if re.search(r"(?<![/\w-])crosswind(\[|['\"` ]|$)", line)] == []


@pytest.mark.timeout(300)
def test_make_wheel_builds_a_wheel_with_all_that_is_in_the_package(tmp_path: Path) -> None:
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
        ["make", "wheel"], env=environment, cwd=checkout, capture_output=True, text=True, timeout=280, check=False
    )
    assert ran.returncode == 0, ran.stderr
    (wheel,) = (checkout / "dist").glob("crosswind-*.whl")
    assert ran.stdout.split() == [f"dist/{wheel.name}"]
    assert (checkout / "dist" / "mine.txt").exists()
    inside = set(zipfile.ZipFile(wheel).namelist())
    package = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "crosswind").rglob("*.py")}
    assert package <= inside
    assert any(name.startswith("crosswind/_examples/demo/") for name in inside)
