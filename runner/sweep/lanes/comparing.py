"""Compares the rows of a lane with those of the same point run alone, bit by bit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy
import pyarrow

from runner.record.rows.arrow import numbers_of


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
    largest: tuple[float, str] | None = None
    for name in lane.column_names:
        first, second = lane.column(name).combine_chunks(), alone.column(name).combine_chunks()
        found = _difference(_flat(first), _flat(second))
        if found is not None and (largest is None or found > largest[0]):
            largest = found, name
    if largest is None:
        return None
    text = f"`{largest[1]}` differs from the run alone by up to {largest[0]:.2g}"
    return Difference(text, largest[0], largest[1])


def _flat(array: Any) -> Any:
    if isinstance(array, pyarrow.ChunkedArray):
        array = pyarrow.concat_arrays(array.chunks) if array.num_chunks else pyarrow.nulls(0, array.type)
    if isinstance(array, pyarrow.ExtensionArray):
        array = array.storage
    return array


def _difference(first: Any, second: Any) -> float | None:
    """The largest distance between two arrays of one type; None without any."""
    if first.is_valid().to_pylist() != second.is_valid().to_pylist():
        return numpy.inf
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
