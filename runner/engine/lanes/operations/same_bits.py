"""Compares the bits of two tensors."""

from __future__ import annotations

import torch
from torch import Tensor


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors of one shape and dtype have equal elements, where NaN equals NaN and 0 differs from -0."""
    if first.is_complex():
        first, second = torch.view_as_real(first.resolve_conj()), torch.view_as_real(second.resolve_conj())
    if not first.is_floating_point():
        return torch.equal(first, second)
    same = (first == second) & (first.signbit() == second.signbit()) | (first.isnan() & second.isnan())
    return bool(same.all())
