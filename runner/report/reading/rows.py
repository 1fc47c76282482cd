"""The rows of a run, and which of them a page shows one by one."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy
import numpy.typing

from runner.record.reading import Run
from runner.record.rows.part_reading import Part
from runner.record.rows.tensors import integers_in

MOST_CHOSEN = 64
"""The most rows that a page shows one by one."""

MOST_ROWS = 10_000_000
"""The most rows of a run that are read."""

STEPS_AT_A_TIME = 4096

IN_WORDS = (
    "A row has the values after one step, and row 0 those before the first. Steps such as `expect` have no row. "
    "In a path such as `repeat[26].1.train`, 26 is the iteration of the loop, and 1 the place of the step in it."
)
"""What a row and its path are, for a reader of a page."""

Positions = numpy.typing.NDArray[numpy.int64]


@dataclass(frozen=True, slots=True)
class Step:
    """One row, without its values."""

    position: int  # among the rows of the run, from 0
    row: int
    step: str
    path: str
    iteration: int


@dataclass(frozen=True, slots=True)
class Rows:
    """The number of each row, and where each part begins."""

    numbers: Positions
    starts: tuple[int, ...]  # the position of the first row of each part
    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def position(self, row: int) -> int | None:
        """The position of a row number; None if the log does not have it."""
        found = int(numpy.searchsorted(self.numbers, row))
        return found if found < len(self) and self.numbers[found] == row else None


def read_rows(run: Run, most: int = MOST_ROWS) -> Rows:
    """Read the numbers of all rows, or of the parts that have at most so many together."""
    ends = list(itertools.accumulate(part.rows for part in run.parts))
    parts = run.parts[: bisect.bisect_right(ends, most)]
    found = [part.read(partial(integers_in, name="row"), ["row"]) for part in parts]
    numbers = numpy.concatenate([numpy.zeros(0, numpy.int64), *found])
    return Rows(numbers, (0, *ends)[: len(parts)], tuple(parts))


def steps_at(rows: Rows, positions: Iterable[int]) -> list[Step]:
    """The step of each row at some positions, in ascending order."""
    found: list[Step] = []
    wanted = numpy.asarray(sorted(positions), dtype=numpy.int64)
    for part, start in zip(rows.parts, rows.starts, strict=True):
        local = wanted[(wanted >= start) & (wanted < start + part.rows)] - start
        for places, table in part.pieces(local.tolist(), ["row", "step", "path", "iteration"], STEPS_AT_A_TIME):
            for place, each in zip(places, table.to_pylist(), strict=True):
                found.append(Step(place + start, each["row"], each["step"], each["path"], each["iteration"]))
    return found


def chosen_positions(rows: Rows, special: Sequence[int], *, by_part: bool) -> Positions:
    """The positions of the rows to show: all of a short run, else the first, the last, special ones and some between.

    Args:
        special: positions to include, the most important first.
        by_part: whether to take those between from the beginnings of parts, which cost least to read.
    """
    count = len(rows)
    if count <= MOST_CHOSEN:
        return numpy.arange(count, dtype=numpy.int64)
    found = dict.fromkeys([0, count - 1, *special])
    kept = [position for position in found if 0 <= position < count][: MOST_CHOSEN // 2]
    left = MOST_CHOSEN - len(kept)
    between = heads(rows, left) if by_part else numpy.linspace(0, count - 1, left + 2).astype(numpy.int64)[1:-1]
    return numpy.unique(numpy.concatenate([numpy.asarray(kept, dtype=numpy.int64), between[:left]]))


def heads(rows: Rows, count: int) -> Positions:
    """At most `count` positions at the beginnings of parts: as many of each, of parts that lie evenly."""
    parts = [place for place, part in enumerate(rows.parts) if part.rows]
    if len(parts) > count // 2:
        picked = numpy.unique(numpy.linspace(0, len(parts) - 1, max(1, count // 2)).astype(numpy.int64))
        parts = [parts[place] for place in picked]
    each = max(1, count // max(1, len(parts)))
    found = [
        numpy.arange(rows.starts[place], rows.starts[place] + min(each, rows.parts[place].rows), dtype=numpy.int64)
        for place in parts
    ]
    return numpy.concatenate([numpy.zeros(0, numpy.int64), *found])
