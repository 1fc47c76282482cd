"""Dates that a floating-point dtype is too coarse for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from runner.language.dtypes import dtype_name
from runner.plan.data.tables.conversions import Conversion

_MOST = 0.5
"""A date may be rounded by less than half its unit. In float32, days are right to two minutes, and so are seconds."""


def moved_date(
    values: Tensor, dtype: torch.dtype, conversions: Sequence[Conversion]
) -> tuple[tuple[int, ...], str] | None:
    """The first date that a cast would move by half its unit or more.

    Args:
        values: float64 of shape `(rows)`, or `(rows, columns)` for several.
        conversions: the conversion of each column of the file.
    Returns:
        the index of the date, and by how much it would move; None if there is none.
    """
    if dtype.itemsize >= 8 or not dtype.is_floating_point:
        return None
    place = 0
    for conversion in conversions:
        start, place = place, place + (conversion.width or 1)
        if conversion.unit is None:
            continue
        column = values if values.dim() == 1 else values[:, start]
        moved = (column - column.to(dtype).to(column.dtype)).abs()
        if conversion.fill is not None:
            moved[column == conversion.fill] = 0  # a mean is no date
        found = (moved >= _MOST).nonzero()
        if len(found):
            row = int(found[0])
            shown = f"which {dtype_name(dtype)} would move by {float(moved[row]):.3g} {conversion.unit}"
            return ((row,) if values.dim() == 1 else (row, start)), shown
    return None
