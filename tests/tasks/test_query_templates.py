"""Jinja in queries: the texts that a template renders, and the lines that they come from."""

from __future__ import annotations

import pytest

from crosswind.tasks.query_analysis import read_query
from crosswind.tasks.sql.jinja_templates import MAX_VARIANTS, SqlTemplateError, variants
from crosswind.tasks.sql.names import HOLE


def texts(template: str) -> list[str]:
    return [" ".join(reading.text.split()) for reading in variants(template)]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("a {# b #} c", ["a c"]),
        ("{{ ds }}", [HOLE]),
        ("{% set t = 'x' %}{{ t }} {{ t | upper }}", ["x X"]),
        ("{% set t = {'k': ['x', 'y']} %}{{ t['k'][1] }}", ["y"]),
        ("{% for t in ['x', 'y'] %}{{ t }}{% if not loop.last %},{% endif %}{% endfor %}", ["x,y"]),
        ("{% for t in params.l %}u{{ ' +' if not loop.last }} {% endfor %}", ["u + u"]),
        ("{% if a %}x{% else %}y{% endif %}", ["x", "y"]),
        ("{% if a %}x{% elif b %}y{% else %}z{% endif %}", ["x", "y", "z"]),
        ("{% if a %}x{% endif %}{% if not a %}y{% endif %}", ["x", "y"]),
        ("{% if 1 > 2 %}x{% endif %}y", ["y"]),
        ("{% raw %}{{ x }}{% endraw %}", ["{{ x }}"]),
        ("{% macro m(a, b='q') %}{{ a }}{{ b }}{% endmacro %}{{ m('p') }}", ["pq"]),
        ("{% with t = 'x' %}{{ t }}{% endwith %}", ["x"]),
    ],
)
def test_every_branch_is_a_text_with_the_values_that_the_template_sets(template: str, expected: list[str]) -> None:
    assert sorted(texts(template)) == sorted(expected)


def test_many_conditions_do_not_grow_without_end() -> None:
    template = "".join(f"{{% if c{n} %}}{n}{{% endif %}}" for n in range(100))
    assert len(texts(template)) == MAX_VARIANTS


def test_loops_in_loops_do_not_grow_without_end() -> None:
    deep = "{% for a in x %}" * 60 + "abcdefgh" * 10 + "{% endfor %}" * 60
    with pytest.raises(SqlTemplateError, match="more text than can be read"):
        texts(deep)


def test_an_included_file_is_missing_from_the_text() -> None:
    (reading,) = variants("SELECT 1 {% include 'more.sql' %}")
    assert not reading.whole


def test_lines_are_those_of_the_template() -> None:
    sql = "{% for t in ['a', 'b'] %}\nINSERT INTO d\nSELECT * FROM\n  s.{{ t }};\n{% endfor %}\nSELECT * FROM\n c"
    assert read_query(sql, [], "", "").reads == {"c": 7, "s.a": 4, "s.b": 4}


def test_a_branch_that_cannot_be_read_is_named_with_its_line() -> None:
    facts = read_query("SELECT * FROM a\n{% if x %}\nWHERE ((\n{% endif %}", [], "", "")
    assert list(facts.reads) == ["a"]
    assert [line for line, _ in facts.unread] == [3]


def test_a_template_that_is_broken_is_named_with_its_line() -> None:
    facts = read_query("SELECT 1;\n{% if x %}", [], "", "")
    assert facts.unread[0][0] == 2
    assert "template" in facts.unread[0][1]
