"""The corpus of SQL in thirteen dialects and more, with what each text reads and makes beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.sql_corpus import Score, cases, dialects, ours

from benchmarks import sql_corpus

PAGE = Path(__file__).parent.parent.parent / "docs" / "task-files-sql.md"


@pytest.fixture(scope="module")
def scores() -> dict[str, tuple[Score, Score]]:
    return sql_corpus.scores()


@pytest.mark.parametrize("dialect", dialects())
def test_each_text_of_the_corpus_is_read_right(dialect: str) -> None:
    wrong = [f"{case.line}: {case.name}: {verdict}" for case in cases(dialect) if (verdict := ours(case))]
    assert wrong == []


def test_the_corpus_has_three_hundred_texts_of_thirteen_dialects() -> None:
    texts = [case for dialect in dialects() for case in cases(dialect)]
    assert len(dialects()) >= 13
    assert len(texts) >= 300
    assert len({(case.dialect, case.name) for case in texts}) == len(texts)


def test_nothing_that_sqlglot_alone_reads_right_is_read_wrong() -> None:
    worse = [
        case.name for dialect in dialects() for case in cases(dialect) if ours(case) and not sql_corpus.sqlglots(case)
    ]
    assert worse == []


def test_the_table_in_the_docs_is_what_the_command_makes(scores: dict[str, tuple[Score, Score]]) -> None:
    text = PAGE.read_text()
    table = text.split(sql_corpus.MARKS[0])[1].split(sql_corpus.MARKS[1])[0]
    assert table.strip() == sql_corpus.markdown(scores)
