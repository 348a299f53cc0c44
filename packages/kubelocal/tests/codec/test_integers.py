import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubelocal.codec.integers import parse_int, parse_uint


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_a_number_of_64_bits_is_read(number):
    assert parse_int(str(number)) == parse_int(f"{number:+d}") == number


@given(st.integers(0, (1 << 64) - 1), st.integers(0, 6000))
def test_leading_zeros_are_no_digits(number, zeros):
    assert parse_uint("0" * zeros + str(number)) == number


@pytest.mark.parametrize("text", ["", "+", "1.0", "1_000", " 1", "1\n", "٣", "nan", "0x1", "1e3", "--1"])
def test_what_go_does_not_read_is_no_number(text):
    with pytest.raises(ValueError, match="invalid syntax"):
        parse_int(text)


@pytest.mark.parametrize("text", ["9" * 5000, str(1 << 64), "1" * 21])
def test_more_than_64_bits_are_out_of_range(text):
    with pytest.raises(ValueError, match="value out of range"):
        parse_uint(text)
    with pytest.raises(ValueError, match="value out of range"):
        parse_int(f"-{text}")


def test_a_sign_is_none_of_an_unsigned_number():
    with pytest.raises(ValueError, match="invalid syntax"):
        parse_uint("-1")
