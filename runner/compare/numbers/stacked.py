"""Compares stacked tensors with the expected ones, with the results of comparing each pair alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from runner.compare.numbers.bounds import rounding
from runner.compare.numbers.differences import absolute_differences
from runner.compare.numbers.tolerances import NOISE, Tolerance, relative_and_absolute, root_mean_square
from runner.compare.numbers.ulp import ulp_distance
from runner.record.rows.digest import bits


def same_bits(found: Tensor, expected: Tensor) -> Tensor:
    """Which tensors have the same bits: bool `(rows,)`.

    Args:
        found, expected: `(rows, *s)` of one shape and dtype.
    """
    left, right = bits(found), bits(expected)
    if torch.equal(left, right):
        return torch.ones(len(left), dtype=torch.bool)
    return (left == right).reshape(len(left), -1).all(1)


def root_mean_squares(tensor: Tensor) -> Tensor:
    """`root_mean_square` of each tensor: float64 `(rows,)`; the argument is `(rows, n)`."""
    wide = _widened(tensor).abs()
    found: Tensor = torch.linalg.vector_norm(wide, dim=1) / math.sqrt(wide.shape[1])
    for place in (~wide.isfinite().all(1)).nonzero().reshape(-1).tolist():
        found[place] = root_mean_square(tensor[place])
    return found


def deviations(found: Tensor, expected: Tensor, tolerance: Tolerance, largest: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which tensors differ by more than the tolerance, and the errors, as `deviation` returns them.

    Args:
        found, expected: `(rows, n)` of one dtype, on the CPU.
        largest: for a scaled tolerance, as of `Tolerance.bounds`: float64 `(rows,)`.
    Returns:
        bool `(rows,)` and float64 `(rows,)`.
    """
    delta, sizes, unequal = absolute_differences(found, expected)
    beyond = _beyond(found, expected, tolerance, largest, delta, sizes, unequal).any(1)
    norms, size = torch.linalg.vector_norm(delta, dim=1), torch.linalg.vector_norm(sizes, dim=1)
    for place in (~size.isfinite()).nonzero().reshape(-1).tolist():
        finite = sizes[place][sizes[place].isfinite()]
        size[place] = torch.linalg.vector_norm(finite)
    error = torch.where((size > 0) & norms.isfinite(), norms / size, math.inf)
    return beyond, error.masked_fill_(norms == 0, 0.0)


def _beyond(
    found: Tensor,
    expected: Tensor,
    tolerance: Tolerance,
    largest: Tensor | None,
    delta: Tensor,
    sizes: Tensor,
    unequal: Tensor,
) -> Tensor:
    """A mask `(rows, n)` of the elements that differ by more than the tolerance."""
    if tolerance.mode in ("bitwise", "measured"):  # a recorded tensor has no uncertainty: it is exact
        differing = bits(found) != bits(expected)
        return differing.any(-1) if found.dtype.is_complex else differing
    if tolerance.mode == "ulp":
        real = tolerance.ulp and found.dtype.is_floating_point
        return unequal & (ulp_distance(found, expected) > tolerance.ulp) if real else unequal
    rtol, atol = relative_and_absolute(tolerance, expected.dtype)
    allowed = torch.full((len(found),), atol, dtype=torch.float64)
    if tolerance.scaled:
        assert largest is not None
        allowed = torch.maximum(atol * root_mean_squares(expected), NOISE * rounding(expected.dtype) * largest)
    allowed = allowed.clamp(min=tolerance.spread)
    return unequal & ~((delta <= allowed[:, None] + rtol * sizes) & delta.isfinite())


def _widened(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.dtype.is_complex else torch.float64)
