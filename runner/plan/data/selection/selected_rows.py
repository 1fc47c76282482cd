"""Reads the selected rows of an array in blocks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from runner.plan.data.files import ArrayFile, cast, groups_of, read, read_group
from runner.plan.data.raw_columns import ROWS_AT_ONCE
from runner.plan.data.row_files import row_blocks
from runner.plan.data.selection.selection import Selection

Blocks = Iterator[tuple[int, Tensor]]
"""Consecutive rows of an array, each block after its first row."""


def selected_blocks(
    array: ArrayFile, dtype: torch.dtype, selection: Selection, limit: int | None = None
) -> Iterator[Tensor]:
    """Yields the selected rows of an array in file order, in blocks `(n, *shape)` of a dtype.

    Parquet files are read by row groups, and text tables as a whole; others as `row_blocks` does.

    Args:
        limit: maximum bytes of a file that is read as a whole; the memory of the machine by default.
    Raises:
        FileFault: the file cannot be read.
        CastFault: the dtype cannot represent a value; the message has its row in the file.
    """
    for start, values in _blocks(array, limit):
        mask = selection.mask(start, start + len(values))
        if mask.any():
            rows = mask.nonzero()[0]
            chosen = values if len(rows) == len(values) else values[torch.from_numpy(rows)]
            yield cast(chosen, dtype, array, rows + start)


def _blocks(array: ArrayFile, limit: int | None) -> Blocks:
    if array.suffix == ".parquet":
        start = 0
        for group, length in enumerate(groups_of(array)):
            yield start, read_group(array, group)
            start += length
    elif array.is_text:
        values = read(array, limit)
        for start in range(0, len(values), ROWS_AT_ONCE):
            yield start, values[start : start + ROWS_AT_ONCE]
    else:
        yield from row_blocks(array, limit)
