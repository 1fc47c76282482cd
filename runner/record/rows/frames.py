"""Converts recorded rows to a pandas DataFrame that is ready to plot."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from runner.errors import Problem, UsageError
from runner.plan.rows.columns import Column
from runner.record.rows.arrow import FIXED_FIELDS
from runner.record.rows.tensors import tensors_of

if TYPE_CHECKING:
    import pandas
    import pyarrow


def frame_of(table: pyarrow.Table, columns: Sequence[Column]) -> pandas.DataFrame:
    """Rows as a DataFrame; see `Run.to_pandas`."""
    try:
        frames = importlib.import_module("pandas")
    except ModuleNotFoundError as error:
        raise UsageError(Problem("to_pandas needs pandas", hint="pip install pandas")) from error
    data: dict[str, Any] = {field.name: table.column(field.name).to_pandas() for field in FIXED_FIELDS}
    for column in columns:
        if column.is_digest:
            data[column.name] = frames.Series(table.column(column.name).to_pylist(), dtype=object)
            continue
        values = [None if value is None else _readable(value) for value in tensors_of(table, column)]
        if column.shape is not None and math.prod(column.shape) == 1:
            data[column.name] = frames.Series([None if value is None else value.item() for value in values])
        else:
            arrays = [None if value is None else value.numpy() for value in values]
            data[column.name] = frames.Series(arrays, dtype=object)
    return frames.DataFrame(data)


def _readable(value: torch.Tensor) -> torch.Tensor:
    """The value in a dtype that NumPy supports: NumPy has no bfloat16, float8 or half-precision complex."""
    if value.dtype == torch.complex32:
        return value.to(torch.complex64)
    return value.float() if value.dtype.itemsize < 4 and value.dtype.is_floating_point else value
