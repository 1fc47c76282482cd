"""Reads named numbers over rows, with every extreme of what is left out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy
import numpy.typing

from runner.plan.rows.columns import Column
from runner.record.rows.tensors import stacked_of
from runner.report.reading.rows import Positions, Rows

MOST_POINTS = 100_000
"""The most points of all curves of a page."""

MOST_OF_ONE, LEAST_OF_ONE = 20_000, 400

Numbers = numpy.typing.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity over rows."""

    name: str
    rows: Numbers  # uint32: the number of each row
    values: Numbers  # float32 or float64; NaN and infinities as they are
    count: int  # how many values the run has
    least: int | None  # the position of the least finite value
    most: int | None  # and of the largest
    nonfinite: int  # how many values are not finite
    broken: int | None  # the position of the first of them


def read_curve(rows: Rows, column: Column, points: int) -> Curve:
    """Read a column of one number in each row.

    Args:
        points: the most points to keep. Beyond, each stretch of rows keeps its least and its largest value, and the
            first that is not finite.
    """
    positions, values = _read(rows, column)
    finite = numpy.isfinite(values)
    kept = decimated(values, points)
    within = positions[finite]
    dtype = numpy.float64 if column.dtype.itemsize == 8 else numpy.float32
    return Curve(
        name=column.name,
        rows=rows.numbers[positions[kept]].astype(numpy.uint32),
        values=values[kept].astype(dtype),
        count=len(values),
        least=int(within[numpy.argmin(values[finite])]) if len(within) else None,
        most=int(within[numpy.argmax(values[finite])]) if len(within) else None,
        nonfinite=int(len(values) - len(within)),
        broken=None if finite.all() else int(positions[numpy.argmin(finite)]),
    )


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


def _read(rows: Rows, column: Column) -> tuple[Positions, Numbers]:
    positions: list[Positions] = [numpy.zeros(0, numpy.int64)]
    values: list[Numbers] = [numpy.zeros(0, numpy.float64)]
    for part, start in zip(rows.parts, rows.starts, strict=True):
        found, present = part.read(partial(stacked_of, column=column), [column.name])
        there = present.numpy()
        positions.append(numpy.flatnonzero(there) + start)
        values.append(found.reshape(-1).double().numpy()[there])
    return numpy.concatenate(positions), numpy.concatenate(values)
