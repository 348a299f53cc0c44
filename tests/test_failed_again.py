"""The second run of failed tests that continuous integration does."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
TEST = """
from pathlib import Path

def test_it():
    assert Path("passes").exists()

def test_other():
    Path("other ran").touch()
"""


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("test_again", ROOT / "tools" / "test_again.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def suite(tmp_path: Path) -> dict[Path, Path]:
    (tmp_path / "test_sample.py").write_text(TEST)
    (tmp_path / "pytest.ini").touch()
    record(tmp_path, "test_sample.py::test_it")
    return {tmp_path: Path(sys.prefix)}


def record(folder: Path, *failed: str) -> None:
    cache = folder / ".pytest_cache" / "v" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "nodeids").write_text("[]")
    (cache / "lastfailed").write_text(json.dumps(dict.fromkeys(failed, True)))


def test_what_fails_again_fails_the_run(tool: ModuleType, suite: dict[Path, Path], tmp_path: Path) -> None:
    assert tool.run_again(suite) == 1
    (tmp_path / "passes").touch()
    assert tool.run_again(suite) == 0
    assert not (tmp_path / "other ran").exists()


def test_failures_in_many_files_and_a_run_without_any_test_are_no_accident(
    tool: ModuleType, suite: dict[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "passes").touch()
    files = [f"test_sample_{number}.py" for number in range(tool.MOST + 1)]
    for file in files:
        (tmp_path / file).write_text("def test_it():\n    pass\n")
    record(tmp_path, *(f"{file}::test_it" for file in files))
    assert tool.run_again(suite) == 1
    (tmp_path / ".pytest_cache" / "v" / "cache" / "lastfailed").unlink()
    assert tool.run_again(suite) == 1


def test_all_tests_of_a_file_whose_server_did_not_start_run_again(
    tool: ModuleType, suite: dict[Path, Path], tmp_path: Path
) -> None:
    numbers = range(2 * tool.MOST)
    (tmp_path / "test_server.py").write_text("".join(f"def test_{number}():\n    pass\n" for number in numbers))
    record(tmp_path, *(f"test_server.py::test_{number}" for number in numbers))
    assert tool.run_again(suite) == 0


def test_a_suite_that_did_not_run_to_its_end_fails_the_run_whatever_the_other_does(
    tool: ModuleType, suite: dict[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "passes").touch()
    (tmp_path / "unended").mkdir()
    assert tool.run_again({**suite, tmp_path / "unended": Path(sys.prefix)}) == 1
    assert tool.run_again(suite) == 0
