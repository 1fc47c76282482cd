"""Looks for elements that are not finite, in operations that XLA vectorizes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_BITS: Mapping[torch.dtype, tuple[torch.dtype, int, int]] = {
    torch.float16: (torch.int16, 0x7FFF, 0x7C00),
    torch.bfloat16: (torch.int16, 0x7FFF, 0x7F80),
    torch.float32: (torch.int32, 0x7FFF_FFFF, 0x7F80_0000),
    torch.float64: (torch.int64, 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000),
}
"""The integer of the same width, all its bits but the sign, and the bits of infinity.

Source: IEEE 754, binary interchange formats: without the sign, NaN is above infinity, and any other number below.
"""


def are_finite(tensors: Sequence[Tensor]) -> Tensor:
    """Whether every element of some tensors `(*s)` is finite: bool `()`.

    It compares the bits of the largest magnitude as integers. XLA computes a maximum of floats element by element.
    """
    return functools.reduce(torch.logical_and, [_is_finite(tensor) for tensor in tensors])


def _is_finite(tensor: Tensor) -> Tensor:
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    dtype, magnitude, infinity = _BITS[real.dtype]
    return (real.view(dtype) & magnitude).amax() < infinity
