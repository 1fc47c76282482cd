"""Selections of columns of text tables as one tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class TextSelection:
    """Some columns of one or several text tables."""

    paths: tuple[Path, ...]
    columns: Columns
    chosen: tuple[str, ...]  # the names that `columns` selects
    reading: Reading

    def keys(self) -> tuple[Key, ...]:
        return tuple((name, self.reading.of(name).of_text) for name in self.chosen)


def as_tensor(selection: TextSelection, found: Mapping[Key, Found]) -> Tensor:
    """The numbers of a selection: int64, bool or float64, `(rows)` for one column, `(rows, columns)` for a list.

    A column that becomes several has them next to each other.

    Raises:
        FileFault: a cell has no number, or the columns have no common dtype.
    """
    columns = [
        _numbers(name, found[key], selection) for name, key in zip(selection.chosen, selection.keys(), strict=True)
    ]
    one_hot = [selection.reading.of(name).one_hot for name in selection.chosen]
    kinds = [
        numpy.dtype(numpy.float32) if hot else column.values.dtype for column, hot in zip(columns, one_hot, strict=True)
    ]
    floating = selection.reading.floating or any(kind.kind == "f" for kind in kinds)
    for place, (name, column) in enumerate(zip(selection.chosen, columns, strict=True)):
        fault = missing_integer(column, name)
        if fault is None:
            continue
        if not floating:
            raise placed(fault, name, selection)
        _check_exact(name, column, selection)
        columns[place] = as_floating(column)
        kinds[place] = numpy.dtype(numpy.float64)
    if isinstance(selection.columns, str):
        only = columns[0].values
        return torch.from_numpy(only.astype(kinds[0], copy=not only.flags.writeable))
    check_alike([kind == numpy.bool_ for kind in kinds], selection.chosen, selection.paths[0].name)
    return torch.from_numpy(_stacked(selection, columns, numpy.result_type(*set(kinds))))


def _numbers(name: str, cells: Found, selection: TextSelection) -> Numbers:
    if isinstance(cells, FileFault):
        raise cells
    try:
        return converted(cells, name, selection.reading)
    except CellFault as fault:
        raise placed(fault, name, selection) from fault


def _stacked(selection: TextSelection, columns: Sequence[Numbers], dtype: numpy.dtype[numpy.generic]) -> Array:
    widths = [selection.reading.of(name).width or 1 for name in selection.chosen]
    result: Array = numpy.empty((len(columns[0].values), sum(widths)), dtype=dtype)
    start = 0
    for name, column, width in zip(selection.chosen, columns, widths, strict=True):
        if dtype.kind == "f":
            _check_exact(name, column, selection)
        result[:, start : start + width] = column.values.reshape(-1, width)
        start += width
    return result


def _check_exact(name: str, column: Numbers, selection: TextSelection) -> None:
    row = first_inexact(column.values)
    if row is not None:
        raise inexact_at(selection.paths, selection.reading.dialect, row, name)


def placed(fault: CellFault, column: str, selection: TextSelection) -> FileFault:
    """The fault of a cell with its file, line and text."""
    place = place_in_text(selection.paths, selection.reading.dialect, fault.row, column)
    if not fault.reason:
        message = f"{place.file}:{place.line} holds nothing in the column `{column}`"
    else:
        shown = f"`{place.text[:40]}`" if place.text else "nothing"
        at = "" if f"`{column}`" in fault.reason else f" in the column `{column}`"
        message = f"{place.file}:{place.line} holds {shown}, {fault.reason}{at}"
    return FileFault(message, fault.hint, about_columns=True)
