from __future__ import annotations

import pytest

from crosswind.pods.units import memory_bytes, show_bytes, show_seconds


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        ("512Mi", 512 * 1024**2),
        ("1.5Gi", 1536 * 1024**2),
        ("1G", 10**9),
        ("128974848", 128_974_848),
        (1024, 1024),
        ("100k", 100_000),
        ("1000m", 1),
        ("", None),
        ("much", None),
        (None, None),
        ({}, None),
    ],
)
def test_quantities_of_memory_are_bytes(quantity: object, number: int | None) -> None:
    assert memory_bytes(quantity) == number


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 B"), (381 * 1024**2, "381 MiB"), (1.5 * 1024**3, "1.5 GiB"), (2 * 1024**4, "2.0 TiB"), (2048, "2 KiB")],
)
def test_bytes_are_shown_in_the_unit_that_fits(number: float, text: str) -> None:
    assert show_bytes(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (-1, "0.0 s"),
        (9.9, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (185, "3 min 5 s"),
        (7440, "2 h 4 min"),
        (266_400, "3 d 2 h"),
    ],
)
def test_durations_have_at_most_two_units(seconds: float, text: str) -> None:
    assert show_seconds(seconds) == text
