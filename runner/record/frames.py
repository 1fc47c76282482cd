"""Recorded rows as a pandas DataFrame that can be plotted as it is."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from runner.errors import Problem, UsageError
from runner.plan.columns import Column
from runner.record.arrow import tensors_of

if TYPE_CHECKING:
    import pandas
    import pyarrow


def frame_of(table: pyarrow.Table, columns: Sequence[Column]) -> pandas.DataFrame:
    """Rows as a DataFrame; see `Run.to_pandas`."""
    try:
        frames = importlib.import_module("pandas")
    except ModuleNotFoundError as error:
        raise UsageError(Problem("to_pandas needs pandas", hint="pip install pandas")) from error
    data = {name: table.column(name).to_pandas() for name in ("row", "step", "path", "iteration") if name in table.column_names}
    for column in columns:
        data[column.name] = _series(frames, table, column)
    return frames.DataFrame(data)


def _series(frames: object, table: pyarrow.Table, column: Column) -> object:
    values = [None if value is None else _readable(value) for value in tensors_of(table, column)]
    if column.shape is not None and math.prod(column.shape) == 1:
        return [None if value is None else value.item() for value in values]
    return frames.Series([None if value is None else value.numpy() for value in values], dtype=object)


def _readable(value: torch.Tensor) -> torch.Tensor:
    """NumPy knows no bfloat16 and no float8."""
    return value.float() if value.dtype.itemsize < 4 and value.dtype.is_floating_point else value
