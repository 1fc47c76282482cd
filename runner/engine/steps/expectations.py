"""Compares a value with the one that an `expect` step expects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from runner.engine.watch.reports import index_of

TOLERANCES: dict[torch.dtype, tuple[float, float]] = {
    torch.float16: (1e-3, 1e-5),
    torch.bfloat16: (1.6e-2, 1e-5),
    torch.float32: (1.3e-6, 1e-5),
    torch.float64: (1e-7, 1e-7),
    torch.complex64: (1.3e-6, 1e-5),
    torch.complex128: (1e-7, 1e-7),
}
"""(rtol, atol) of each dtype, as `torch.testing.assert_close` documents them; any other dtype is exact."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The element of a value that differs most from what was expected."""

    index: tuple[int, ...]
    found: Any
    expected: Any
    count: int  # how many elements differ
    elements: int
    rtol: float
    atol: float

    def __str__(self) -> str:
        where = f" at {list(self.index)}" if self.index else ""
        text = f"expected {self.expected!r}, found {self.found!r}{where}"
        if (
            isinstance(self.found, float)
            and isinstance(self.expected, float)
            and self.found - self.expected == self.found - self.expected
        ):
            text += f", a difference of {abs(self.found - self.expected):.3g}"
        if self.elements > 1:
            text += f"; {self.count} of {self.elements} elements differ"
        return text


def tolerances(dtype: torch.dtype, rtol: float | None, atol: float | None) -> tuple[float, float]:
    """`(rtol, atol)`: the given ones, or torch's for the dtype if both are None; if one is given, the other is 0."""
    if rtol is None and atol is None:
        return TOLERANCES.get(dtype, (0.0, 0.0))
    return rtol or 0.0, atol or 0.0


def mismatch(found: Any, expected: Any, rtol: float | None, atol: float | None) -> Mismatch | None:
    """How `found` differs from `expected`, or None if every element matches.

    Args:
        found: a tensor `(*s)` or a number.
        expected: a tensor that broadcasts to it, or a number, which is rounded to the dtype of `found`.
        rtol, atol: tolerances; None for torch's own for the dtype of `found`.
    Returns:
        None if `|found - expected| <= atol + rtol * |expected|` for every element. NaN equals NaN, an infinity
        equals itself, and integers and booleans are compared exactly.
    """
    left = found.detach() if isinstance(found, Tensor) else _number(found)
    right = expected.detach().to(left.device) if isinstance(expected, Tensor) else _number(expected)
    if not isinstance(expected, Tensor) and _floating(left) and right.dtype != torch.bool:
        right = right.to(left.device, left.dtype)  # 0.1 means the nearest number of that dtype
    rtol, atol = tolerances(left.dtype, rtol, atol)
    right = right.expand(left.shape)
    if left.dtype == torch.bool or right.dtype == torch.bool or not (_floating(left) or _floating(right)):
        wrong = left != right
    else:
        wide = torch.complex128 if left.is_complex() or right.is_complex() else torch.float64
        a, b = left.to(wide), right.to(wide)
        if torch.equal(a, b):
            return None
        same = (a == b) | (a.isnan() & b.isnan())
        wrong = ~(same | (((a - b).abs() <= atol + rtol * b.abs()) & b.isfinite()))
    if not bool(wrong.any()):
        return None
    index = _worst(left, right, wrong)
    return Mismatch(index, _shown(left[index]), _shown(right[index]), int(wrong.sum()), left.numel(), rtol, atol)


def _number(number: float) -> Tensor:
    return torch.tensor(number, dtype=torch.float64 if isinstance(number, float) else None)


def _floating(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _worst(left: Tensor, right: Tensor, wrong: Tensor) -> tuple[int, ...]:
    wide = torch.complex128 if left.is_complex() or right.is_complex() else torch.float64
    distance = (left.to(wide) - right.to(wide)).abs().nan_to_num(nan=float("inf"))
    distance = torch.where(wrong, distance, torch.full_like(distance, -1.0))
    flat = int(distance.reshape(-1).argmax())
    return index_of(flat, left.shape)


def _shown(element: Tensor) -> Any:
    """An element as the Python number with the fewest digits that its dtype rounds to the same value."""
    value = element.item()
    if isinstance(value, float):
        shorter = (float(f"{value:.{digits}g}") for digits in range(1, 17))
        return next((number for number in shorter if torch.tensor(number, dtype=element.dtype) == element.cpu()), value)
    return value
