"""How many rows of each class are in a prefix of a stratified order."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from fractions import Fraction

MOST_TURNS = 1 << 20
"""The longest period of an order that is dealt row by row."""

_PARTS = 1 << 32
_GOLDEN = 2654435769  # 2^32 divided by the golden ratio


def prefix_counts(sizes: Sequence[int], length: int) -> list[int]:
    """How many rows of each class are among the first `length` rows of a stratified order.

    The classes take turns, so that every prefix has of each class `size * length / sum(sizes)` rows, rounded up or
    down. The counts never fall as `length` grows. In an order with a period of over `MOST_TURNS` rows, a count may be
    one further off.

    Source: the turns are those of pfair scheduling on one processor, earliest deadline first (Baruah, Cohen, Plaxton
        and Varvel, Proportionate Progress, 1996), which solves Tijdeman's chairman assignment problem (1980).

    Args:
        sizes: the number of rows of each class, each at least 1.
        length: from 0 to `sum(sizes)`.
    """
    common = math.gcd(*sizes)
    units = [size // common for size in sizes]
    period = sum(units)
    if period > MOST_TURNS:
        return spread_counts(sizes, length)
    whole, rest = divmod(length, period)
    return [whole * unit + turns for unit, turns in zip(units, _turns(units, rest), strict=True)]


def _turns(units: Sequence[int], length: int) -> list[int]:
    """The counts after `length` turns. A class with m of n turns takes its turn r from r * n / m to (r + 1) * n / m."""
    total, counts = sum(units), [0] * len(units)
    waiting = [(0, number) for number in range(len(units))]  # (the first turn that a class may take, the class)
    ready: list[tuple[int, int]] = []  # (the turn before which it must take one, the class)
    for turn in range(length):
        while waiting and waiting[0][0] <= turn:
            number = heapq.heappop(waiting)[1]
            heapq.heappush(ready, (-(-(counts[number] + 1) * total // units[number]), number))
        number = heapq.heappop(ready)[1]
        counts[number] += 1
        heapq.heappush(waiting, (counts[number] * total // units[number], number))
    return counts


def spread_counts(sizes: Sequence[int], length: int) -> list[int]:
    """The counts in the order of the keys (r + 1 - offset) / size, with offsets that spread over the classes."""
    total, classes = sum(sizes), len(sizes)
    largest_first = sorted(range(classes), key=lambda number: -sizes[number])
    offsets = [0] * classes
    for place, number in enumerate(largest_first):
        offsets[number] = (_PARTS // 2 + place * _GOLDEN) % _PARTS
    sure = max(length - classes, 0)
    counts = [
        (sure * size * _PARTS + offset * total) // (total * _PARTS) if sure else 0
        for size, offset in zip(sizes, offsets, strict=True)
    ]

    def key(number: int) -> tuple[Fraction, int]:
        return Fraction((counts[number] + 1) * _PARTS - offsets[number], sizes[number] * _PARTS), number

    following = [key(number) for number in range(classes)]
    heapq.heapify(following)
    for _ in range(length - sum(counts)):
        number = following[0][1]
        counts[number] += 1
        heapq.heapreplace(following, key(number))
    return counts
