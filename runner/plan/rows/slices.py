"""Slices of tensors with `stacked`: which ones have statistics and health rules of their own, and their names."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

MOST_SLICES = 256
"""The most slices of one tensor that have statistics and health rules of their own."""


def leading(shape: Sequence[int], stacked: int) -> tuple[int, ...]:
    """The lengths of the leading dimensions whose slices are looked at one by one; empty if there are none.

    Of the first `stacked` dimensions of `shape`, these are as many as have at most `MOST_SLICES` slices.
    """
    for dimensions in range(stacked, 0, -1):
        lengths = tuple(shape[:dimensions])
        if math.prod(lengths) <= MOST_SLICES:
            return lengths if math.prod(shape) else ()
    return ()


def slice_names(name: str, lengths: Sequence[int]) -> tuple[str, ...]:
    """The names of the slices of a column, in row-major order: `w[1,2].grad` for `w.grad`.

    Args:
        lengths: those of the leading dimensions, from `leading`; without any, no slices.
    """
    owner, dot, rest = name.partition(".")
    indexes = itertools.product(*map(range, lengths)) if lengths else ()
    return tuple(f"{owner}[{','.join(map(str, index))}]{dot}{rest}" for index in indexes)
