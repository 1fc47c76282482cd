"""The values of dtypes: default dtypes by kind of number, and which numbers a dtype can represent."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from runner.language.dtypes import dtype_name

Number = int | float | bool

WIDENED: Mapping[torch.dtype, torch.dtype] = dict.fromkeys((torch.uint16, torch.uint32, torch.uint64), torch.int64)
"""Unsigned dtypes that few torch operations support; they are read as int64."""

EXACT = 2**53
"""Float64 represents every integer up to this one."""


def default_of_kind(kind: torch.dtype, default: torch.dtype) -> torch.dtype:
    """The default dtype for a kind of number.

    It is int64 for integers, bool for booleans, `default` for floating-point numbers, and the complex dtype of the
    precision of `default` for complex numbers.
    """
    if kind.is_complex:
        return torch.complex128 if default in (torch.float64, torch.complex128) else torch.complex64
    if kind.is_floating_point:
        return default
    return torch.bool if kind == torch.bool else torch.int64


def has_gradient(dtype: torch.dtype) -> bool:
    """Whether tensors of a dtype can require gradients."""
    return dtype.is_floating_point or dtype.is_complex


def misfit(value: int | float | bool, dtype: torch.dtype) -> str | None:
    """Why a dtype cannot represent a number, or None; floating-point dtypes represent non-finite numbers."""
    if dtype == torch.bool:
        return None if value in (0, 1) else "is not a boolean"
    if has_gradient(dtype):
        if isinstance(value, int) and abs(value) > EXACT and not _is_exact(value):
            return "is an integer that float64 cannot represent exactly"
        largest = torch.finfo(dtype).max
        return f"is beyond {largest:.6g}, the largest {dtype_name(dtype)}" if largest < abs(value) < math.inf else None
    if not math.isfinite(value) or int(value) != value:
        return "is not an integer"
    info = torch.iinfo(dtype)
    return None if info.min <= value <= info.max else f"is not between {info.min} and {info.max}"


def _is_exact(value: int) -> bool:
    try:
        return int(float(value)) == value
    except OverflowError:
        return False
