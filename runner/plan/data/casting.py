"""Casts that preserve every value: a value that the dtype cannot represent is an error.

Rounding to the precision of a floating-point dtype is allowed. These are errors: a value out of range, a fraction or
NaN as an integer, a number other than 0 and 1 as a boolean, and an integer beyond 2^53 that float64 cannot represent.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from runner.plan.data.dtypes import EXACT, Number, misfit

Misfit = tuple[tuple[int, ...], Number, str]
"""The index of an element, its value, and why a dtype cannot represent it."""

_LOSSLESS: frozenset[tuple[torch.dtype, torch.dtype]] = frozenset(
    (source, target)
    for ladder in (
        (torch.int8, torch.int16, torch.int32, torch.int64),
        (torch.uint8, torch.int16, torch.int32, torch.int64),
        (torch.uint16, torch.int32, torch.int64),
        (torch.uint32, torch.int64),
        (torch.bool, torch.uint8),
        (torch.bfloat16, torch.float32, torch.float64, torch.complex128),
        (torch.float16, torch.float32, torch.complex64, torch.complex128),
        (torch.int32, torch.float64),
        (torch.int16, torch.float32),
    )
    for position, source in enumerate(ladder)
    for target in ladder[position:]
)
"""Pairs of dtypes whose second one can represent every value of the first, up to rounding."""


def is_lossless(source: torch.dtype, target: torch.dtype) -> bool:
    """Whether a dtype can represent every value of another one, up to rounding."""
    return source in (target, torch.bool) or (source, target) in _LOSSLESS


def first_misfit(values: Tensor, dtype: torch.dtype) -> Misfit | None:
    """The first element, in row-major order, that a dtype cannot represent, or None.

    Args:
        values: a tensor of any shape and dtype.
        dtype: the dtype to check; complex if `values` are complex.
    """
    if is_lossless(values.dtype, dtype):
        return None
    if values.dtype.is_complex:
        found = first_misfit(torch.view_as_real(values), dtype.to_real())
        return None if found is None else (found[0][:-1], *found[1:])
    if values.dtype.is_floating_point and values.dtype.itemsize == 1:
        values = values.to(torch.float32)
    if _all_within(values, dtype.to_real() if dtype.is_complex else dtype):
        return None
    lost = _lost(values, dtype.to_real() if dtype.is_complex else dtype)
    if not bool(lost.any()):
        return None
    index = tuple(lost.nonzero()[0].tolist())
    value = values[index].item()
    return index, value, misfit(value, dtype) or "would become another number"


_WITH_ENDS = frozenset({torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32, torch.float64})
"""Dtypes whose least and largest value one pass finds."""


def _all_within(values: Tensor, dtype: torch.dtype) -> bool:
    """Whether the least and the largest value show that a dtype represents all: much faster than a mask.

    False if only a mask shows it: NaN, infinities, and fractions that become integers.
    """
    floating = values.dtype.is_floating_point
    if values.dtype not in _WITH_ENDS or not values.numel() or (floating and not dtype.is_floating_point):
        return False
    least, largest = (end.item() for end in values.aminmax())
    return ends_fit(least, largest, dtype)


def ends_fit(least: Number, largest: Number, dtype: torch.dtype) -> bool:
    """Whether a dtype represents every number of a kind, integer or float, between two; False if that is unknown."""
    floating = isinstance(least, float)
    if dtype.is_floating_point:
        most = min(torch.finfo(dtype).max, math.inf if floating else EXACT)
        return -most <= least and largest <= most
    info = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    return not floating and info[0] <= least and largest <= info[1]


def _lost(values: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask of the elements that a dtype cannot represent: bool, of the same shape."""
    if dtype == torch.bool:
        return (values != 0) & (values != 1)
    if values.dtype.is_floating_point:
        return _lost_as_float(values, dtype) if dtype.is_floating_point else _lost_as_integer(values, dtype)
    if not dtype.is_floating_point:
        info = torch.iinfo(dtype)
        return (values < max(info.min, -(2**63))) | (values > min(info.max, 2**63 - 1))
    wide = values.to(torch.float64)
    beyond = wide >= 2.0**63  # converting back to int64 is undefined
    changed = beyond | (torch.where(beyond, 0.0, wide).to(torch.int64) != values.to(torch.int64))
    return changed | _lost_as_float(wide, dtype)


def _lost_as_float(values: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype.itemsize == 1:  # some float8 casts saturate
        return values.isfinite() & (values.abs() > torch.finfo(dtype).max)
    return values.isfinite() & values.to(dtype).isinf()


def _lost_as_integer(values: Tensor, dtype: torch.dtype) -> Tensor:
    info = torch.iinfo(dtype)
    above = math.ldexp(
        1.0, info.max.bit_length()
    )  # the first power of two out of range, which floats represent exactly
    wide = values.to(torch.float64)
    return ~((wide.trunc() == wide) & (wide >= float(info.min)) & (wide < above))
