"""The samples of a data source, in memory or read from its files in parts."""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from runner.plan.data.files import CastFault, FileFault, cast, describe, read, read_group
from runner.plan.data.row_files import Rows
from runner.plan.data.selection.order import Integers
from runner.plan.data.selection.selected_rows import selected_blocks
from runner.plan.data.sources import BatchColumn, SourcePlan

Batch = dict[str, Tensor]


class Samples(Protocol):
    """Samples by index, from 0. Every column is on the CPU, in the dtype of its batches."""

    def between(self, start: int, end: int) -> Batch:
        """Returns samples `start` to `end - 1`."""
        ...

    def at(self, chosen: Tensor) -> Batch:
        """Returns the samples at the given indices, in that order."""
        ...

    def first_nan(self) -> Iterator[tuple[str, int]]:
        """Yields each in-memory column that contains NaN, with its first such sample."""
        ...


def open_samples(plan: SourcePlan) -> Samples:
    """Opens the samples of a source.

    Raises:
        FileFault: a file cannot be read, or has changed since planning.
    """
    if not plan.streams:
        return MemorySamples(plan)
    return GroupedSamples(plan) if plan.groups else RowSamples(plan)


class MemorySamples:
    """Columns that are entirely in memory. Batches of an unshuffled pass are views of them."""

    __slots__ = ("_columns", "_take")

    def __init__(self, plan: SourcePlan) -> None:
        self._columns: Batch = {}
        self._take: dict[str, Callable[[Tensor], Tensor]] = {}
        for column in plan.columns:
            self._columns[column.name] = values = _whole(plan, column) if plan.is_whole else _selected(plan, column)
            self._take[column.name] = _taking(values)

    def between(self, start: int, end: int) -> Batch:
        return {name: column[start:end] for name, column in self._columns.items()}

    def at(self, chosen: Tensor) -> Batch:
        return {name: take(chosen) for name, take in self._take.items()}

    def lacks(self, column: str, value: int) -> bool:
        """Whether no sample of a column has a value."""
        return not bool((self._columns[column] == value).any())

    def first_nan(self) -> Iterator[tuple[str, int]]:
        for name, column in self._columns.items():
            floating = column.is_floating_point() and column.dtype.itemsize > 1
            if (floating or column.is_complex()) and bool(torch.isnan(column.sum())):  # infinities give NaN, too
                found = column.isnan().reshape(len(column), -1).any(1)
                if bool(found.any()):
                    yield name, int(found.nonzero()[0])


def _whole(plan: SourcePlan, column: BatchColumn) -> Tensor:
    values = read(column.array)
    _check_shape(values.shape, column, plan.rows)
    return _cast(values, column)


def _selected(plan: SourcePlan, column: BatchColumn) -> Tensor:
    _check_shape(describe(column.array)[0], column, plan.rows)
    values = torch.empty((plan.samples, *column.shape), dtype=column.dtype)
    filled = 0
    try:
        for block in selected_blocks(column.array, column.dtype, plan.selection):
            values[filled : filled + len(block)] = block
            filled += len(block)
    except CastFault as fault:
        raise ColumnFault(fault, column) from fault
    return values


_INDEXED = frozenset({torch.uint16, torch.uint32, torch.uint64})
"""Dtypes that `index_select` does not support. `column[chosen]` does, at twice the cost."""


def _taking(column: Tensor) -> Callable[[Tensor], Tensor]:
    """Returns a function that selects samples of a column by index."""
    return column.__getitem__ if column.dtype in _INDEXED else functools.partial(torch.index_select, column, 0)


class RowSamples:
    """Columns of files with contiguous rows. Each batch is read when it is drawn."""

    __slots__ = ("_columns", "_rows", "_selection")

    def __init__(self, plan: SourcePlan) -> None:
        self._columns = plan.columns
        self._selection = plan.selection
        self._rows = [Rows(column.array) for column in plan.columns]
        for column, rows in zip(self._columns, self._rows, strict=True):
            _check_shape(rows.shape, column, plan.rows)

    def between(self, start: int, end: int) -> Batch:
        if not self._selection.is_range:
            return self._at(self._selection.between(start, end))
        start, end = start + self._selection.start, end + self._selection.start
        pairs = zip(self._columns, self._rows, strict=True)
        return {column.name: _cast(rows.between(start, end), column, range(start, end)) for column, rows in pairs}

    def at(self, chosen: Tensor) -> Batch:
        return self._at(self._selection.of(chosen.numpy()))

    def _at(self, positions: Integers) -> Batch:
        pairs = zip(self._columns, self._rows, strict=True)
        return {column.name: _cast(rows.at(positions), column, positions) for column, rows in pairs}

    def first_nan(self) -> Iterator[tuple[str, int]]:
        return iter(())


class GroupedSamples:
    """Columns of one Parquet file. One row group at a time is in memory."""

    __slots__ = ("_columns", "_ends", "_group", "_loaded", "_selection")

    def __init__(self, plan: SourcePlan) -> None:
        self._columns = plan.columns
        self._selection = plan.selection
        self._ends = list(itertools.accumulate(plan.row_groups))
        self._group = -1
        self._loaded: Batch = {}

    def between(self, start: int, end: int) -> Batch:
        return self._gathered(self._selection.between(start, end).tolist())

    def at(self, chosen: Tensor) -> Batch:
        return self._gathered(self._selection.of(chosen.numpy()).tolist())

    def first_nan(self) -> Iterator[tuple[str, int]]:
        return iter(())

    def _gathered(self, positions: Sequence[int]) -> Batch:
        parts: list[Batch] = []
        for group, inside in itertools.groupby(positions, lambda position: bisect.bisect_right(self._ends, position)):
            columns, first = self._load(group), self._ends[group - 1] if group else 0
            at = torch.tensor([position - first for position in inside])
            parts.append({name: column[at] for name, column in columns.items()})
        return {column.name: torch.cat([part[column.name] for part in parts]) for column in self._columns}

    def _load(self, group: int) -> Batch:
        if group != self._group:
            self._loaded = {}  # frees the last group before the next is read
            first = self._ends[group - 1] if group else 0
            length = self._ends[group] - first
            for column in self._columns:
                values = read_group(column.array, group)
                _check_shape(values.shape, column, length)
                self._loaded[column.name] = _cast(values, column, range(first, first + length))
            self._group = group
        return self._loaded


class ColumnFault(CastFault):
    """A value of its file cannot be one of a batch column."""

    def __init__(self, fault: FileFault, column: BatchColumn) -> None:
        super().__init__(fault.message, fault.hint)
        self.path = column.dtype_path


def _cast(values: Tensor, column: BatchColumn, rows: Sequence[int] | Integers | None = None) -> Tensor:
    try:
        return cast(values, column.dtype, column.array, rows)
    except CastFault as fault:
        raise ColumnFault(fault, column) from fault


def _check_shape(shape: Sequence[int], column: BatchColumn, samples: int) -> None:
    if tuple(shape) != (samples, *column.shape):
        message = f"{column.array.name} has shape {tuple(shape)}, which differs from its shape when the run was planned"
        raise FileFault(message, "do not change data files during a run")
