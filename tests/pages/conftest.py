from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.pages.rig import PagesServer

from deadlines import scaled

AXE = "axe-core@4.11.0"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PagesServer]:
    with PagesServer(tmp_path_factory.mktemp("airflow") / "home", pods=5000, past=400) as running:
        yield running


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, which checks accessibility."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, which continuous integration installs")
    folder = tmp_path_factory.mktemp("npm")
    command = [npm, "install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error", f"--prefix={folder}", AXE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=scaled(60), check=False)
    if done.returncode:
        pytest.skip(f"npm cannot fetch {AXE}: {done.stderr[-300:]}")
    return (Path(folder) / "node_modules" / "axe-core" / "axe.min.js").read_text()
