"""The words that plain technical English avoids are found in pages, and counted in source code."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tools"))

import check_prose  # noqa: E402


@pytest.mark.parametrize(
    "text",
    [
        "The log tells it.",
        "It was told.",
        "Mend the file.",
        "mended",
        "The pod is no more.",
        "The value is nothing.",
        "It is dealt with.",
        "Whoever reads it",
        "It looks now and then.",
        "It says what is wrong.",
    ],
)
def test_a_word_to_avoid_is_reported_with_line_and_advice(text: str) -> None:
    (word,) = check_prose.findings(Path("page.md"), f"First line.\n\n{text}\n")
    assert str(word).startswith("page.md:3: '")
    assert "; write " in str(word)


@pytest.mark.parametrize("text", ["no more than three", "amended", "a recommended value", "the telltale"])
def test_other_words_pass(text: str) -> None:
    assert list(check_prose.findings(Path("page.md"), text)) == []


def test_code_is_exempt_and_lines_keep_their_number() -> None:
    page = "`told` `in\ntold`\n\n```bash\ntold\n```\n\nIt is told.\n"
    (word,) = check_prose.findings(Path("page.md"), check_prose.prose(page))
    assert word.line == 8


def test_documentation_has_none_of_these_words() -> None:
    assert [str(word) for word in check_prose.in_pages(ROOT)] == []


def test_source_code_keeps_to_its_budget() -> None:
    assert len(check_prose.in_sources(ROOT)) <= check_prose.BUDGET


def test_the_glossary_is_in_alphabetical_order() -> None:
    lines = (ROOT / "docs" / "glossary.md").read_text().splitlines()
    terms = [line for line, after in pairwise(lines) if after.startswith(":   ")]
    assert terms == sorted(terms)
    assert len(terms) > 20
