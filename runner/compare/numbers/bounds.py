"""The uncertainty of a tensor in a row, as a snapshot stores it, and the difference that it allows on another machine.

`S` is the root mean square difference of perturbed runs from the plain one, over runs and elements. `M` is the largest
difference of one element in one run. Both are absolute, and stored as powers of two, rounded up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

FACTOR = 5.0
"""By default a tensor may differ by this many times its `S`, and one element by twice as many times `M`."""

_EXACT, _UNKNOWN = "0", "any"
_POWER = re.compile(r"2\^(-?\d{1,4})|0|any")
_LARGEST_POWER, _SMALLEST_POWER = 1023, -1074


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """How far apart correct runs are in one tensor of one row."""

    rms: float  # S; infinite, so that any number passes, if perturbed runs took other steps or were not finite
    largest: float  # M
    statistics: Mapping[str, float] = field(default_factory=dict)  # of a large tensor: S of "mean", "std", …

    @property
    def unknown(self) -> bool:
        return math.isinf(self.rms)


UNKNOWN = Uncertainty(math.inf, math.inf)


class UncertaintyError(ValueError):
    """A text is not a valid uncertainty."""


def to_text(uncertainty: Uncertainty) -> str:
    """`2^-20,2^-17`: S and M as powers of two; `0` for exact, `any` for unknown."""
    first, second = power(uncertainty.rms), power(uncertainty.largest)
    return first if first == second and first in (_EXACT, _UNKNOWN) else f"{first},{second}"


def from_text(text: str) -> Uncertainty:
    """The inverse of `to_text`.

    Raises:
        UncertaintyError: the text is not one or two powers of two, or the second is less than the first.
    """
    parts = text.split(",")
    if len(parts) > 2:
        raise UncertaintyError(f"`~{text}` has {len(parts)} parts, and an uncertainty has two: `~2^-20,2^-17`")
    rms, largest = from_power(parts[0]), from_power(parts[-1])
    if len(parts) == 1 and parts[0] not in (_EXACT, _UNKNOWN):
        raise UncertaintyError(f"`~{text}` lacks the largest difference: write `~{text},{text}` or more")
    if largest < rms:
        raise UncertaintyError(f"`~{text}`: the largest difference is less than the root mean square")
    if math.isinf(rms) != math.isinf(largest):
        raise UncertaintyError(f"`~{text}`: both parts are `any`, or neither is")
    return Uncertainty(rms, largest)


def power(number: float) -> str:
    """The smallest power of two that is at least `number`, which is not negative, as text."""
    if number == 0:
        return _EXACT
    if not math.isfinite(number):
        return _UNKNOWN
    mantissa, exponent = math.frexp(number)  # number = mantissa * 2 ** exponent, mantissa from 1/2 to 1
    exponent -= mantissa == 0.5
    return f"2^{exponent}" if exponent <= _LARGEST_POWER else _UNKNOWN


def from_power(text: str) -> float:
    """The inverse of `power`.

    Raises:
        UncertaintyError: the text is not one.
    """
    found = _POWER.fullmatch(text)
    if found is None:
        raise UncertaintyError(f"`~{text}` is not an uncertainty: write `0`, `any`, or a power of two such as `2^-20`")
    if found[1] is None:
        return 0.0 if text == _EXACT else math.inf
    if not _SMALLEST_POWER <= int(found[1]) <= _LARGEST_POWER:
        raise UncertaintyError(f"`~{text}` is beyond the powers of two of float64, 2^-1074 to 2^1023")
    return 2.0 ** int(found[1])


def rounded_up(uncertainty: Uncertainty) -> Uncertainty:
    """An uncertainty as a snapshot would store it: powers of two, rounded up."""
    statistics = {name: from_power(power(value)) for name, value in uncertainty.statistics.items()}
    return Uncertainty(from_power(power(uncertainty.rms)), from_power(power(uncertainty.largest)), statistics)


def rounding(dtype: torch.dtype) -> float:
    """The relative distance from 1 to the next number of a floating or complex dtype; 0 for others."""
    return torch.finfo(dtype).eps if dtype.is_floating_point or dtype.is_complex else 0.0


def floored(uncertainty: Uncertainty, dtype: torch.dtype, rms: float, largest: float) -> tuple[float, float]:
    """S and M; each is at least the rounding of the expected tensor, and the distance between subnormal numbers.

    Args:
        dtype: the dtype that the numbers were rounded to.
        rms, largest: root mean square and largest magnitude of the expected tensor.
    """
    eps = rounding(dtype)
    least = eps * torch.finfo(dtype).smallest_normal if eps else 0.0
    return max(uncertainty.rms, eps * rms, least), max(uncertainty.largest, eps * largest, least)


def significant_digits(uncertainty: float, size: float, dtype: torch.dtype) -> float:
    """The number of significant decimal digits of a number of this size: at least 0, at most those of its dtype."""
    eps = rounding(dtype)
    most = -math.log10(eps) if eps else 15.0
    if uncertainty == 0 or size == 0:
        return most if uncertainty == 0 else 0.0
    return min(most, max(0.0, -math.log10(uncertainty / size))) if math.isfinite(uncertainty) else 0.0
