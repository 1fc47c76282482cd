"""A large tensor as its digest and statistics, which a snapshot stores as text."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.compare.numbers.bounds import Uncertainty, UncertaintyError, from_power, power, rounding
from runner.compare.numbers.tolerances import BITWISE, Tolerance
from runner.record.rows.digest import digest_of
from runner.record.rows.summary import Summary, summarize

LARGEST_WHOLE = 64
"""Larger tensors are stored as a digest and statistics, not number by number."""

STATISTICS = ("mean", "std", "min", "max", "norm")
_COUNTS = ("zeros", "nan", "inf")
_TEXT = re.compile(r"sha256:([0-9a-f]{16})((?: [a-z]+ \S+)*)")


@dataclass(frozen=True, slots=True)
class Condensed:
    """A tensor whose elements were not stored."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    digest: str
    summary: Summary | None  # None: its statistics were not stored either


def condense(tensor: Tensor, *, statistics: bool) -> Condensed:
    return Condensed(tensor.dtype, tuple(tensor.shape), digest_of(tensor), summarize(tensor) if statistics else None)


def to_text(condensed: Condensed, uncertainty: Uncertainty | None = None) -> str:
    """One line: `sha256:0123456789abcdef mean 0.5 std 0.1 min 0 max 1 norm 22.4 zeros 1`.

    Args:
        uncertainty: appended to each statistic, as in `mean 0.5~2^-20`.
    """
    parts = [f"sha256:{condensed.digest}"]
    if condensed.summary is not None:
        for name in STATISTICS:
            number = getattr(condensed.summary, name)
            if number is not None:
                parts.append(f"{name} {number:.9g}{_uncertain(name, uncertainty)}")
        parts += [f"{name} {getattr(condensed.summary, name)}" for name in _COUNTS if getattr(condensed.summary, name)]
    return " ".join(parts)


def _uncertain(name: str, uncertainty: Uncertainty | None) -> str:
    if uncertainty is None:
        return ""
    return f"~{power(math.inf if uncertainty.unknown else uncertainty.statistics.get(name, 0.0))}"


def statistics_of(text: str) -> tuple[str, dict[str, float]]:
    """Splits a line into the line without the uncertainties of its statistics, and these by name.

    Raises:
        UncertaintyError: one of them is not a valid uncertainty.
    """
    found = {name: from_power(each) for name, each in re.findall(r"([a-z]+) [^\s~]+~(\S*)", text)}
    if any(name not in STATISTICS for name in found):
        raise UncertaintyError("only mean, std, min, max and norm have an uncertainty")
    return re.sub(r"~\S*", "", text), found


def from_text(text: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Condensed | None:
    """The inverse of `to_text`, for a line without uncertainties (see `statistics_of`); None if it is not one."""
    found = _TEXT.fullmatch(text)
    if found is None:
        return None
    words = found[2].split()
    fields = dict(zip(words[::2], words[1::2], strict=True))
    if not fields:
        return Condensed(dtype, shape, found[1], None)
    if fields.keys() - {*STATISTICS, *_COUNTS} or "norm" not in fields:
        return None
    try:
        mean, std, low, high = (
            float(fields[name]) if name in fields else None for name in ("mean", "std", "min", "max")
        )
        zeros, nan, inf = (int(fields.get(name, 0)) for name in _COUNTS)
        summary = Summary(shape, dtype, mean, std, low, high, float(fields["norm"]), zeros, nan, inf)
    except ValueError:
        return None
    return Condensed(dtype, shape, found[1], summary)


def moved_statistics(found: Tensor, expected: Condensed, tolerance: Tolerance) -> tuple[str, ...] | None:
    """The statistics of `found` that differ from the expected ones, each as `mean 1 (was 2)`; None if `found` passes.

    It passes if the digests are equal, or if all statistics are within a tolerance other than `bitwise`. With such a
    tolerance it also passes if no statistics were stored, or if the uncertainty is unknown.

    Args:
        found: a tensor of the expected shape and dtype.
    """
    if digest_of(found) == expected.digest:
        return None
    now, then = summarize(found), expected.summary
    if then is None:
        return () if tolerance.mode == "bitwise" else None
    if tolerance.mode == "measured" and tolerance.uncertainty is not None and tolerance.uncertainty.unknown:
        return None
    if tolerance.mode == "measured" and tolerance.uncertainty is None:
        tolerance = BITWISE
    moved = [
        f"{name} {getattr(now, name)} (was {getattr(then, name)})"
        for name in ("nan", "inf")
        if getattr(now, name) != getattr(then, name)
    ]
    for name in STATISTICS:
        a, b = getattr(now, name), getattr(then, name)
        if a is None or b is None:
            differs = a is not b
        else:
            differs = abs(a - b) > _allowed(tolerance, name, then, expected, abs(b))
        if differs:
            moved.append(f"{name} {_short(a)} (was {_short(b)})")
    return tuple(moved) if moved or tolerance.mode == "bitwise" else None


def _allowed(tolerance: Tolerance, name: str, then: Summary, expected: Condensed, size: float) -> float:
    """How much a statistic may differ, including the rounding of the nine digits that are stored."""
    written = 5.1e-9 * size
    if tolerance.mode == "bitwise":
        return written
    if tolerance.mode == "measured":
        return written + _measured(tolerance, name, then, expected, size)
    if tolerance.mode == "ulp":
        return written + tolerance.ulp * rounding(expected.dtype) * size
    elements = max(1, math.prod(expected.shape))
    bounds = tolerance.bounds(torch.full((), then.norm / math.sqrt(elements)).to(expected.dtype))
    return written + bounds.atol * math.sqrt(elements) + bounds.rtol * size


def _measured(tolerance: Tolerance, name: str, then: Summary, expected: Condensed, size: float) -> float:
    """`factor` times the uncertainty of a statistic, or times a unit of rounding if that is more; 0 if it is exact."""
    if tolerance.uncertainty is None:
        return 0.0
    elements = max(1, math.prod(expected.shape))
    rms = then.norm / math.sqrt(elements)
    floor = rounding(expected.dtype) * max(size, rms / math.sqrt(elements) if name == "mean" else 0.0)
    return tolerance.factor * max(tolerance.uncertainty.statistics.get(name, 0.0), floor)


def _short(number: float | None) -> str:
    return "none" if number is None else f"{number:.9g}"
