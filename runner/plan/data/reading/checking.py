"""Checks the values of data files before a run: that none is missing, and that dtypes represent all of them."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from runner.plan.data.casting import first_misfit, is_lossless
from runner.plan.data.files import (
    ArrayFile,
    cast,
    describe,
    groups_of,
    header_of,
    misfit_fault,
    read_group,
    read_text,
)
from runner.plan.data.row_files import in_order, row_blocks
from runner.plan.data.selection.selected_rows import selected_blocks
from runner.plan.data.selection.selection import Selection, all_rows
from runner.plan.data.tables.conversions import Reading
from runner.plan.data.tables.parquet import Part, groups_in_doubt, parquet_parts
from runner.plan.memory import machine_memory

SCAN_BYTES = 512 << 20
"""Maximum bytes of values that planning reads from files that are no text tables. A run checks the others."""

_READ_WHOLE = 256 << 20
"""Maximum bytes of an array to check that cannot be read in blocks."""


@dataclass(slots=True)
class Scan:
    """How many more bytes of values planning may read to check them."""

    left: int = field(default_factory=lambda: SCAN_BYTES)

    def takes(self, size: int) -> bool:
        """Whether that many bytes may still be read; counts them if so."""
        if size > self.left:
            return False
        self.left -= size
        return True


def check_values(
    array: ArrayFile, dtype: torch.dtype, scan: Scan, limit: int | None = None, selection: Selection | None = None
) -> None:
    """Check the values of an array before a run: all of a text table, and of other files as many as `scan` allows.

    Parquet files are read only where their statistics leave a doubt, and in bounded memory, as plain arrays are.

    Args:
        selection: the rows whose values the dtype must represent; all by default.
        limit: maximum bytes of a file that is read as a whole; the memory of the machine by default.
    Raises:
        FileFault: as `cast`, or a value is missing.
    """
    limit = machine_memory() if limit is None else limit
    if array.is_text:
        _check_text(array, dtype, limit, selection)
    elif array.suffix == ".parquet":
        _check_parquet(array, dtype, scan, selection)
    else:
        _check_array(array, dtype, scan, limit, selection)


def _check_text(array: ArrayFile, dtype: torch.dtype, limit: int, selection: Selection | None) -> None:
    numbers = read_text(array, limit)
    if array.has_dates or any(first_misfit(values, dtype) is not None for values in numbers.tensors()):
        rows = all_rows(numbers.shape[0]) if selection is None else selection
        for _ in selected_blocks(array, dtype, rows, limit):  # finds the first one by row
            pass


def _check_array(array: ArrayFile, dtype: torch.dtype, scan: Scan, limit: int, selection: Selection | None) -> None:
    shape, kind = describe(array, sys.maxsize)
    if not array.has_classes and is_lossless(kind, dtype) and header_of(array).dtype != torch.uint64:
        return
    at_once = shape[1:] if in_order(array) else shape
    if math.prod(at_once) * kind.itemsize > min(_READ_WHOLE, limit):
        return
    for start, values in row_blocks(array, limit):
        if not scan.takes(values.nbytes):
            return
        _check_rows(array, values, start, dtype, selection)


def _check_parquet(array: ArrayFile, dtype: torch.dtype, scan: Scan, selection: Selection | None) -> None:
    lengths = groups_of(array)
    starts = [0, *itertools.accumulate(lengths)]
    if array.has_dates:
        (_, *inner), kind = describe(array)
        for group, length in enumerate(lengths):
            if not scan.takes(length * math.prod(inner) * kind.itemsize):
                return
            _check_rows(array, read_group(array, group), starts[group], dtype, selection)
        return
    doubtful = groups_in_doubt(array.paths, array.columns, array.reading, dtype)
    for groups in _runs(doubtful):
        for part in parquet_parts(array.paths, array.columns, array.reading, groups):
            if not scan.takes(part.values.nbytes):
                return
            _check_part(part, starts[groups.start], dtype, selection, array.reading)


def _runs(numbers: list[int]) -> Iterator[range]:
    """The runs of consecutive numbers in an ascending list."""
    for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        found = [number for _, number in run]
        yield range(found[0], found[-1] + 1)


def _check_rows(array: ArrayFile, values: Tensor, start: int, dtype: torch.dtype, selection: Selection | None) -> None:
    """Check some rows of an array, from number `start` on."""
    if selection is None:
        if array.has_dates or first_misfit(values, dtype) is not None:
            cast(values, dtype, array, range(start, start + len(values)) if values.dim() else None)
        return
    rows = selection.mask(start, start + len(values)).nonzero()[0]
    if len(rows):
        cast(values[torch.from_numpy(rows)], dtype, array, rows + start)


def _check_part(part: Part, first: int, dtype: torch.dtype, selection: Selection | None, reading: Reading) -> None:
    """Check some rows of a column of Parquet files whose first row group begins at row `first`."""
    values = part.values
    found = first_misfit(values, dtype)
    if found is None:
        return
    start = first + part.start
    rows = torch.arange(len(values))
    if selection is not None:
        rows = torch.from_numpy(selection.mask(start, start + len(values))).nonzero()[:, 0]
        found = first_misfit(values[rows], dtype) if len(rows) else None
    if found is not None:
        index, value, reason = found
        at = f" at {list(index[1:])}" if len(index) > 1 else ""
        message = (
            f"{part.file} holds {value} in row {part.first + int(rows[index[0]])}{at} of the column `{part.column}`"
        )
        raise misfit_fault(message, part.column, value, reason, dtype, reading)
