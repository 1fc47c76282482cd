"""Compares the rows of a lane with those of the same point run alone, bit by bit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy
import pyarrow
import torch

from runner.plan.rows.columns import Column
from runner.record.rows.arrow import columns_of, numbers_of
from runner.record.rows.storage import StoredColumn, stored_column

DIGEST = -1.0
"""The distance between two digests: less than any other, because it is not known."""

_FLOATS = {torch.float32: pyarrow.float32(), torch.float64: pyarrow.float64()}


@dataclass(frozen=True, slots=True)
class Difference:
    """How a lane differs from the run alone."""

    text: str
    size: float
    column: str | None = None  # None: more than a number differs


def difference_between(lane: pyarrow.Table, alone: pyarrow.Table) -> Difference | None:
    """The column that differs most, and by how much; None if every bit is equal. NaN equals NaN."""
    if lane.num_rows != alone.num_rows or lane.column_names != alone.column_names:
        return Difference("a lane has other rows than the run alone", math.inf)
    columns = {column.name: column for column in columns_of(alone.schema)}
    largest: tuple[float, str] | None = None
    for name in lane.column_names:
        first, second = lane.column(name).combine_chunks(), alone.column(name).combine_chunks()
        found = _difference(_flat(first), _flat(second), columns.get(name))
        if found is not None and (largest is None or found > largest[0]):
            largest = found, name
    if largest is None:
        return None
    size, name = largest
    if size == DIGEST:
        return Difference(f"`{name}` differs from that of the run alone", 0.0, name)
    return Difference(
        f"`{name}` differs from the run alone by up to {size:.2g}", size, name if name in columns else None
    )


def _flat(array: Any) -> Any:
    if isinstance(array, pyarrow.ChunkedArray):
        array = pyarrow.concat_arrays(array.chunks) if array.num_chunks else pyarrow.nulls(0, array.type)
    if isinstance(array, pyarrow.ExtensionArray):
        array = array.storage
    return array


def _difference(first: Any, second: Any, column: Column | None) -> float | None:
    """The largest distance between two arrays of one type; None without any, and `DIGEST` between digests."""
    if first.is_valid().to_pylist() != second.is_valid().to_pylist():
        return numpy.inf
    if column is not None and column.is_digest:
        return None if first.equals(second) else DIGEST
    if column is not None and pyarrow.types.is_fixed_size_binary(first.type):
        first, second = (_elements(each, stored_column(column)) for each in (first, second))
    while pyarrow.types.is_list(first.type) or pyarrow.types.is_fixed_size_list(first.type):
        first, second = first.flatten(), second.flatten()
    first, second = first.drop_null(), second.drop_null()
    if len(first) != len(second):
        return numpy.inf
    if not pyarrow.types.is_floating(first.type):
        return None if first.equals(second) else numpy.inf
    one, other = numbers_of(first), numbers_of(second)
    same = (one == other) & (numpy.signbit(one) == numpy.signbit(other)) | (numpy.isnan(one) & numpy.isnan(other))
    if same.all():
        return None
    with numpy.errstate(all="ignore"):
        distances = numpy.abs(one.astype(float) - other.astype(float))[~same]
    return numpy.inf if numpy.isnan(distances).any() else float(distances.max())


def _elements(array: Any, stored: StoredColumn) -> Any:
    """The elements of large tensors, which are stored as bytes."""
    kind = _FLOATS.get(stored.dtype)
    if kind is None:
        return array
    array = array.drop_null()
    size = array.type.byte_width // stored.dtype.itemsize
    return pyarrow.Array.from_buffers(kind, len(array) * size, [None, array.buffers()[1]], offset=array.offset * size)
