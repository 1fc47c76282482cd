"""The statistics of a point's rows that the table of a sweep shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import numpy.typing
import pyarrow
import torch

from runner.record.rows.storage import StoredColumn
from runner.record.rows.tensors import stacked_of
from runner.sweep.points.outcome import Statistics

MOST_SCALARS = 200
"""The most columns of one number that the table of a sweep shows."""

Numbers = numpy.typing.NDArray[numpy.float64]


def scalar_statistics(table: pyarrow.Table, columns: Sequence[StoredColumn]) -> dict[str, Statistics]:
    """The last, smallest and largest value of each column of one number; rows without a value do not count."""
    scalars = [column for column in columns if column.is_number][:MOST_SCALARS]
    return {column.column.name: _statistics(_numbers(table, column)) for column in scalars}


def recent_values(
    table: pyarrow.Table, columns: Sequence[StoredColumn], name: str | None, count: int
) -> tuple[float, ...]:
    """The last `count` values of a column of one number; empty without such a column."""
    column = next((each for each in columns if each.column.name == name and each.is_number), None)
    return () if column is None or count == 0 else tuple(_numbers(table, column)[-count:].tolist())


def _numbers(table: pyarrow.Table, column: StoredColumn) -> Numbers:
    """The values of a column of one number, without rows that have none: float64 `(rows,)`."""
    values, present = stacked_of(table, column.column)
    numbers: Numbers = values[present].reshape(-1).to(torch.float64).numpy()
    return numbers


def _statistics(values: Numbers) -> Statistics:
    if not len(values):
        return (None, None, None)
    return (float(values[-1]), float(numpy.fmin.reduce(values)), float(numpy.fmax.reduce(values)))  # NaN is neither
