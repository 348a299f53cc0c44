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


def test_loops_without_text_do_not_run_without_end() -> None:
    with pytest.raises(SqlTemplateError, match="its loops run more than"):
        texts("{% for a in x %}" * 60 + "{% endfor %}" * 60)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("2 ** 10", "1024"),
        ("10000 * 365", "3650000"),
        ("'ab' * 3", "ababab"),
        ("'orders_%s' % 20240101", "orders_20240101"),
        ("'%s-%d' | format('a', 20240101)", "a-20240101"),
        ("20240101 | string", "20240101"),
        ("['b', 'a', 'b'] | unique | join(', ')", "b, a"),
        ("'a' | center(5)", "  a  "),
    ],
)
def test_a_small_value_is_calculated(expression: str, text: str) -> None:
    assert [reading.text for reading in variants(f"{{{{ {expression} }}}}")] == [text]


@pytest.mark.parametrize(
    "expression",
    [
        "9 ** (9 ** 7)",
        "9 ** (9 ** 8)",
        "10 ** 5000",
        "'ab' * 10 ** 9",
        "10 ** 9 * [0]",
        "'a' | center(10 ** 9)",
        "'a' | indent(width=10 ** 9)",
        "'abc' | slice(10 ** 9) | list",
        "1 | round(10 ** 9, 'floor')",
        "'%999999999d' % 1",
        "'%(a)999999999d' % {'a': 1}",
        "'%*d' % (10 ** 9, 1)",
        "'%999999999d' | format(1)",
        f"0x{'f' * 10_000}",
        "1" + " + 1" * 50_000,
    ],
    ids=lambda expression: expression[:30],
)
def test_a_value_that_may_be_huge_is_not_calculated(expression: str) -> None:
    assert texts(f"{{{{ {expression} }}}}") == [HOLE]


@pytest.mark.parametrize(
    ("value", "operation"),
    [("7", "x * x"), ("7", "[x, x]"), ("7", "{'a': x, 'b': x}"), ("'aa'", "x ~ x"), ("'aa'", "x | replace('a', x)")],
)
def test_values_do_not_grow_without_end_step_by_step(value: str, operation: str) -> None:
    assert texts(f"{{% set x = {value} %}}{f'{{% set x = {operation} %}}' * 60}{{{{ x | string | length > 0 }}}}") == [
        HOLE
    ]


@pytest.mark.parametrize(
    ("expression", "reason"), [("1" + "0" * 5000, "too many digits"), ("a and " * 5000 + "a", "nested too deeply")]
)
def test_an_expression_that_python_cannot_read_is_a_problem(expression: str, reason: str) -> None:
    with pytest.raises(SqlTemplateError, match=reason):
        texts(f"{{% if {expression} %}}x{{% endif %}}")


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
