"""Selections of columns of text tables as one tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch import Tensor

from runner.plan.data.sandbox import FileFault
from runner.plan.data.tables.cells import Array, Numbers
from runner.plan.data.tables.columns import Columns, check_alike
from runner.plan.data.tables.conversions import CellFault, Reading, as_floating, converted, missing_integer
from runner.plan.data.tables.text_table import Found, Key, first_inexact, inexact_at, place_in_text

LONG = 1 << 12
"""The least rows of columns that are looked at one by one: each torch operation has a cost of its own."""


@dataclass(frozen=True, slots=True)
class TextSelection:
    """Some columns of one or several text tables."""

    paths: tuple[Path, ...]
    columns: Columns
    chosen: tuple[str, ...]  # the names that `columns` selects
    reading: Reading

    def keys(self) -> tuple[Key, ...]:
        return tuple((name, self.reading.of(name).of_text) for name in self.chosen)


@dataclass(frozen=True, slots=True)
class TextColumns:
    """The numbers of a selection, column by column, before they are joined."""

    columns: tuple[Numbers, ...]  # no number is missing, unless it is NaN
    dtype: numpy.dtype[numpy.generic]  # of all together
    shape: tuple[int, ...]  # `(rows)` for one column, `(rows, columns)` for a list

    @property
    def torch_dtype(self) -> torch.dtype:
        return torch.from_numpy(numpy.empty(0, dtype=self.dtype)).dtype

    def tensors(self) -> Iterator[Tensor]:
        """Yields all numbers: long columns one by one, without a copy, and short ones together."""
        if self.shape[0] < LONG:
            return iter((as_tensor(self),))
        return (_writable(column.values) for column in self.columns)


def numbers_of_columns(selection: TextSelection, found: Mapping[Key, Found], start: int = 0) -> TextColumns:
    """The numbers of a selection: int64, bool or float64. A column may become several.

    Args:
        start: the row that the cells begin with.
    Raises:
        FileFault: a cell has no number, or the columns have no common dtype.
    """
    columns = [
        _numbers(name, found[key], selection, start)
        for name, key in zip(selection.chosen, selection.keys(), strict=True)
    ]
    kinds = [
        numpy.dtype(numpy.float32) if selection.reading.of(name).one_hot else column.values.dtype
        for name, column in zip(selection.chosen, columns, strict=True)
    ]
    floating = selection.reading.floating or any(kind.kind == "f" for kind in kinds)
    for place, (name, column) in enumerate(zip(selection.chosen, columns, strict=True)):
        fault = missing_integer(column, name)
        if fault is None:
            continue
        if not floating:
            raise placed(fault, name, selection, start)
        _check_exact(name, column, selection, start)
        columns[place] = as_floating(column)
        kinds[place] = numpy.dtype(numpy.float64)
    rows = len(columns[0].values)
    if isinstance(selection.columns, str):
        return TextColumns((columns[0],), kinds[0], columns[0].values.shape)
    check_alike([kind == numpy.bool_ for kind in kinds], selection.chosen, selection.paths[0].name)
    dtype = numpy.result_type(*set(kinds))
    if dtype.kind == "f":
        for name, column in zip(selection.chosen, columns, strict=True):
            _check_exact(name, column, selection, start)
    return TextColumns(tuple(columns), dtype, (rows, sum(map(_width, columns))))


def as_tensor(numbers: TextColumns) -> Tensor:
    """The numbers of a selection; columns that become several have them next to each other."""
    if len(numbers.shape) == 1 or numbers.columns[0].values.shape == numbers.shape:
        return _writable(numbers.columns[0].values.astype(numbers.dtype, copy=False))
    result: Array = numpy.empty(numbers.shape, dtype=numbers.dtype)
    start = 0
    for column in numbers.columns:
        width = _width(column)
        result[:, start : start + width] = column.values.reshape(-1, width)
        start += width
    return torch.from_numpy(result)


def _width(column: Numbers) -> int:
    return 1 if column.values.ndim == 1 else column.values.shape[1]


def _writable(values: Array) -> Tensor:
    """The tensor of an array, without a copy if torch allows it."""
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def _numbers(name: str, cells: Found, selection: TextSelection, start: int) -> Numbers:
    if isinstance(cells, FileFault):
        raise cells
    try:
        return converted(cells, name, selection.reading)
    except CellFault as fault:
        raise placed(fault, name, selection, start) from fault


def _check_exact(name: str, column: Numbers, selection: TextSelection, start: int) -> None:
    row = first_inexact(column.values)
    if row is not None:
        raise inexact_at(selection.paths, selection.reading.dialect, start + row, name)


def placed(fault: CellFault, column: str, selection: TextSelection, start: int = 0) -> FileFault:
    """The fault of a cell with its file, line and text; its row counts from `start`."""
    place = place_in_text(selection.paths, selection.reading.dialect, start + fault.row, column)
    if not fault.reason:
        message = f"{place.file}:{place.line} holds nothing in the column `{column}`"
    else:
        shown = f"`{place.text[:40]}`" if place.text else "nothing"
        at = "" if f"`{column}`" in fault.reason else f" in the column `{column}`"
        message = f"{place.file}:{place.line} holds {shown}, {fault.reason}{at}"
    return FileFault(message, fault.hint, about_columns=True)
