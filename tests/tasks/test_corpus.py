"""The corpus of SQL in more than thirteen dialects; each text has the tables that it reads and writes beside it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from benchmarks.sql_corpus import Score, cases, dialects, ours

from benchmarks import sql_corpus
from crosswind.tasks.query_analysis import read_query

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "task-files-sql.md"


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


def test_the_table_in_the_docs_is_the_output_of_the_command(scores: dict[str, tuple[Score, Score]]) -> None:
    text = PAGE.read_text()
    table = text.split(sql_corpus.MARKS[0])[1].split(sql_corpus.MARKS[1])[0]
    assert table.strip() == sql_corpus.markdown(scores)


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_text_never_raises(seed: int) -> None:
    chance = random.Random(seed)
    texts = [case for dialect in dialects() for case in cases(dialect)]
    for _ in range(250):
        case, other = chance.choice(texts), chance.choice(texts)
        read_query(_damaged(case.sql, other.sql, chance), ["a"], case.dialect, chance.choice(["", "x", "a.b"]))


def _damaged(text: str, other: str, chance: random.Random) -> str:
    for _ in range(chance.randint(1, 4)):
        begin = chance.randint(0, len(text))
        end = begin + chance.randint(1, 20)
        signs = ["'", '"', "(", ")", ";", "$$", "--", "/*", "{{", "{%", " END ", "BEGIN ", "`", "[", "\x00", "é"]
        words = text.split()
        chance.shuffle(words)
        text = chance.choice(
            [
                text[:begin],
                text[begin:],
                text[:begin] + text[end:],
                text[:begin] + chance.choice(signs) + text[begin:],
                text[:begin] + other,
                " ".join(words),
            ]
        )
    return text
