"""The classes and groups of rows, numbered by the values of a column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy

from runner.plan.data.sandbox import FileFault
from runner.plan.data.selection.cells import Kind, Table
from runner.plan.data.selection.order import Integers
from runner.plan.data.selection.selection import Selection


@dataclass(frozen=True, slots=True)
class Labels:
    """The values of a column of the selected rows, numbered in ascending order; text by code point."""

    names: tuple[str, ...]
    numbers: Integers  # of each row


def labels_of(table: Table, column: str, kind: Kind, selection: Selection) -> Labels:
    """The labels of the selected rows.

    Raises:
        FileFault: a cell is missing, or the file cannot be read.
    """
    found: dict[Any, int] = {}
    numbers = numpy.empty(selection.samples, dtype=numpy.int64)
    row = sample = 0
    for block in table.blocks([column]):
        cells = block[column]
        mask = selection.mask(row, row + len(cells.missing))
        if bool((cells.absent & mask).any()):
            at = row + int((cells.absent & mask).argmax())
            message = f"{table.file} has no value in row {at} of the column `{column}`"
            raise FileFault(message, f'fill it, or leave such rows out with `where: column("{column}") is not missing`')
        values = cells.values[mask]
        if kind == "text":
            codes = numpy.array([found.setdefault(value, len(found)) for value in values.tolist()], dtype=numpy.int64)
        else:
            distinct, inverse = numpy.unique(values, return_inverse=True)
            own = [found.setdefault(value, len(found)) for value in distinct.tolist()]
            codes = numpy.array(own, dtype=numpy.int64)[inverse]
        numbers[sample : sample + len(values)] = codes
        sample += len(values)
        row += len(mask)
    ranked = sorted(found)
    places = numpy.empty(len(found), dtype=numpy.int64)
    places[[found[value] for value in ranked]] = numpy.arange(len(found))
    return Labels(tuple(map(_name, ranked)), places[numbers])


def _name(value: object) -> str:
    return repr(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
