"""The cells of a named column of a table as numpy, before any conversion: for selecting rows, groups and strata."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import numpy

from runner.plan.data.files import ArrayFile
from runner.plan.data.sandbox import FileFault
from runner.plan.data.tables.cells import Array, Numbers, Words
from runner.plan.data.tables.columns import chosen_of
from runner.plan.data.tables.conversions import as_floating
from runner.plan.data.tables.parquet import column_parts
from runner.plan.data.tables.parquet_cells import is_plain_text, numbers_in, words_in
from runner.plan.data.tables.text_cache import text_columns, text_names
from runner.plan.data.tables.text_table import first_inexact

ROWS_AT_ONCE = 1 << 16


def raw_column(array: ArrayFile, name: str, limit: int | None = None) -> Array:
    """The cells of a column of all files of a table, in their order.

    Numbers are int64, bool or float64, with NaN for missing numbers; text is an array of `str` objects, stripped.

    Args:
        array: any array of the table; its dialect counts, and its columns do not.
        limit: maximum bytes that reading may need.
    Raises:
        FileFault: there is no such column, or the files are malformed.
    """
    return numpy.concatenate([block[name] for block in raw_blocks(array, [name], limit)])


def raw_blocks(array: ArrayFile, names: Sequence[str], limit: int | None = None) -> Iterator[dict[str, Array]]:
    """Yields the cells of columns, some rows at a time. A Parquet file is not held in memory. As `raw_column`."""
    for file, start, found in cell_blocks(array, names, limit):
        yield {name: _array(cells, file, name, start) for name, cells in found.items()}


def cell_blocks(
    array: ArrayFile, names: Sequence[str], limit: int | None = None
) -> Iterator[tuple[str, int, dict[str, Numbers | Words]]]:
    """Yields the cells of columns, after the name of their file and the number of the first row. As `raw_blocks`."""
    if array.is_text:
        yield from _text_blocks(array, names, sys.maxsize if limit is None else limit)
        return
    if not array.is_table:
        raise FileFault(f"{array.name} is no table", "name a .csv, .tsv or .parquet file")
    for path in array.paths:
        for start, found in column_parts(path, names):
            yield path.name, start, {name: _cells(cells, path.name, name, start) for name, cells in found.items()}


def _text_blocks(
    array: ArrayFile, names: Sequence[str], limit: int
) -> Iterator[tuple[str, int, dict[str, Numbers | Words]]]:
    dialect = array.reading.dialect
    chosen_of(tuple(names), text_names(array.paths, dialect), array.path.name)
    found = text_columns(array.paths, dialect, [(name, False) for name in names], limit)
    texts = [(name, True) for name in names if isinstance(found[name, False], FileFault)]
    found |= text_columns(array.paths, dialect, texts, limit) if texts else {}
    columns = {name: found.get((name, True), found[name, False]) for name in names}
    first = next(iter(columns.values()))
    rows = len(first.codes if isinstance(first, Words) else first.values)  # type: ignore[union-attr]
    for start in range(0, rows, ROWS_AT_ONCE):
        here = slice(start, min(start + ROWS_AT_ONCE, rows))
        yield array.name, start, {name: _cut(cells, here) for name, cells in columns.items()}


def _cut(cells: Numbers | Words | FileFault, here: slice) -> Numbers | Words:
    assert not isinstance(cells, FileFault)
    if isinstance(cells, Words):
        return Words(cells.codes[here], cells.words)
    return Numbers(cells.values[here], None if cells.missing is None else cells.missing[here])


def _cells(array: object, file: str, column: str, start: int) -> Numbers | Words:
    import pyarrow

    kind = array.type  # type: ignore[attr-defined]
    if is_plain_text(kind) or pyarrow.types.is_temporal(kind):
        return words_in(array, file, column)
    return numbers_in(array, file, column, start)


def _array(cells: Numbers | Words, file: str, column: str, start: int) -> Array:
    if isinstance(cells, Words):
        return numpy.array(cells.words, dtype=object)[cells.codes]
    if cells.missing is None or not cells.missing.any():
        return cells.values
    row = first_inexact(cells.values)
    if row is not None:
        message = f"{file} holds {cells.values[row]} in row {start + row} of the column `{column}` beside missing cells"
        raise FileFault(
            f"{message}: float64 cannot represent it exactly", "fill the missing cells, or save the column as text"
        )
    return as_floating(cells).values
