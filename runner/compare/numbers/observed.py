"""Compares a tensor with one that a snapshot stores, whole or as a digest and statistics."""

from __future__ import annotations

import math

from torch import Tensor

from runner.compare.numbers import differences
from runner.compare.numbers.differences import Deviation, Difference, described
from runner.compare.numbers.digested import Condensed, moved_statistics
from runner.compare.numbers.tolerances import Tolerance
from runner.compare.numbers.ulp import same_bits
from runner.record.rows.digest import digest_of

Expected = Tensor | Condensed | None


def is_same(found: Tensor, expected: Tensor | Condensed) -> bool:
    """Whether shape, dtype and every bit are equal."""
    if isinstance(expected, Condensed):
        return _is_alike(found, expected) and digest_of(found) == expected.digest
    return same_bits(found, expected)


def difference(found: Tensor | None, expected: Expected, tolerance: Tolerance, largest: float) -> Difference | None:
    """Like `differences.difference`; for a condensed tensor, reports the statistics that differ."""
    if not isinstance(expected, Condensed):
        return differences.difference(found, expected, tolerance, largest)
    then = described(expected.dtype, expected.shape)
    if found is None:
        return Difference("missing", then, None, expected.dtype)
    now = described(found.dtype, found.shape)
    if not _is_alike(found, expected):
        return Difference("shape" if tuple(found.shape) != expected.shape else "dtype", then, now, expected.dtype)
    moved = moved_statistics(found, expected, tolerance)
    return None if moved is None else Difference("digest", then, now, expected.dtype, statistics=moved)


def deviation(found: Tensor | None, expected: Expected, tolerance: Tolerance, largest: float) -> Deviation:
    """Like `differences.deviation`; the error of a condensed tensor is NaN, for unknown."""
    if not isinstance(expected, Condensed):
        return differences.deviation(found, expected, tolerance, largest)
    beyond = difference(found, expected, tolerance, largest) is not None
    return Deviation(beyond, math.nan)


def _is_alike(found: Tensor, expected: Condensed) -> bool:
    return found.dtype == expected.dtype and tuple(found.shape) == expected.shape
