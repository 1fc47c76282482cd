"""The statistics of a point's rows that the table of a sweep shows."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow
import pyarrow.compute

from runner.record.rows.storage import StoredColumn
from runner.sweep.points.outcome import Statistics

MOST_SCALARS = 200
"""The most scalar columns of a point that the table of a sweep shows."""


def scalar_statistics(table: pyarrow.Table, columns: Sequence[StoredColumn]) -> dict[str, Statistics]:
    """The last, smallest and largest value of each scalar column; rows without a value do not count."""
    scalars = [column for column in columns if column.layout == "scalar" and not column.column.dtype.is_complex]
    return {column.column.name: _statistics(table.column(column.column.name)) for column in scalars[:MOST_SCALARS]}


def recent_values(table: pyarrow.Table, name: str | None, count: int) -> tuple[float, ...]:
    """The last `count` values of a column; empty without such a column."""
    if name is None or count == 0 or name not in table.column_names:
        return ()
    values = table.column(name).drop_null()
    return tuple(float(value) for value in values.slice(max(0, len(values) - count)).to_pylist())


def _statistics(column: pyarrow.ChunkedArray) -> Statistics:
    values = column.drop_null()
    if not len(values):
        return (None, None, None)
    if pyarrow.types.is_boolean(values.type):
        values = values.cast(pyarrow.uint8())
    extremes = pyarrow.compute.min_max(values).as_py()  # NaN is neither
    return (float(values[-1].as_py()), float(extremes["min"]), float(extremes["max"]))
