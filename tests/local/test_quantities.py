from fractions import Fraction

import pytest

from crosswind.local import quantities


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("0.5", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        ("500m", Fraction(1, 2)),
        ("100k", 100_000),
        ("1Ki", 1024),
        ("1.5Gi", 1536 * 1024**2),
        ("1E", 10**18),
        ("1e3", 1000),
        ("1E3", 1000),
        ("-2", -2),
        (3, 3),
        ("5n", Fraction(5, 10**9)),
    ],
)
def test_quantities_have_their_exact_value(text: str, value: Fraction) -> None:
    assert quantities.parse(text) == value


@pytest.mark.parametrize("text", ["", "1 Gi", "1gi", "m", "one", "1e", "--1", "1.2.3"])
def test_what_is_no_quantity_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a quantity such as"):
        quantities.parse(text)


def test_counts_are_rounded_up() -> None:
    assert quantities.milli("0.0001") == 1
    assert quantities.whole("1500m") == 2
