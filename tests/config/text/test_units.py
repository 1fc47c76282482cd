"""Sizes and durations as people write them."""

from __future__ import annotations

import pytest

from runner.config.text.units import bytes_of, seconds_of

SIZES = [
    ("8MiB", 8 * 1024**2),
    ("2 GiB", 2 * 1024**3),
    ("1.5 KiB", 1536),
    ("0.0001 KiB", 0),
    ("2GB", 2_000_000_000),
    ("1_000 kB", 1_000_000),
    ("7 B", 7),
    ("9999999999999999TiB", 9_999_999_999_999_999 * 2**40),
]


@pytest.mark.parametrize(("text", "expected"), SIZES)
def test_a_size_has_the_bytes_of_its_unit(text: str, expected: int) -> None:
    assert bytes_of(text) == expected


@pytest.mark.parametrize(
    "text", ["", "8", "GiB", "8  MiB", "-1 MiB", "2gib", "2G", "1__0 MiB", "1. MiB", "9" * 40 + "B"]
)
def test_what_is_no_size(text: str) -> None:
    assert bytes_of(text) is None


DURATIONS = [("30s", 30), ("10m", 600), ("1.5h", 5400), ("2d", 172_800), ("2w", 1_209_600), ("1_000s", 1000)]


@pytest.mark.parametrize(("text", "expected"), DURATIONS)
def test_a_duration_has_the_seconds_of_its_unit(text: str, expected: float) -> None:
    assert seconds_of(text) == expected


@pytest.mark.parametrize("text", ["", "30", "m", "10 m", "-1s", "0s", "1e3s", "10M", "9" * 400 + "s"])
def test_what_is_no_duration(text: str) -> None:
    assert seconds_of(text) is None
