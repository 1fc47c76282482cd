"""The samples of text tables for a trained run, in blocks: a table may be larger than memory."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pyarrow
from torch import Tensor

from runner.config import DataDeclaration, Dialect, Document
from runner.engine.data.samples import ColumnFault
from runner.faults import ConfigPath
from runner.plan.data.files import ArrayFile, FileFault
from runner.plan.data.reading.source_tables import SourceTable, source_table
from runner.plan.data.sources import BatchColumn
from runner.plan.data.tables.cells import Words
from runner.plan.data.tables.text_cache import selection_of
from runner.plan.data.tables.text_selection import TextSelection, as_tensor, numbers_of_columns
from runner.plan.data.tables.text_table import Found, MixedKinds, text_blocks
from runner.record.apply.columns import ColumnOfRun

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_SAMPLED_BYTES = 1 << 20
_ANY_SIZE = 1 << 62


def text_columns_of(
    source: str,
    declared: DataDeclaration,
    columns: Mapping[str, ColumnOfRun],
    document: Document,
    folders: Iterable[Path],
) -> tuple[BatchColumn, ...] | None:
    """The batch columns of a text table from its header alone; None if planning must read it.

    Args:
        columns: the columns of the run, which have the dtypes.
    Raises:
        PlacedFault: the table cannot be read, or lacks a column.
    """
    if not declared.columns or not all(name in columns for name in declared.columns):
        return None
    table = source_table(source, declared, document, folders, _ANY_SIZE)
    if table is None or not table.array.is_text:
        return None
    return tuple(_column(table, name, columns[name], ("data", source, "columns", name)) for name in declared.columns)


def _column(table: SourceTable, name: str, of_run: ColumnOfRun, path: ConfigPath) -> BatchColumn:
    reading = table.reading(name, declared_dtype(of_run))
    array = table.array_of(name, reading)
    names = selection_of(array.paths, array.columns, reading).chosen
    widths = [reading.of(column).width for column in names]
    alone = isinstance(array.columns, str)
    shape = () if alone and widths[0] is None else (sum(width or 1 for width in widths),)
    return BatchColumn(name, array, shape, of_run.dtype, path, path, 0)


def declared_dtype(column: ColumnOfRun) -> str:
    """The dtype of a column as a config writes it."""
    return str(column.dtype).removeprefix("torch.")


def rows_about(array: ArrayFile) -> int:
    """About how many rows a text table has, by the length of its first lines."""
    with array.path.open("rb") as file:
        start = file.read(_SAMPLED_BYTES)
    size = sum(path.stat().st_size for path in array.paths)
    return max(1, round(size * start.count(b"\n") / max(1, len(start))))


@dataclass(frozen=True, slots=True)
class TextBlock:
    """Consecutive rows of a text table."""

    start: int
    values: tuple[Tensor, ...]  # of each batch column, before any cast
    others: Any  # an Arrow record batch of the columns to copy, or None


def text_sample_blocks(columns: Sequence[BatchColumn], others: Sequence[str]) -> Iterator[TextBlock]:
    """Yields the rows of a text table in blocks of some MiB of its text.

    A copied column is int64 if every cell is an integer without leading zeros, otherwise text without outer blanks.

    Args:
        columns: batch columns of the same table.
        others: columns to copy.
    Raises:
        FileFault: the table cannot be read.
        ColumnFault: a cell has no number.
    """
    paths, dialect = columns[0].array.paths, columns[0].array.reading.dialect
    selections = [selection_of(paths, column.array.columns, column.array.reading) for column in columns]
    copied = [(name, True) for name in others]
    integers = _integers(paths, dialect, copied)
    wanted = dict.fromkeys(itertools.chain.from_iterable(selection.keys() for selection in selections))
    mixed = MixedKinds(paths)
    start = 0
    for _, found, rows in text_blocks(paths, dialect, [*wanted, *copied]):
        mixed.check(found)
        pairs = zip(columns, selections, strict=True)
        values = tuple(_numbers(column, selection, found, start) for column, selection in pairs)
        batch = None
        if copied:
            texts = [_copied(found[key], key[0] in integers) for key in copied]
            batch = pyarrow.RecordBatch.from_arrays(texts, list(others))
        yield TextBlock(start, values, batch)
        start += rows
    if not start:
        what = "has a header and no rows" if dialect.header is True else "has no rows"
        raise FileFault(f"{paths[0].name} {what}", "add rows")


def _numbers(
    column: BatchColumn, selection: TextSelection, found: Mapping[tuple[str, bool], Found], start: int
) -> Tensor:
    try:
        return as_tensor(numbers_of_columns(selection, found, start))
    except FileFault as fault:
        raise ColumnFault(fault, column) from fault


def _integers(paths: tuple[Path, ...], dialect: Dialect, copied: Sequence[tuple[str, bool]]) -> set[str]:
    """The columns to copy as integers: one more pass, because a file has one type for each column."""
    left = {key[0] for key in copied}
    if left:
        for _, found, _ in text_blocks(paths, dialect, copied):
            left = {name for name in left if all(map(_INTEGER.fullmatch, _words(found[name, True]).words))}
            if not left:
                break
    return left


def _copied(found: Found, integers: bool) -> Any:
    cells = _words(found)
    words = pyarrow.array(list(map(int, cells.words)) if integers else list(cells.words))
    return words.take(pyarrow.array(cells.codes.astype(numpy.int64)))


def _words(found: Found) -> Words:
    assert isinstance(found, Words)
    return found
