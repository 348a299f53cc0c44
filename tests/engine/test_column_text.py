from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswind.engine.column_text import storable

ANY = st.text(alphabet=st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("plain", "plain"),
        ("größer ✓ 😀", "größer ✓ 😀"),
        ("a\0b", "a\ufffdb"),
        ("\udcff", "\ufffd"),
        ("\ud83d\ude00", "😀"),
        (None, "None"),
    ],
)
def test_characters_that_databases_refuse_are_replaced(text: object, stored: str) -> None:
    assert storable(text) == stored


@given(ANY, st.integers(20, 80))
def test_any_text_fits_and_encodes(text: str, most: int) -> None:
    stored = storable(text, most_bytes=most)
    assert len(stored.encode()) <= most
    assert "\0" not in stored
    assert len(storable(text, most_chars=most)) <= most


def test_a_cut_text_ends_with_a_mark() -> None:
    assert storable("x" * 100, most_bytes=30).endswith("(cut)")
    assert storable("x" * 100, most_chars=30).endswith("(cut)")
