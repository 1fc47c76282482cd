"""The differences between a tensor and the expected one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from runner.compare.numbers.tolerances import CHUNK, Bounds, Measured, Tolerance, root_mean_square
from runner.compare.numbers.ulp import FARTHEST, ulp_distance
from runner.engine.watch.reports import index_of
from runner.language.dtypes import dtype_name
from runner.record.rows.digest import bits

Number = bool | int | float | complex

Kind = Literal["missing", "new", "dtype", "shape", "value", "digest"]
"""`missing`: a tensor was expected, and there is none. `new`: there is one, and none was expected. `digest`: the
elements of the expected tensor were not stored.
"""


@dataclass(frozen=True, slots=True)
class Element:
    """One element that differs."""

    index: tuple[int, ...]
    expected: Number
    found: Number
    absolute: float  # |found - expected|; inf if one of them is not finite
    relative: float  # relative to |expected|; inf if that is 0
    ulps: int | None  # None: not a real floating dtype, or exactly one is NaN


@dataclass(frozen=True, slots=True)
class Passing:
    """The smallest tolerances under which nothing differs; None if there is none, as with a NaN on one side."""

    rtol: float | None  # passes together with the `atol` that was used
    beside_atol: float
    atol: float | None  # passes without `rtol`
    ulp: int | None  # passes without `rtol` and `atol`


@dataclass(frozen=True, slots=True)
class ScaledDifference:
    """A difference in units of the uncertainty of what was expected."""

    times: float  # inf if the expected tensor is exact, or something is not finite
    allowed: float
    rms: float  # S, absolute
    size: float  # root mean square of the expected tensor


@dataclass(frozen=True, slots=True)
class Values:
    """The elements that differ by more than the tolerance."""

    worst: Element  # the first with the largest absolute difference
    first: Element  # in memory order
    count: int  # of elements beyond the tolerance
    unequal: int  # elements that are not the same number, beyond the tolerance or not
    elements: int
    error: float  # norm of found - expected, relative to that of expected; inf if that is 0 or something is not finite
    passing: Passing
    one_sided_nan: int  # elements where one is NaN and the other is not
    uncertainty: ScaledDifference | None = None  # if the tolerance is an uncertainty

    @property
    def share(self) -> float:
        """The share of elements beyond the tolerance, from 0 to 1."""
        return self.count / self.elements


@dataclass(frozen=True, slots=True)
class Difference:
    """How a tensor differs: in whether it exists, in dtype, in shape, or, if these agree, in values."""

    kind: Kind
    expected: str | None  # dtype and shape: "float32 [64, 128]"
    found: str | None
    dtype: torch.dtype
    values: Values | None = None  # only of kind `value`
    statistics: tuple[str, ...] = ()  # of kind `digest`: the statistics that differ


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far a tensor is from the expected one."""

    beyond: bool  # whether it differs by more than the tolerance
    error: float  # as in `Values`


_SAME = Deviation(False, 0.0)


def difference(
    found: Tensor | None, expected: Tensor | None, tolerance: Tolerance, largest: float = 0.0
) -> Difference | None:
    """How `found` differs from `expected` by more than the tolerance; None if it does not.

    Args:
        found, expected: `(*s)` of any dtype, on any device; None if there is no such tensor, for example no gradient.
        tolerance: whatever the tolerance, dtype and shape must match. A NaN matches only a NaN, with any bits except
            under `bitwise`; only `bitwise` distinguishes -0 from 0.
        largest: used by scaled tolerances, see `Tolerance.bounds`.
    """
    if found is None or expected is None:
        if found is expected:
            return None
        one = found if expected is None else expected
        assert one is not None
        kind: Kind = "new" if expected is None else "missing"
        return Difference(kind, _described(expected), _described(found), one.dtype)
    if found is expected:
        return None
    if found.dtype != expected.dtype or found.shape != expected.shape:
        kind = "shape" if found.shape != expected.shape else "dtype"
        return Difference(kind, _described(expected), _described(found), expected.dtype)
    left, right = _flat(found), _flat(expected)
    unequal = [start for start, a, b in _parts(left, right) if not torch.equal(bits(a), bits(b))]
    if not unequal:
        return None
    bounds = tolerance.bounds(expected, largest)
    tally = _Tally(bounds)
    for start in unequal:
        tally.add(start, left[start : start + CHUNK], right[start : start + CHUNK])
    if tally.count == 0 or tally.holds(left.numel()):
        return None
    values = _values(tally, left, right, tuple(expected.shape))
    return Difference("value", _described(expected), _described(found), expected.dtype, values)


