"""Hold the number of mocks in the tests of both packages to a share of the test functions.

A mock replaces an attribute of a module, class or object: ``monkeypatch.setattr``, and each object or patch of
``unittest.mock`` and pytest-mock. Environment variables and working folders are the process's edge and do not count.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("tests", "packages/kubelocal/tests")
LIMIT = 2.0
"""Mocks per 100 test functions."""

_MOCK_MODULES = ("unittest.mock", "mock")
_MOCKER = "mocker"


class Mock(NamedTuple):
    """Where a test replaces something, and by what."""

    path: Path
    line: int
    call: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.call}"


def mocks_in(path: Path, tree: ast.Module) -> Iterator[Mock]:
    """Yield each call of ``….setattr``, of a name imported from ``unittest.mock``, and of a ``mocker``."""
    mock_names = set(_names_of_mock(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            call = ast.unparse(node.func)
            is_patch = isinstance(node.func, ast.Attribute) and node.func.attr == "setattr"
            if is_patch or call.startswith("unittest.mock.") or call.split(".")[0] in mock_names:
                yield Mock(path, node.lineno, ast.unparse(node)[:100])


def _names_of_mock(tree: ast.Module) -> Iterator[str]:
    yield _MOCKER
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in _MOCK_MODULES:
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "unittest":
            yield from (alias.asname or alias.name for alias in node.names if alias.name == "mock")
        elif isinstance(node, ast.Import):
            yield from (alias.asname or alias.name for alias in node.names if alias.asname and "mock" in alias.name)


def test_functions_in(tree: ast.Module) -> int:
    """Return the number of functions that pytest collects, each once however many parameters it has."""
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return sum(function.name.startswith("test_") for function in functions)


def count(root: Path) -> tuple[list[Mock], int]:
    """Return the mocks and the number of test functions below the folders of tests."""
    mocks: list[Mock] = []
    tests = 0
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        mocks += mocks_in(path.relative_to(root), tree)
        tests += test_functions_in(tree)
    return mocks, tests


def main() -> int:
    """Print the figure; list the mocks and return 1 when they exceed the limit."""
    mocks, tests = count(ROOT)
    share = 100 * len(mocks) / max(tests, 1)
    print(f"tests: {tests} functions, {len(mocks)} mocks, {share:.1f} per 100")
    if share <= LIMIT:
        return 0
    for mock in mocks:
        print(f"mock: {mock}", file=sys.stderr)
    print(
        f"style: {share:.1f} mocks per 100 test functions, limit {LIMIT:g}: use the real part, or hand in a transport",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
