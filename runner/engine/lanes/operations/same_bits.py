"""Compares the bits of two tensors, and says how many lanes of random numbers are enough for it."""

from __future__ import annotations

import torch
from torch import Tensor

_LANES = 128

_ELEMENTS = 1 << 18
"""The most random numbers of a trial in each operand; of large operands, fewer lanes take part."""


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors of one shape and dtype have equal elements, where NaN equals NaN and 0 differs from -0."""
    if first.is_complex():
        first, second = torch.view_as_real(first.resolve_conj()), torch.view_as_real(second.resolve_conj())
    if not first.is_floating_point():
        return torch.equal(first, second)
    same = (first == second) & (first.signbit() == second.signbit()) | (first.isnan() & second.isnan())
    return bool(same.all())


def trial_lanes(elements: int) -> int:
    """The number of lanes of a trial.

    Args:
        elements: those of the largest operand in one lane.
    """
    return min(_LANES, _ELEMENTS // max(1, elements))