def deviation(found: Tensor | None, expected: Tensor | None, tolerance: Tolerance, largest: float = 0.0) -> Deviation:
    """Whether `difference` would return a difference, and the error. It computes nothing else, and so is cheaper."""
    if found is None or expected is None or found.dtype != expected.dtype or found.shape != expected.shape:
        return _SAME if found is expected else Deviation(True, math.inf)
    bounds = tolerance.bounds(expected, largest)
    beyond, difference_norm, size, largest = False, 0.0, 0.0, 0.0
    for _, left, right in _parts(_flat(found), _flat(expected)):
        delta, sizes, unequal = absolute_differences(left, right)
        beyond = beyond or bool(_beyond(bounds, left, right, delta, sizes, unequal).any())
        difference_norm, size = math.hypot(difference_norm, _norm(delta)), math.hypot(size, _finite_norm(sizes))
        largest = max(largest, float(delta.max()))
    if bounds.measured is not None:
        beyond = beyond and not bounds.measured.holds(difference_norm / math.sqrt(found.numel()), largest)
    return Deviation(beyond, _ratio(difference_norm, size))


def _ratio(difference_norm: float, size: float) -> float:
    if difference_norm == 0:
        return 0.0
    return difference_norm / size if size and math.isfinite(difference_norm) else math.inf


def described(dtype: torch.dtype, shape: Sequence[int]) -> str:
    """A dtype and shape as text: `float32 [64, 128]`."""
    return f"{dtype_name(dtype)} {list(shape)}"


def other_shape(expected: Sequence[int], found: Sequence[int]) -> str:
    """Two shapes as text, in place of an error: `shape [3] → [4]`."""
    return f"shape {list(expected)} → {list(found)}"


def _described(tensor: Tensor | None) -> str | None:
    return None if tensor is None else described(tensor.dtype, tensor.shape)


def _flat(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)


def _parts(left: Tensor, right: Tensor) -> Iterator[tuple[int, Tensor, Tensor]]:
    for start in range(0, left.numel(), CHUNK):
        yield start, left[start : start + CHUNK], right[start : start + CHUNK]


def _widened(tensor: Tensor) -> Tensor:
    return tensor.to(torch.complex128 if tensor.dtype.is_complex else torch.float64)


def _norm(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor))


def _finite_norm(sizes: Tensor) -> float:
    norm = _norm(sizes)
    return norm if math.isfinite(norm) else _norm(sizes[sizes.isfinite()])


def _beyond(bounds: Bounds, left: Tensor, right: Tensor, delta: Tensor, size: Tensor, unequal: Tensor) -> Tensor:
    """A mask of the elements of two chunks `(n,)` that differ by more than the tolerance."""
    if bounds.bitwise:
        differing = bits(left) != bits(right)
        return differing.any(dim=-1) if left.dtype.is_complex else differing
    wrong = unequal
    if bounds.measured is not None:  # the whole tensor passes or fails; these elements are the ones beyond the bound
        return wrong & ~((delta <= bounds.measured.factor * bounds.measured.rms) & delta.isfinite())
    if bounds.rtol or bounds.atol:
        wrong = wrong & ~((delta <= bounds.atol + bounds.rtol * size) & delta.isfinite())
    if bounds.ulp and left.dtype.is_floating_point:
        wrong = wrong & (ulp_distance(left, right) > bounds.ulp)
    return wrong


