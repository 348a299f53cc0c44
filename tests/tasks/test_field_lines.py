from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswind.errors import DocumentError
from crosswind.tasks.field_lines import read_fields
from deadlines import scaled


def test_values_come_with_their_lines() -> None:
    document = read_fields(b"id: daily\ntables:\n- orders\n- users\nrun:\n  env: {A: b}\n")
    assert document.fields == {"id": "daily", "tables": ["orders", "users"], "run": {"env": {"A": "b"}}}
    assert document.lines["tables.1"] == 4
    assert document.lines["run.env.A"] == 6


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("2026-01-01", "2026-01-01"),
        ("012", "012"),
        ("5", 5),
        ("-1.5", -1.5),
        ("true", True),
        ("null", None),
        ("", None),
        ("'5'", "5"),
        ('"true"', "true"),
        ("1:30", "1:30"),
    ],
)
def test_plain_values_have_the_meaning_that_people_expect(text: str, value: object) -> None:
    assert read_fields(f"a: {text}".encode()).fields == {"a": value}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (b"", 0, "empty"),
        (b"# nothing\n", 0, "empty"),
        (b"just words", 1, "must hold fields"),
        (b"a: 1\nb: &x 1\nc: *x\n", 2, "anchors and aliases"),
        (b"a: !!python/object/apply:os.system [ls]", 1, "tags"),
        (b"a: 1\nb: 2\na: 3\n", 3, "a is given twice"),
        (b"a: 1\n---\nb: 2\n", 2, "more than one YAML document"),
        (b"a: [1\n", 2, "not readable as YAML"),
        (b"a:\n\tb: 1\n", 2, "not readable as YAML"),
        (b"a: 1\nb: \xff\n", 2, "not UTF-8"),
        (b"a: \x00", 0, "not readable as YAML"),
        (b"? [a, b]\n: c\n", 1, "must be a word"),
        (b"a: " + b"[" * 40_000, 1, "nested deeper"),
        (b"- " * 30_000, 1, "nested deeper"),
        (b"a: " + b"{a: " * 9_000, 1, "nested deeper"),
        (b"x" * 10_000_000, 0, "larger than 64 KiB"),
    ],
)
def test_refused_text_is_reported_with_its_line(text: bytes, line: int, message: str) -> None:
    begun = time.monotonic()
    with pytest.raises(DocumentError, match=message) as raised:
        read_fields(text)
    assert raised.value.line == line
    assert time.monotonic() - begun < scaled(1)


def test_a_bomb_of_aliases_is_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    with pytest.raises(DocumentError, match="anchors and aliases"):
        read_fields("\n".join(lines).encode())


@given(st.binary(max_size=300))
def test_any_bytes_give_fields_or_an_error(data: bytes) -> None:
    with suppress(DocumentError):
        assert isinstance(read_fields(data).fields, dict)
