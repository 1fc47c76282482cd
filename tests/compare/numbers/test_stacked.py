"""Stacked tensors are compared as each pair alone is."""

from __future__ import annotations

import itertools
import math

import torch

from runner.compare.numbers.differences import deviation
from runner.compare.numbers.stacked import deviations, root_mean_squares, same_bits
from runner.compare.numbers.tolerances import BITWISE, BY_DTYPE, Tolerance
from tests.tables import over

NUMBERS = (0.0, -0.0, 1.0, 1.0 + 2**-20, -3.0, 2.0**62, 1e-30, math.inf, -math.inf, math.nan)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.complex64)
TOLERANCES = (
    BITWISE,
    BY_DTYPE,
    Tolerance("ulp", ulp=8),
    Tolerance("explicit", rtol=1e-3, atol=0.5),
    Tolerance("explicit", atol=1e-3, scaled=True),
    Tolerance("explicit", spread=2.0),
)


def pairs(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Every two numbers, alone with a zero and beside themselves: twice `(rows, 2)`."""
    rows = [((a, c), (b, d)) for a, b in itertools.product(NUMBERS, NUMBERS) for c, d in ((0.0, -0.0), (a, b))]
    found, expected = (torch.tensor([row[side] for row in rows], dtype=torch.float64).to(dtype) for side in (0, 1))
    return found, expected


@over(("dtype", "tolerance"), list(itertools.product(DTYPES, TOLERANCES)))
def test_every_pair_of_numbers_deviates_as_it_does_alone(dtype: torch.dtype, tolerance: Tolerance) -> None:
    found, expected = pairs(dtype)
    largest = torch.full((len(found),), 3.0, dtype=torch.float64)
    beyond, error = deviations(found, expected, tolerance, largest if tolerance.scaled else None)
    alone = [deviation(left, right, tolerance, 3.0) for left, right in zip(found, expected, strict=True)]
    assert beyond.tolist() == [each.beyond for each in alone]
    torch.testing.assert_close(error, torch.tensor([each.error for each in alone], dtype=torch.float64))


@over("dtype", list(DTYPES))
def test_bits_and_means_of_rows(dtype: torch.dtype) -> None:
    found, expected = pairs(dtype)
    width = dtype.itemsize * 2
    left, right = (each.view(torch.uint8).numpy().tobytes() for each in (found, expected))
    rows = [slice(start, start + width) for start in range(0, len(left), width)]
    assert same_bits(found, expected).tolist() == [left[row] == right[row] for row in rows]
    finite = found[found.abs().isfinite().all(1)]
    wide = finite.to(torch.complex128)
    expected_means = [math.sqrt(sum(abs(each) ** 2 for each in row) / 2) for row in wide.tolist()]
    torch.testing.assert_close(root_mean_squares(finite), torch.tensor(expected_means, dtype=torch.float64))
