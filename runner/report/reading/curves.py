"""Reads named numbers over rows, with every extreme of what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy
import numpy.typing
from torch import Tensor

from runner.plan.rows.columns import Column
from runner.record.rows.tensors import stacked_of
from runner.report.reading.rows import Positions, Rows

if TYPE_CHECKING:
    import pyarrow

MOST_POINTS = 100_000
"""The most points of all curves of a page."""

MOST_OF_ONE, LEAST_OF_ONE = 20_000, 400

MOST_VISIBLE = 6
"""The curves that a page shows before its reader chooses others."""

DECADES = 1000
"""From this ratio of the largest to the least value, a scale is logarithmic at first."""

Numbers = numpy.typing.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity over rows."""

    name: str
    column: Column
    rows: Numbers  # uint32: the number of each row
    values: Numbers  # float32 or float64; NaN and infinities as they are
    count: int  # how many values the run has
    least: int | None  # the position of the least finite value
    most: int | None  # and of the largest
    nonfinite: int  # how many values are not finite
    broken: int | None  # the position of the first of them


class Recorded:
    """Every value of named numbers: float64 at the positions that have one."""

    def __init__(self, rows: Rows, columns: Sequence[Column]) -> None:
        self._rows = rows
        self._columns = columns
        self._read = _read(rows, columns)

    def curves(self) -> list[Curve]:
        """The curves of a page, with at most `MOST_POINTS` points together.

        Beyond, each stretch of rows keeps its least and its largest value, and the first that is not finite.
        """
        points = points_of_each(len(self._columns))
        return [
            _curve(self._rows, column, *read, points) for column, read in zip(self._columns, self._read, strict=True)
        ]

    def before(self, chosen: Positions) -> dict[str, dict[int, float | None]]:
        """The value of each quantity in the last row before that has it, at the chosen positions; None: the first."""
        found: dict[str, dict[int, float | None]] = {}
        for column, (positions, values) in zip(self._columns, self._read, strict=True):
            places = numpy.flatnonzero(numpy.isin(positions, chosen)).tolist()
            found[column.name] = {
                int(positions[place]): float(values[place - 1]) if place else None for place in places
            }
        return found

    def at(self, chosen: Positions) -> dict[str, dict[int, float]]:
        """The value of each quantity at the positions that have one."""
        found: dict[str, dict[int, float]] = {}
        for column, (positions, values) in zip(self._columns, self._read, strict=True):
            places = numpy.flatnonzero(numpy.isin(positions, chosen))
            found[column.name] = dict(zip(positions[places].tolist(), values[places].tolist(), strict=True))
        return found


def _curve(rows: Rows, column: Column, positions: Positions, values: Numbers, points: int) -> Curve:
    finite = numpy.isfinite(values)
    kept = decimated(values, points)
    within = positions[finite]
    dtype = numpy.float64 if column.dtype.itemsize == 8 else numpy.float32
    return Curve(
        name=column.name,
        column=column,
        rows=rows.numbers[positions[kept]].astype(numpy.uint32),
        values=values[kept].astype(dtype),
        count=len(values),
        least=int(within[numpy.argmin(values[finite])]) if len(within) else None,
        most=int(within[numpy.argmax(values[finite])]) if len(within) else None,
        nonfinite=int(len(values) - len(within)),
        broken=None if finite.all() else int(positions[numpy.argmin(finite)]),
    )


def spans_decades(values: Numbers) -> bool:
    """Whether every finite value is above 0, and the largest is more than a thousand times the least."""
    finite = values[numpy.isfinite(values)].astype(numpy.float64)
    return bool(len(finite) and finite.min() > 0 and finite.max() > DECADES * finite.min())


def points_of_each(curves: int) -> int:
    """The most points of one of so many curves."""
    return max(LEAST_OF_ONE, min(MOST_OF_ONE, MOST_POINTS // max(1, curves)))


def decimated(values: Numbers, points: int) -> Positions:
    """The places of the values to keep, ascending: at most `points`, with the extremes of each stretch.

    Args:
        values: float `(n,)`.
    """
    count = len(values)
    if count <= points:
        return numpy.arange(count, dtype=numpy.int64)
    stretches = max(1, (points - 2) // 3)
    edges = numpy.linspace(0, count, stretches + 1).astype(numpy.int64)
    starts = edges[:-1]
    finite = numpy.isfinite(values)
    low = _first_of_least(numpy.where(finite, values, numpy.inf), starts, edges)
    high = _first_of_least(-numpy.where(finite, values, -numpy.inf), starts, edges)
    broken = _first_of_least(finite.astype(numpy.float64), starts, edges)
    broken = broken[~finite[broken]]
    return numpy.unique(numpy.concatenate([[0, count - 1], low, high, broken])).astype(numpy.int64)


def _first_of_least(values: Numbers, starts: Positions, edges: Positions) -> Positions:
    """The place of the first least value of each stretch."""
    least = numpy.minimum.reduceat(values, starts)
    equal = values == numpy.repeat(least, numpy.diff(edges))
    places = numpy.where(equal, numpy.arange(len(values)), len(values))
    return numpy.minimum.reduceat(places, starts)


def _read(rows: Rows, columns: Sequence[Column]) -> list[tuple[Positions, Numbers]]:
    """For each column the positions that have a value, and their values as float64."""
    found: list[tuple[list[Positions], list[Numbers]]] = [
        ([numpy.zeros(0, numpy.int64)], [numpy.zeros(0, numpy.float64)]) for _ in columns
    ]

    def read(table: pyarrow.Table) -> list[tuple[Tensor, Tensor]]:
        return [stacked_of(table, column) for column in columns]

    for part, start in zip(rows.parts, rows.starts, strict=True):
        for (positions, values), (read_values, present) in zip(
            found, part.read(read, [column.name for column in columns]), strict=True
        ):
            there = present.numpy()
            positions.append(numpy.flatnonzero(there) + start)
            values.append(read_values.reshape(-1).double().numpy()[there])
    return [(numpy.concatenate(positions), numpy.concatenate(values)) for positions, values in found]
