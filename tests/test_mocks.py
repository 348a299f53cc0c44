"""The check of mocks finds each way to replace something, and the tests keep to its limit."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tools"))

import check_mocks  # noqa: E402

PATH = Path("test_x.py")


@pytest.mark.parametrize(
    "text",
    [
        "monkeypatch.setattr(time, 'time', clock)",
        "with pytest.MonkeyPatch.context() as patch: patch.setattr('a.b', 3)",
        "from unittest.mock import Mock\nMock()",
        "from unittest.mock import patch as replace\n@replace('a.b')\ndef test_x(): pass",
        "from unittest import mock\nmock.patch.object(a, 'b')",
        "import unittest.mock\nunittest.mock.MagicMock()",
        "import unittest.mock as fakes\nfakes.MagicMock()",
        "def test_x(mocker): mocker.patch('a.b')",
    ],
)
def test_a_replaced_attribute_is_a_mock(text: str) -> None:
    (mock,) = check_mocks.mocks_in(PATH, ast.parse(text))
    assert str(mock).startswith(f"test_x.py:{mock.line}: ")


@pytest.mark.parametrize(
    "text",
    [
        "monkeypatch.setenv('A', 'b')",
        "monkeypatch.chdir(folder)",
        "setattr(run, 'name', 'a')",
        "client.patch('/api', body)",
        "merge_patch({}, change)",
    ],
)
def test_the_edge_of_the_process_is_none(text: str) -> None:
    assert list(check_mocks.mocks_in(PATH, ast.parse(text))) == []


def test_a_test_function_counts_once_wherever_it_is() -> None:
    text = "def test_a(): pass\nasync def test_b(): pass\nclass TestC:\n    def test_d(self): pass\ndef help(): pass"
    assert check_mocks.test_functions_in(ast.parse(text)) == 3


def test_the_tests_keep_to_the_limit() -> None:
    mocks, tests = check_mocks.count(ROOT)
    assert 100 * len(mocks) <= check_mocks.LIMIT * tests, "\n".join(map(str, mocks))
