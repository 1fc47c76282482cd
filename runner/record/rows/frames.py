"""Converts recorded rows to a pandas DataFrame that is ready to plot."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy
import torch

from runner.errors import Problem, UsageError
from runner.plan.rows.columns import Column
from runner.record.rows.arrow import FIXED_FIELDS
from runner.record.rows.storage import stored_column
from runner.record.rows.tensors import stacked_of, tensors_of

if TYPE_CHECKING:
    import pandas
    import pyarrow


def frame_of(table: pyarrow.Table, columns: Sequence[Column]) -> pandas.DataFrame:
    """Rows as a DataFrame; see `Run.to_pandas`."""
    try:
        frames = importlib.import_module("pandas")
    except ModuleNotFoundError as error:
        raise UsageError(Problem("to_pandas needs pandas", hint="pip install pandas")) from error
    data: dict[str, Any] = {field.name: _labels(table, field.name) for field in FIXED_FIELDS}
    for column in columns:
        data[column.name] = _series(frames.Series, table, column)
    return frames.DataFrame(data, copy=False)  # every column has memory of its own


def _labels(table: pyarrow.Table, name: str) -> Any:
    """A column without nulls, in memory that can be written."""
    found = table.column(name).to_pandas()
    return found if len(table.column(name).chunks) > 1 else found.copy()  # the memory of one chunk is Arrow's


def _series(series: Callable[..., Any], table: pyarrow.Table, column: Column) -> Any:
    """A column as pandas makes it of Python numbers or NumPy arrays."""
    if column.is_digest:
        return series(table.column(column.name).to_pylist(), dtype=object)
    if stored_column(column).layout == "list":
        arrays = [None if value is None else _readable(value).numpy() for value in tensors_of(table, column)]
        return series(arrays, dtype=object)
    stacked, present = stacked_of(table, column)
    values = _readable(stacked)
    there, whole = present.numpy(), bool(present.all())
    if math.prod(column.shape or ()) == 1:
        kind = _NUMBERS.get(values.dtype)
        numbers = values.reshape(-1).numpy()
        if kind is not None and whole and len(numbers):
            return series(numbers.astype(kind, copy=False))
        if kind in ("int64", "float64") and there.any():
            return series(numpy.where(there, numbers, math.nan).astype("float64", copy=False))
        return series(
            [number if exists else None for number, exists in zip(values.reshape(-1).tolist(), there, strict=True)]
        )
    return series(
        [array if exists else None for array, exists in zip(values.numpy(), there, strict=True)], dtype=object
    )


_NUMBERS = {
    torch.float32: "float64",
    torch.float64: "float64",
    torch.bool: "bool",
    torch.int8: "int64",
    torch.uint8: "int64",
    torch.int16: "int64",
    torch.int32: "int64",
    torch.int64: "int64",
}
"""The dtype of a column of numbers, as pandas chooses it for Python's numbers."""


def _readable(value: torch.Tensor) -> torch.Tensor:
    """The value in a dtype that NumPy supports: NumPy has no bfloat16, float8 or half-precision complex."""
    if value.dtype == torch.complex32:
        return value.to(torch.complex64)
    return value.float() if value.dtype.itemsize < 4 and value.dtype.is_floating_point else value
