"""Writes numbers and small tensors as text for a page."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from runner.language.dtypes import dtype_name
from runner.text import counted

MOST_WRITTEN = 16
"""The most elements of a tensor that is written whole."""


def number(value: Any) -> str:
    """A number with up to six digits."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, complex):
        return f"{value:.6g}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value) if math.isnan(value) or math.isinf(value) else f"{value:.6g}"


def written(value: Tensor, zeros: bool = True) -> str:
    """A small tensor as its elements, a larger one as its norm, its range and, if asked, its count of zeros."""
    value = value.detach()
    if value.numel() <= MOST_WRITTEN:
        return nested(value.tolist())
    real = value.abs() if value.dtype.is_complex else value
    real = real.double()
    if not bool(real.isfinite().all()):
        counts = {"nan": int(real.isnan().sum()), "infinite": int(real.isinf().sum())}
        said = " and ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
        return f"{said} of {real.numel():,} elements{_others(real)}"
    norm = float(torch.linalg.vector_norm(real))
    count = int((real == 0).sum()) if zeros else 0
    some = f", {counted(count, 'zero')}" if count else ""
    return f"norm {norm:.4g}, {_range(real)}{some}"


def _others(real: Tensor) -> str:
    """The range of the elements that are finite, if there are any."""
    finite = real[real.isfinite()]
    return f"; the others are {_range(finite)}" if finite.numel() else ""


def _range(real: Tensor) -> str:
    return f"from {float(real.min()):.4g} to {float(real.max()):.4g}"


def nested(value: Any) -> str:
    """Nested lists of numbers as text: `[1, 2.5]`."""
    return f"[{', '.join(map(nested, value))}]" if isinstance(value, list) else number(value)


def shape_text(shape: tuple[int, ...] | None) -> str:
    return "?" if shape is None else f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def kind_text(shape: tuple[int, ...] | None, dtype: torch.dtype) -> str:
    """The shape and the dtype: `(3, 4) float32`."""
    return f"{shape_text(shape)} {dtype_name(dtype)}"
