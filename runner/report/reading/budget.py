"""Decides of which rows a report reads each tensor: of all, or of some where the log is large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy

from runner.report.reading.columns import Tensors
from runner.report.reading.rows import Positions, Rows, heads
from runner.text import counted

WHOLE_BYTES = 112 << 20
"""Tensors whose rows take this much together, the smallest first, are read in every row."""

SOME_BYTES = 256 << 20
"""The most bytes of the rows that are read of the other tensors."""

SOME_ROWS = 160
"""The most rows that are read of a tensor that is not read in every row, besides those that the page shows."""

LEAST_ROWS = 4


@dataclass(frozen=True, slots=True)
class Reading:
    """Which rows are read of each tensor; None: all."""

    positions: Mapping[str, Positions | None]
    left_out: tuple[str, ...]  # sentences


def is_large(tensors: Sequence[Tensors], rows: Rows) -> bool:
    """Whether some tensors cannot be read in every row."""
    return sum(each.bytes for each in tensors) * len(rows) > WHOLE_BYTES


def plan_reading(tensors: Sequence[Tensors], rows: Rows, chosen: Positions) -> Reading:
    """Decide of which rows each tensor is read.

    Args:
        chosen: the positions of the rows that the page shows one by one.
    """
    positions: dict[str, Positions | None] = {}
    whole = 0
    large: list[Tensors] = []
    for each in sorted(tensors, key=lambda each: each.bytes):
        whole += each.bytes * len(rows)
        if whole <= WHOLE_BYTES:
            positions[each.name] = None
        else:
            large.append(each)
    between = heads(rows, SOME_ROWS)
    before = chosen[
        numpy.isin(chosen - 1, between) | numpy.isin(chosen - 1, chosen) | (chosen == chosen.max(initial=0))
    ]
    wanted = numpy.unique(numpy.concatenate([chosen, before - 1, between]))
    wanted = wanted[wanted >= 0]
    unread = []
    for each in large:
        most = SOME_BYTES // len(large) // each.bytes
        if most < LEAST_ROWS:
            unread.append(each.name)
        positions[each.name] = wanted if len(wanted) <= most else _spread(chosen, most if most >= LEAST_ROWS else 0)
    left_out = [f"too large to show: {', '.join(unread)}"] if unread else []
    some = [each.name for each in large if each.name not in unread]
    if some:
        read = max(len(positions[name]) for name in some)  # type: ignore[arg-type]
        left_out.append(
            f"the log is large: of {', '.join(some)} the page has {counted(read, 'row')} of {len(rows):,}, "
            "at the beginnings of part files"
        )
    return Reading(positions, tuple(left_out))


def _spread(positions: Positions, most: int) -> Positions:
    """At most so many of some positions, evenly, with the first and the last."""
    if most == 0:
        return positions[:0]
    return positions[numpy.unique(numpy.linspace(0, len(positions) - 1, most).astype(numpy.int64))]
