"""Distances in units in the last place, and bitwise equality of tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from runner.errors import ComparisonError
from runner.record.rows.digest import bits

FARTHEST = torch.iinfo(torch.int64).max
"""The distance between a number and a NaN, and between float64 numbers that are farther apart than int64 can count."""


def ulp_distance(a: Tensor, b: Tensor) -> Tensor:
    """Distance between two tensors in units in the last place of their dtype.

    That is the count of representable numbers from one to the other.

    Args:
        a, b: real floating-point tensors of one shape `(*s)` and one dtype, 8 to 64 bits wide.
    Returns:
        int64 `(*s)`; 0 where both are the same number or both NaN (0 and -0 are the same number), the maximum where
        exactly one is NaN.
    Raises:
        ComparisonError: shapes or dtypes differ, or the dtype is not a real floating one.
    Source: Goldberg 1991, section 1.2; sign-magnitude to two's complement as in Dawson's notes.
    """
    if a.shape != b.shape or a.dtype != b.dtype or not a.dtype.is_floating_point:
        raise ComparisonError(
            f"{_described(a)} and {_described(b)} have no distance in units in the last place: "
            "it is counted between real floating-point tensors of one shape and dtype"
        )
    left, right = _ordered(a), _ordered(b)
    distance = left - right
    overflows = ((left ^ right) & (left ^ distance)) < 0
    distance.abs_()
    distance.masked_fill_(overflows | (distance < 0), FARTHEST)  # the least int64 has no absolute value
    nan_a, nan_b = a.isnan(), b.isnan()
    return distance.masked_fill_(nan_a & nan_b, 0).masked_fill_(nan_a ^ nan_b, FARTHEST)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same shape, the same dtype and the same bits in every element."""
    return a.shape == b.shape and a.dtype == b.dtype and (a is b or torch.equal(bits(a), bits(b)))


def _ordered(tensor: Tensor) -> Tensor:
    """The elements as int64 in the order of the floating-point numbers, with 0 at 0."""
    if tensor.dtype == torch.float8_e8m0fnu:  # powers of two without a sign
        return tensor.view(torch.uint8).to(torch.int64)
    magnitude = bits(tensor).to(torch.int64)
    lowest = -(1 << 8 * tensor.dtype.itemsize - 1)
    return torch.where(magnitude < 0, lowest - magnitude, magnitude)


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"
