"""A document that others wrote costs little, however it is made."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crosswind.documents import MAX_DEPTH, MAX_DIGITS, MAX_NODES, Dialect, FieldProblem, parse, parse_document
from crosswind.errors import ConfigError


def nested_aliases(levels: int, width: int, leaf: str = "[x]") -> str:
    """Each level is a list of ``width`` aliases of the one before."""
    lines = [f"a0: &a0 {leaf}"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels + 1)]
    return "\n".join(lines) + "\n"


def chained_aliases(levels: int) -> str:
    """Each level holds the one before once: few values, nested deeply."""
    return "".join(f"a{n}: &a{n} [{f'*a{n - 1}' if n else 'x'}]\n" for n in range(levels))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: " + "[" * 50_000 + "]" * 50_000, "nested deeper than 100"),
        ("[" * 50_000, "nested deeper than 100"),
        ("{a: " * 50_000, "nested deeper than 100"),
        ("- " * 50_000 + "x", "nested deeper than 100"),
        ("".join("  " * n + "a:\n" for n in range(700)), "nested deeper than 100"),
        ("? " * 5_000 + "x", "nested deeper than 100"),
        (chained_aliases(500), "nested deeper than 100"),
        (chained_aliases(500).replace("[", "{b: ").replace("]", "}"), "nested deeper than 100"),
        (nested_aliases(9, 9), "more than 100000 values"),
        (nested_aliases(3, 100), "more than 100000 values"),
        (nested_aliases(9, 9).replace("[", "{<<: [").replace("]", "]}"), "more than 100000 values|nested deeper"),
        (f"a: &a {'x' * 500_000}\nb: [{','.join(['*a'] * 50)}]", "characters, aliases counted"),
        ("[" + "x," * (MAX_NODES + 1) + "]", "more than 100000 values"),
        ("a: &a [*a]", r"\*a stands for a value that contains it"),
        ("a: &a {b: {c: *a}}", r"\*a stands for a value that contains it"),
        ("a: " + "9" * 21, "an integer of more than 20 digits"),
        ("a: " + "9" * 500_000, "an integer of more than 20 digits"),
        ("a: 0x" + "f" * 400_000, "an integer of more than 20 digits"),
        ("a: " + "1:" * 5_000 + "1", "an integer of more than 20 digits"),
        ("a: " + "1_" * 5_000, "an integer of more than 20 digits"),
        ('a: !!int "' + "9" * 10_000 + '"', "an integer of more than 20 digits"),
        ("a: " + "x" * 2**20, "larger than 1024 KiB"),
        ("a: *b", "undefined alias"),
        ("a: 2026-02-30", "malformed"),
        ("a: !!float x", "malformed"),
        ("a: !!int x", "malformed"),
        ("a: !!timestamp x", "malformed"),
        ("? [a]\n: b", "unhashable"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: 1\n---\nb: 2", "more than one YAML document"),
        ("a: [", "not readable as YAML"),
        ("\x00", "not readable as YAML"),
        ("a: \x07", "not readable as YAML"),
    ],
)
def test_a_document_that_would_grow_is_refused_at_once_with_its_file(text: str, problem: str) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError, match=problem) as caught:
        parse(text, "some.yaml")
    assert str(caught.value).startswith("some.yaml:")
    assert time.process_time() - began < 5
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# nothing\n", None),
        ("a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}", {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}),
        ("a: " + "9" * MAX_DIGITS, {"a": 10**MAX_DIGITS - 1}),
        ('a: "' + "9" * 30 + '"', {"a": "9" * 30}),
        ("a: " + "x" * 30, {"a": "x" * 30}),
        ("a: 1.5\nb: no\nc: ~", {"a": 1.5, "b": False, "c": None}),
    ],
)
def test_documents_of_people_are_accepted(text: str, value: Any) -> None:
    assert parse(text, "some.yaml") == value


def test_a_document_just_within_the_bounds_is_accepted() -> None:
    deep: Any = parse("[" * MAX_DEPTH + "]" * MAX_DEPTH, "some.yaml")
    for _ in range(MAX_DEPTH - 1):
        (deep,) = deep
    assert len(parse("[" + "x," * (MAX_NODES - 2) + "]", "some.yaml")) == MAX_NODES - 2
    assert len(parse(nested_aliases(4, 10), "some.yaml")["a4"]) == 10


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.text(), st.lists, max_leaves=20))
def test_a_dumped_value_is_read_back(value: Any) -> None:
    assert parse(yaml.safe_dump({"a": value}), "some.yaml") == {"a": value}


@given(st.text(alphabet="ab:-[]{}&*!#|>?,'\" \n<0", max_size=60))
def test_no_text_gives_any_other_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        parse(text, "some.yaml")


def test_problems_are_described_with_the_line_of_the_deepest_part_that_the_document_has() -> None:
    document = parse_document("a: 1\nb:\n- c: x\n- d:\n    e: y\n", "some.yaml")
    problems = [FieldProblem(path, "is wrong", "fix it") for path in (("b", 1, "d", "e"), ("b", 0, "new"), ("new",))]
    assert document.describe(problems).splitlines() == [
        "some.yaml:5: b[1].d.e is wrong; fix it",
        "some.yaml:3: b[0].new is wrong; fix it",
        "some.yaml:1: new is wrong; fix it",
    ]


def test_a_repeated_key_is_reported_at_its_last_line() -> None:
    document = parse_document("a:\n- b: 1\n  c: 2\n  b: 3\n", "some.yaml")
    assert document.describe(document.repeated_keys) == "some.yaml:4: a[0].b is given twice; keep one of them"


def test_a_key_that_replaces_a_merged_one_is_not_repeated() -> None:
    document = parse_document("a: &a {x: 1, y: 1}\nb: &b {z: 1}\nc:\n  <<: *a\n  <<: *b\n  y: 2\n", "some.yaml")
    assert document.repeated_keys == ()
    assert document.content["c"] == {"x": 1, "y": 2, "z": 1}
    assert document.line_of(("c", "y")) == 6


@given(st.recursive(st.none() | st.booleans() | st.integers(-(10**17), 10**18) | st.text(), st.lists, max_leaves=20))
def test_the_plain_dialect_reads_a_dumped_value_back(value: Any) -> None:
    document = parse_document(yaml.safe_dump({"a": value}), "some.yaml", dialect=Dialect(plain=True))
    assert document.content == {"a": value}