class _Tally:
    """Accumulates the differing elements, chunk by chunk."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.count = 0
        self.unequal = 0
        self.one_sided_nan = 0
        self.first = -1
        self.worst = -1
        self.largest = -1.0  # the absolute difference of `worst`
        self.difference_norm = 0.0  # norm of the difference
        self.rtol = 0.0  # that would pass with the atol that was used
        self.atol = 0.0  # that would pass without rtol
        self.ulp = 0

    def add(self, start: int, left: Tensor, right: Tensor) -> None:
        """Add two chunks `(n,)` that begin at `start`."""
        delta, size, unequal = absolute_differences(left, right)
        wrong = _beyond(self.bounds, left, right, delta, size, unequal)
        self.unequal += int(unequal.sum())
        self.difference_norm = math.hypot(self.difference_norm, _norm(delta))
        count = int(wrong.sum())
        if count == 0:
            return
        self.count += count
        if self.first < 0:
            self.first = start + int(wrong.to(torch.uint8).argmax())
        beyond = delta.masked_fill(~wrong, -1.0)
        place = int(beyond.argmax())
        if float(beyond[place]) > self.largest:
            self.largest, self.worst = float(beyond[place]), start + place
        if left.dtype.is_floating_point or left.dtype.is_complex:
            self.one_sided_nan += int((left.isnan() ^ right.isnan()).sum())
        self.atol = max(self.atol, float(delta.max()))
        over = delta - self.bounds.atol
        needed = torch.where(over > 0, over / size, 0.0)  # inf / inf: no tolerance lets it pass
        self.rtol = max(self.rtol, float(needed.nan_to_num_(nan=math.inf, posinf=math.inf).max()))
        if left.dtype.is_floating_point:
            self.ulp = max(self.ulp, int(ulp_distance(left, right).max()))

    def holds(self, elements: int) -> bool:
        """Whether the whole tensor is within a measured uncertainty."""
        measured = self.bounds.measured
        return measured is not None and measured.holds(self.difference_norm / math.sqrt(elements), self.atol)


def absolute_differences(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Absolute differences, magnitudes of `right`, both float64 `(*s)`, and a mask of the numbers that differ."""
    if not (left.dtype.is_floating_point or left.dtype.is_complex):
        a, b = left.to(torch.float64), right.to(torch.float64)
        unequal = bits(left) != bits(right)
        exact = (left.to(torch.int64) - right.to(torch.int64)).abs().to(torch.float64)
        delta = torch.where(
            (a - b).abs() < 2.0**53, exact, (a - b).abs()
        )  # exact for large integers that are close together
        return torch.where(unequal, delta, 0.0), b.abs(), unequal
    a, b = _widened(left), _widened(right)
    same = (a == b) | (a.isnan() & b.isnan())
    delta = (a - b).abs().nan_to_num_(nan=math.inf, posinf=math.inf)
    return delta.masked_fill_(same, 0.0), b.abs(), ~same


def _values(tally: _Tally, left: Tensor, right: Tensor, shape: tuple[int, ...]) -> Values:
    size = 0.0
    for start in range(0, right.numel(), CHUNK):
        size = math.hypot(size, _finite_norm(_widened(right[start : start + CHUNK])))
    return Values(
        worst=_element(left, right, tally.worst, shape),
        first=_element(left, right, tally.first, shape),
        count=tally.count,
        unequal=tally.unequal,
        elements=left.numel(),
        error=_ratio(tally.difference_norm, size),
        passing=_passing(tally, left.dtype),
        one_sided_nan=tally.one_sided_nan,
        uncertainty=None if tally.bounds.measured is None else _scaled(tally, tally.bounds.measured, right),
    )


def _scaled(tally: _Tally, measured: Measured, expected: Tensor) -> ScaledDifference:
    times = measured.times(tally.difference_norm / math.sqrt(expected.numel()), tally.atol)
    return ScaledDifference(times, measured.factor, measured.rms, root_mean_square(expected))


def _passing(tally: _Tally, dtype: torch.dtype) -> Passing:
    if tally.unequal == 0:  # only bits of zeros or NaN differ: the numbers are the same
        return Passing(0.0, tally.bounds.atol, 0.0, 0 if dtype.is_floating_point else None)
    return Passing(
        rtol=_upwards(tally.rtol),
        beside_atol=tally.bounds.atol,
        atol=tally.atol if math.isfinite(tally.atol) else None,
        ulp=tally.ulp if dtype.is_floating_point and tally.ulp < FARTHEST else None,
    )


def _upwards(needed: float) -> float | None:
    """Slightly more than `needed`: `atol + rtol * |expected|` is rounded again when it is used. None if infinite."""
    return needed * (1 + 2.0**-50) if math.isfinite(needed) else None


def _element(left: Tensor, right: Tensor, place: int, shape: tuple[int, ...]) -> Element:
    a, b = left[place : place + 1], right[place : place + 1]
    delta, size, _ = absolute_differences(a, b)
    absolute = float(delta)
    ulps = int(ulp_distance(a, b)) if a.dtype.is_floating_point and not (a.isnan() ^ b.isnan()).any() else None
    return Element(index_of(place, shape), b.item(), a.item(), absolute, _ratio(absolute, float(size)), ulps)
