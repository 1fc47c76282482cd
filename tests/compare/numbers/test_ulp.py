"""Units in the last place, against walking from one number to the next."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from runner.compare.numbers.ulp import FARTHEST, same_bits, ulp_distance
from runner.errors import ComparisonError
from runner.record.rows.digest import bits
from tests.tables import over

NARROW = [
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
    torch.float8_e8m0fnu,
    torch.float16,
    torch.bfloat16,
]


def every_number(dtype: torch.dtype) -> Tensor:
    """All numbers of a narrow dtype that are not NaN, from the least to the greatest, each once."""
    integer = torch.uint8 if dtype.itemsize == 1 else torch.int16
    patterns = torch.arange(0, 256) if dtype.itemsize == 1 else torch.arange(-(1 << 15), 1 << 15)
    numbers = patterns.to(integer).view(dtype)
    values = numbers.to(torch.float64)
    kept = values[~values.isnan()].unique()  # sorts; 0 and -0 are one
    return kept.to(dtype)


@over("dtype", NARROW)
def test_the_distance_counts_the_numbers_between(dtype: torch.dtype) -> None:
    numbers = every_number(dtype)
    places = torch.arange(len(numbers))
    for shift in (0, 1, 7, len(numbers) - 1):
        left, right = numbers[: len(numbers) - shift], numbers[shift:]
        assert torch.equal(ulp_distance(left, right), places[shift:] - places[: len(numbers) - shift])
        assert torch.equal(ulp_distance(right, left), ulp_distance(left, right))


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 40))
def test_steps_of_nextafter_are_counted_in_float64(start: float, steps: int) -> None:
    end = start
    for _ in range(steps):
        end = math.nextafter(end, math.inf)
    if math.isfinite(end):
        assert ulp_distance(tensor(start, torch.float64), tensor(end, torch.float64)).item() == steps


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(0, 40))
def test_steps_of_nextafter_are_counted_in_float32(start: float, steps: int) -> None:
    end = tensor(start, torch.float32)
    for _ in range(steps):
        end = torch.nextafter(end, torch.tensor([math.inf]))
    if end.isfinite():
        assert ulp_distance(tensor(start, torch.float32), end).item() == steps


def test_zeros_of_either_sign_are_one_number_with_other_bits() -> None:
    zero, negative = torch.tensor([0.0]), torch.tensor([-0.0])
    assert ulp_distance(zero, negative).item() == 0
    assert not same_bits(zero, negative)


def test_nan_is_nowhere_near_a_number_and_at_home_with_nan() -> None:
    found = torch.tensor([math.nan, math.nan, 1.0, math.inf])
    expected = torch.tensor([math.nan, 1.0, math.nan, math.inf])
    assert ulp_distance(found, expected).tolist() == [0, FARTHEST, FARTHEST, 0]


def test_a_distance_that_int64_cannot_count_is_the_largest_it_can() -> None:
    most = torch.finfo(torch.float64).max
    ends = torch.tensor([most, math.inf, 1.0, -1.0], dtype=torch.float64)
    assert ulp_distance(ends, -ends).tolist()[:2] == [FARTHEST, FARTHEST]
    one = int.from_bytes(bytes(reversed(bytes.fromhex("3ff0000000000000"))), "little")
    assert 2 * one < FARTHEST
    assert ulp_distance(ends, -ends).tolist()[2:] == [2 * one, 2 * one]


@pytest.mark.parametrize(
    ("a", "b", "shown"),
    [
        (torch.zeros(2), torch.zeros(3), r"float32 \(2,\) and float32 \(3,\)"),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64), r"float32 \(2,\) and float64 \(2,\)"),
        (torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), r"int64 \(2,\) and int64 \(2,\)"),
        (torch.zeros((), dtype=torch.complex64), torch.zeros((), dtype=torch.complex64), r"complex64 \(\)"),
    ],
)
def test_what_has_no_distance_is_refused(a: Tensor, b: Tensor, shown: str) -> None:
    with pytest.raises(ComparisonError, match=shown + ".* have no distance in units in the last place"):
        ulp_distance(a, b)


def test_bits_see_through_conjugates_strides_and_complex() -> None:
    value = torch.tensor([[1 + 2j, 3 - 4j]])
    assert torch.equal(bits(value.conj()), bits(torch.tensor([[1 - 2j, 3 + 4j]])))
    assert bits(value).shape == (1, 2, 2)
    grid = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(bits(grid.T), bits(grid.T.contiguous()))


def test_nan_payloads_are_bits() -> None:
    quiet, other = (
        torch.tensor([pattern], dtype=torch.int32).view(torch.float32) for pattern in (0x7FC00000, 0x7FC00001)
    )
    assert same_bits(quiet, quiet.clone())
    assert not same_bits(quiet, other)


def tensor(number: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor([number], dtype=dtype)
