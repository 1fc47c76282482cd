"""Opens the columns that a `select` may name: those of a table, or the 1-d arrays of a file of arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import torch

from runner.plan.data.arrays import names_of
from runner.plan.data.files import ArrayFile, FileFault, array_words, describe, header_of, read, table_names
from runner.plan.data.raw_columns import ROWS_AT_ONCE, raw_blocks
from runner.plan.data.selection.cells import Blocks, Cells, Kind, Table, cells_of_numbers
from runner.plan.data.tables.cells import BLANK
from runner.plan.data.tables.parquet_files import parquet_kinds


def open_table(arrays: Mapping[str, ArrayFile], shared: bool, rows: int, limit: int) -> Table:
    """The columns that may be named in the `select` of a source.

    Args:
        arrays: the array of each batch column.
        shared: whether all are in one file; otherwise the names are those of the batch columns.
        rows: the number of rows.
        limit: maximum bytes of one column in memory.
    Raises:
        FileFault: the file cannot be read.
    """
    first = next(iter(arrays.values()))
    if not shared:
        return _of_arrays("this source", arrays, rows, limit)
    if first.is_table:
        return _of_table(first, rows, limit)
    keys = names_of(first.path)
    return _of_arrays(first.path.name, {key: ArrayFile(first.path, key, None) for key in keys}, rows, limit)


def column_bound_to(array: ArrayFile, name: str, shared: bool) -> str | None:
    """The name in the table of a batch column; None if it is not one column."""
    if not shared:
        return name
    if array.is_table:
        return array.columns if isinstance(array.columns, str) else None
    return array.key


def _of_arrays(file: str, arrays: Mapping[str, ArrayFile], rows: int, limit: int) -> Table:
    def kind(name: str) -> Kind:
        header = header_of(arrays[name])
        if header.text is not None and header.shape == (rows,):
            return "text"
        shape, dtype = describe(arrays[name], limit)
        if tuple(shape) != (rows,) or dtype.is_complex:
            held = "complex numbers" if dtype.is_complex else f"the shape {tuple(shape)}"
            message = f"`{name}` has {held}, and rows are selected by arrays of shape ({rows},)"
            raise FileFault(message, "name an array with one number for each row")
        return "boolean" if dtype == torch.bool else "number"

    def blocks(names: Sequence[str]) -> Blocks:
        values = {name: _values(arrays[name], limit) for name in names}
        for start in range(0, rows, ROWS_AT_ONCE):
            yield {name: _cells(found[start : start + ROWS_AT_ONCE]) for name, found in values.items()}

    return Table(file, tuple(arrays), rows, kind, blocks)


def _values(array: ArrayFile, limit: int) -> Any:
    if header_of(array).text is not None:
        cells = array_words(array, limit)
        return numpy.array(cells.words, dtype=object)[cells.codes]
    values = read(array, limit)
    return (values.float() if values.dtype.is_floating_point and values.dtype.itemsize < 4 else values).numpy()


def _of_table(array: ArrayFile, rows: int, limit: int) -> Table:
    names = table_names(array, limit)
    kinds: dict[str, Kind] = {}

    def kind(name: str) -> Kind:
        if name not in kinds:
            kinds[name] = _kind_of(array, name, limit)
        return kinds[name]

    def blocks(wanted: Sequence[str]) -> Blocks:
        for block in raw_blocks(array, wanted, limit):
            cells = {name: _blank(values) if kind(name) == "text" else values for name, values in block.items()}
            yield {name: _cells(values, array.reading.dialect.missing) for name, values in cells.items()}

    return Table(array.path.name, names, rows, kind, blocks)


def _kind_of(array: ArrayFile, name: str, limit: int) -> Kind:
    """The kind of a column, which is the same in all files of a table; one of nulls alone has any kind."""
    if array.is_text:
        first = next(raw_blocks(array, [name], limit))[name]
        return "text" if first.dtype == object else "boolean" if first.dtype == bool else "number"
    found: tuple[Kind, str, str] | None = None
    for file, kind, stored in parquet_kinds(array.paths, name):
        if kind is None:
            continue
        if found is not None and found[0] != kind:
            message = f"the column `{name}` of {file} holds {stored}, and that of {found[1]} {found[2]}"
            raise FileFault(message, "give the files of a source the same dtypes")
        found = found or (kind, file, stored)
    return "number" if found is None else found[0]


def _blank(values: Any) -> Any:
    """The cells of a column of text; those of a file with nulls alone were read as numbers."""
    return values if values.dtype == object else numpy.full(len(values), BLANK, dtype=object)


def _cells(values: Any, absent: Sequence[str] = ()) -> Cells:
    if values.dtype != object:
        return cells_of_numbers(values)
    listed = [numpy.asarray(values == text, dtype=bool) for text in absent if text != BLANK]
    return Cells(values, numpy.asarray(values == BLANK, dtype=bool), numpy.any(listed, 0) if listed else None)
