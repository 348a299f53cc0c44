"""Jinja in queries: which texts come of a template, and where their lines are from."""

from __future__ import annotations

import pytest

from crosswind.tasks.queries import read_query
from crosswind.tasks.sql.names import HOLE
from crosswind.tasks.sql.templates import MAX_READINGS, TemplateProblem, readings


def texts(template: str) -> list[str]:
    return [" ".join(reading.text.split()) for reading in readings(template)]


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
def test_every_branch_is_a_text_and_what_the_template_tells_is_filled_in(template: str, expected: list[str]) -> None:
    assert sorted(texts(template)) == sorted(expected)


def test_many_conditions_do_not_grow_without_end() -> None:
    template = "".join(f"{{% if c{n} %}}{n}{{% endif %}}" for n in range(100))
    assert len(texts(template)) == MAX_READINGS


def test_loops_in_loops_do_not_grow_without_end() -> None:
    deep = "{% for a in x %}" * 60 + "abcdefgh" * 10 + "{% endfor %}" * 60
    with pytest.raises(TemplateProblem, match="more text than can be read"):
        texts(deep)


def test_an_included_file_is_not_seen_and_the_text_not_whole() -> None:
    (reading,) = readings("SELECT 1 {% include 'more.sql' %}")
    assert not reading.whole


def test_lines_are_those_of_the_template() -> None:
    sql = "{% for t in ['a', 'b'] %}\nINSERT INTO d\nSELECT * FROM\n  s.{{ t }};\n{% endfor %}\nSELECT * FROM\n c"
    assert read_query(sql, [], "", "").reads == {"c": 7, "s.a": 4, "s.b": 4}


def test_a_branch_that_cannot_be_read_is_named_with_its_line() -> None:
    found = read_query("SELECT * FROM a\n{% if x %}\nWHERE ((\n{% endif %}", [], "", "")
    assert list(found.reads) == ["a"]
    assert [line for line, _ in found.unread] == [3]


def test_a_template_that_is_broken_is_named_with_its_line() -> None:
    found = read_query("SELECT 1;\n{% if x %}", [], "", "")
    assert found.unread[0][0] == 2
    assert "template" in found.unread[0][1]
