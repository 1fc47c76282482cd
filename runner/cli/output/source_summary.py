"""What `steprun show` says of the values in a data source: missing values and ranges, if they are cheap to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from runner.plan.data.files import FileFault, size_of
from runner.plan.data.selection.selected_rows import selected_blocks
from runner.plan.data.sources import BatchColumn, SourcePlan

SCANNED_BYTES = 64 << 20
"""Maximum bytes of a file whose values `steprun show` reads."""


def values_in(source: SourcePlan, column: BatchColumn) -> Mapping[str, Any]:
    """The number of missing values, the smallest and the largest value of a column over all samples.

    Returns:
        `missing`, `min` and `max`; `min` and `max` are None without a value. Empty if the file is large, the column
        complex, or a value cannot be read.
    """
    if column.dtype.is_complex or size_of(column.array) > SCANNED_BYTES:
        return {}
    missing, least, most = 0, None, None
    try:
        for block in selected_blocks(column.array, column.dtype, source.selection):
            values = _wide(block)
            missing += int(values.isnan().sum()) if values.is_floating_point() else 0
            present = values[~values.isnan()] if values.is_floating_point() else values
            if present.numel():
                low, high = (each.item() for each in present.aminmax())
                least = low if least is None else min(least, low)
                most = high if most is None else max(most, high)
    except FileFault:  # a run reports it; planning has checked what it checks
        return {}
    return {"missing": missing, "min": least, "max": most}


def _wide(block: Tensor) -> Tensor:
    """Values in a dtype that has `aminmax`."""
    flat = block.flatten()
    if flat.is_floating_point():
        return flat.double() if flat.dtype.itemsize < 4 else flat
    return flat.to(torch.int64)
