"""Paths, make targets and modules that the pages name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.docs.pages import PAGES, ROOT

PATHS = sorted(
    {
        (page, path)
        for page in PAGES
        for path in re.findall(r"`((?:src|tests|examples|packages|tools|docs|benchmarks)/[\w./-]+)`", page.read_text())
        if "NAME" not in path
    }
)


@pytest.mark.parametrize(("page", "path"), PATHS, ids=[f"{page.stem}: {path}" for page, path in PATHS])
def test_a_path_that_a_page_names_exists(page: Path, path: str) -> None:
    package = next((folder for folder in page.parents if (folder / "pyproject.toml").exists()), ROOT)
    assert (ROOT / path).exists() or (package / path).exists(), f"{page.relative_to(ROOT)} names {path}"


def test_the_reference_lists_every_make_target() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    section = (ROOT / "docs" / "reference" / "commands.md").read_text().partition("\n## make\n")[2]
    listed = set(re.findall(r"`make ([a-z-]+)", section))
    assert set(targets) - {"help"} == listed


def test_the_contributors_table_names_a_module_for_each_question() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where to make a change")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+) \| (.+) \|$", section, re.MULTILINE)[1:]
    modules = {
        question: re.findall(r"`((?:src|packages)/[^`]+\.py)`", answer)
        for question, answer in rows
        if "---" not in question
    }
    assert len(modules) >= 5
    assert all(modules.values()), modules
