"""Tolerances: bitwise, in units in the last place, from torch's table by dtype, explicit, or measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from runner.compare.numbers.bounds import FACTOR, Uncertainty, floored, rounding
from runner.engine.steps.expectations import TOLERANCES
from runner.plan.rows.columns import Column
from runner.plan.rows.matching import matches

COMPOUNDING = 5.0
"""`dtype` multiplies torch's table by this factor: the table is for one operation, and a run chains many."""

NOISE = 16.0
"""A gradient below this many units of rounding of its own largest value so far is noise."""

CHUNK = 1 << 15
"""Elements that are compared at a time: few enough for a processor's cache, and too few for torch to start threads."""

Mode = Literal["bitwise", "ulp", "dtype", "explicit", "measured"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """A tolerance as numbers for one tensor.

    An element passes if `|found - expected| <= atol + rtol * |expected|`, or if the two are at most `ulp` units in the
    last place apart. NaN matches NaN, and an infinity matches the same infinity. With `bitwise`, only the same bits
    pass.
    """

    bitwise: bool = False
    rtol: float = 0.0
    atol: float = 0.0
    ulp: int = 0
    measured: Measured | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """An uncertainty as a bound for one tensor of one row.

    The tensor passes if the root mean square difference is at most `factor` times `rms`, and no difference exceeds
    twice `factor` times `largest`. Elements that are not finite must be equal to the expected ones.
    """

    rms: float
    largest: float
    factor: float

    def times(self, rms: float, largest: float) -> float:
        """The difference in units of the uncertainty; at most `factor` passes.

        Args:
            rms, largest: root mean square and maximum of the differences.
        """
        parts = [_over(rms, self.rms), _over(largest, 2 * self.largest)]
        return max(parts)

    def holds(self, rms: float, largest: float) -> bool:
        return self.times(rms, largest) <= self.factor


def _over(difference: float, uncertainty: float) -> float:
    if difference == 0 or math.isinf(uncertainty):
        return 0.0
    return difference / uncertainty if uncertainty else math.inf


EXACT = Bounds(bitwise=True)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a tensor may be from the expected one.

    `bitwise`: the same bits. `ulp`: `ulp` units in the last place. `dtype`: `torch.testing`'s table for the tensor's
    dtype, times `COMPOUNDING`; integers and booleans are exact. `explicit`: `rtol` and `atol`. `measured`: `factor`
    times the uncertainty of the tensor in the row.

    With `scaled`, used for gradients, `atol` is in units of the root mean square of the expected tensor. An element
    passes if `|found - expected| <= atol * norm / sqrt(elements) + rtol * |expected|`. An absolute tolerance assumes
    numbers of size 1. Any gradient of size 1e-6 would pass it. A gradient of size 1e6 would fail it, because
    cancellation of large numbers leaves rounding in its small elements.
    """

    mode: Mode = "bitwise"
    rtol: float = 0.0
    atol: float = 0.0
    ulp: int = 0
    scaled: bool = False
    spread: float = 0.0  # absolute, measured over repeated runs: always allowed
    factor: float = FACTOR  # for `measured`
    uncertainty: Uncertainty | None = None  # for `measured`: that of the tensor in the compared row

    def of_row(self, uncertainty: Uncertainty | None) -> Tolerance:
        """The tolerance for a tensor with this uncertainty in one row; None if it is exact."""
        return replace(self, uncertainty=uncertainty) if self.mode == "measured" else self

    def bounds(self, expected: Tensor, largest: float = 0.0) -> Bounds:
        """The tolerance as numbers.

        Args:
            expected: `(*s)`; its dtype and size decide.
            largest: the largest root mean square that this gradient has had. `NOISE` units of rounding of it are
                allowed, because cancellation leaves that much. A gradient at a minimum is all rounding, and could not
                otherwise be compared between two machines.
        """
        if self.mode == "bitwise":
            return EXACT
        if self.mode == "ulp":
            return Bounds(ulp=self.ulp)
        if self.mode == "measured":
            if self.uncertainty is None:
                return EXACT
            size = root_mean_square(expected), largest_magnitude(expected)
            return Bounds(measured=Measured(*floored(self.uncertainty, expected.dtype, *size), self.factor))
        rtol, atol = relative_and_absolute(self, expected.dtype)
        if self.scaled:
            atol = max(atol * root_mean_square(expected), NOISE * rounding(expected.dtype) * largest)
        return Bounds(rtol=rtol, atol=max(atol, self.spread))


BITWISE = Tolerance("bitwise")
BY_DTYPE = Tolerance("dtype")


@dataclass(frozen=True, slots=True)
class Tolerances:
    """The tolerance of each column: that of the first glob that matches its name, else `default`.

    Digests must be equal. For gradients, `dtype` is scaled, and so is an absolute tolerance from `default`. An absolute
    tolerance from a glob is used as written.
    """

    default: Tolerance = BITWISE
    by_name: Sequence[tuple[str, Tolerance]] = ()

    def __call__(self, column: Column) -> Tolerance:
        if column.is_digest:
            return BITWISE
        found = next((given for pattern, given in self.by_name if matches(column.name, pattern)), None)
        tolerance = found or self.default
        if column.of is not None and tolerance.mode == "dtype" and column.dtype.is_floating_point:
            rtol, atol = _by_dtype(column.rounded)  # statistics are float64, but no more exact than their tensor
            tolerance = replace(tolerance, mode="explicit", rtol=rtol, atol=atol, scaled=column.role == "gradient")
        if column.role == "gradient" and (tolerance.mode == "dtype" or (tolerance.mode == "explicit" and not found)):
            return replace(tolerance, scaled=True)
        return tolerance


def relative_and_absolute(tolerance: Tolerance, dtype: torch.dtype) -> tuple[float, float]:
    """`rtol` and `atol` of a tolerance of mode `dtype` or `explicit`; `atol` is not scaled."""
    return _by_dtype(dtype) if tolerance.mode == "dtype" else (tolerance.rtol, tolerance.atol)


def _by_dtype(dtype: torch.dtype) -> tuple[float, float]:
    rtol, atol = TOLERANCES.get(dtype, (0.0, 0.0))
    return COMPOUNDING * rtol, COMPOUNDING * atol


def root_mean_square(tensor: Tensor) -> float:
    """`norm / sqrt(elements)` of the finite elements, in float64; 0 if there are none."""
    norm, count = 0.0, 0
    flat = tensor.detach().reshape(-1)
    for start in range(0, flat.numel(), CHUNK):
        part = flat[start : start + CHUNK]
        wide = part.to(torch.complex128).abs() if part.dtype.is_complex else part.to(torch.float64)
        finite = wide.isfinite()
        norm = math.hypot(norm, float(torch.linalg.vector_norm(wide if finite.all() else wide[finite])))
        count += int(finite.sum())
    return norm / math.sqrt(count) if count else 0.0


def largest_magnitude(tensor: Tensor) -> float:
    """The largest magnitude of a finite element; 0 if there is none."""
    magnitude = tensor.detach().reshape(-1).to(torch.complex128 if tensor.dtype.is_complex else torch.float64).abs()
    finite = magnitude[magnitude.isfinite()]
    return float(finite.max()) if finite.numel() else 0.0
