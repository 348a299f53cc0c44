from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelocal.codec.quantities import SUFFIXES, amount, canonical, written


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("0.5", "500m"),
        ("1024Mi", "1Gi"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("100k", "100k"),
        ("1000k", "1M"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("1e3", "1e3"),
        ("12e5", "1200e3"),
        ("0", "0"),
        ("0Gi", "0"),
        ("-1", "-1"),
        ("+2", "2"),
        (".5", "500m"),
        ("1E", "1E"),
        ("2Ei", "2Ei"),
        ("0.1n", "1n"),
    ],
)
def test_the_canonical_form_has_no_fraction_and_the_largest_suffix(text, form):
    assert canonical(text) == form


@pytest.mark.parametrize("text", ["", "much", "1 Gi", "1gi", "1.2.3", "Gi", "--1", "1e99"])
def test_what_is_no_quantity_is_refused(text):
    with pytest.raises(ValueError, match="quantit"):
        amount(text)


@given(st.integers(-(10**6), 10**6), st.sampled_from(sorted(SUFFIXES)))
def test_the_canonical_form_is_the_same_amount_and_stays(number, suffix):
    form = canonical(f"{number}{suffix}")
    assert amount(form) == amount(f"{number}{suffix}")
    assert canonical(form) == form


@given(st.integers(0, 10**24))
def test_an_amount_in_billionths_survives_writing(billionths):
    assert amount(written(Fraction(billionths, 10**9))) == Fraction(billionths, 10**9)
