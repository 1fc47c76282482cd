"""What plain scalars mean, against YAML 1.2's tables and Python's own numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.config.text.scalars import NumberRangeError, resolve_plain
from tests.tables import over


@over(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("1e3", 1000.0),
        ("+1.5e+2", 150.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("-.5e1", -5.0),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("+.inf", math.inf),
        (".INF", math.inf),
        ("1_000", 1000),
        ("1_000.5", 1000.5),
        ("-17", -17),
        ("017", 17),
        ("0o17", 15),
        ("0x1F", 31),
        ("0xff_ff", 65535),
        ("true", True),
        ("False", False),
        ("TRUE", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_numbers_and_words(text: str, value: object) -> None:
    found = resolve_plain(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["nan", ".nan", ".NaN"])
def test_nan(text: str) -> None:
    assert math.isnan(float(str(resolve_plain(text))))


@over(
    "text",
    [
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
        "tRUE",
        "1__0",
        "_1",
        "1_",
        "1e",
        "e3",
        "0b11",
        "-0x1",
        "0o8",
        "12:30:45",
        "2001-12-14",
        "1,000",
        ".",
        "-",
        "+",
        "--1",
        "1 2",
        "Infinity",
        "x",
        "٣",
    ],
)
def test_everything_else_is_text(text: str) -> None:
    assert resolve_plain(text) == text


@pytest.mark.parametrize("text", ["9223372036854775808", "-9223372036854775809", "0x8000000000000000", "9" * 10_000])
def test_an_integer_beyond_64_bits_is_refused(text: str) -> None:
    with pytest.raises(NumberRangeError, match="beyond 64 bits"):
        resolve_plain(text)


def test_leading_zeros_do_not_make_an_integer_large() -> None:
    assert resolve_plain("0" * 5000 + "7") == 7


@pytest.mark.parametrize("text", ["1e400", "-1e999", "9" * 400 + ".0"])
def test_a_decimal_beyond_float64_is_refused(text: str) -> None:
    with pytest.raises(NumberRangeError, match="beyond float64"):
        resolve_plain(text)


@given(st.floats(allow_nan=False))
def test_every_float_that_python_prints_is_that_float(value: float) -> None:
    assert resolve_plain(repr(value)) == value


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_integer_of_64_bits_is_that_integer(value: int) -> None:
    assert resolve_plain(str(value)) == value
    assert resolve_plain(f"{value:_}") == value
