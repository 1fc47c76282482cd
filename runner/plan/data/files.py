"""Data files as tensors: shape and dtype from the header, values on request."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.errors import did_you_mean, listing
from runner.language.dtypes import dtype_name
from runner.language.inference.inference import readable_bytes
from runner.plan.data.arrays import Header, open_npy, open_npz, open_safetensors, read_values
from runner.plan.data.casting import first_misfit
from runner.plan.data.dtypes import WIDENED, Number
from runner.plan.data.sandbox import FileFault, locate, locate_all
from runner.plan.data.tables.cells import Words
from runner.plan.data.tables.columns import Columns
from runner.plan.data.tables.conversions import PLAINLY, Conversion, Reading, unknown_class
from runner.plan.data.tables.dates import moved_date
from runner.plan.data.tables.header import DELIMITERS
from runner.plan.data.tables.parquet import (
    describe_parquet,
    names_in_parquet,
    read_parquet,
)
from runner.plan.data.tables.parquet_files import parquet_names, row_groups
from runner.plan.data.tables.text_cache import read_selection, selection_of, text_names, text_read_once
from runner.plan.data.tables.text_selection import TextColumns, as_tensor, placed
from runner.plan.data.tables.text_table import place_in_text
from runner.plan.data.text_arrays import class_numbers, entry_fault, shape_of_classes, words_of_array
from runner.plan.memory import machine_memory

__all__ = [
    "ArrayFile",
    "CastFault",
    "Columns",
    "FileFault",
    "cast",
    "describe",
    "groups_of",
    "open_array",
    "read",
    "read_group",
    "text_read_once",
    "widened",
]

_OPENERS = {".npy": open_npy, ".npz": open_npz, ".safetensors": open_safetensors}
_SUFFIXES = (*_OPENERS, *DELIMITERS, ".parquet")
_KEYED = re.compile(r"(?P<file>.*\.(?:npz|safetensors))#(?P<key>.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """One array of one or several data files that the config may read."""

    path: Path  # with links resolved
    key: str | None  # the array in a `.npz` or `.safetensors` file
    columns: Columns  # the columns of a table, without globs
    reading: Reading = PLAINLY  # how a table is read, or the classes of an array
    more: tuple[Path, ...] = ()  # further files of a table, whose rows follow

    @property
    def paths(self) -> tuple[Path, ...]:
        return (self.path, *self.more)

    @property
    def suffix(self) -> str:
        return self.path.suffix.lower()

    @property
    def is_text(self) -> bool:
        return self.suffix in DELIMITERS

    @property
    def is_table(self) -> bool:
        return self.is_text or self.suffix == ".parquet"

    @property
    def has_classes(self) -> bool:
        """Whether the entries of an array in a file that is no table are classes."""
        return not self.is_table and bool(self.reading.conversions)

    @property
    def column(self) -> str:
        """The name of an array in a file that is no table, for its classes."""
        return self.reading.conversions[0][0] if self.has_classes else self.key or self.path.name

    @property
    def has_dates(self) -> bool:
        return any(conversion.unit is not None for _, conversion in self.reading.conversions)

    def conversions(self) -> list[Conversion]:
        """The conversion of each column of a table."""
        if self.is_text:
            names = selection_of(self.paths, self.columns, self.reading).chosen
        else:
            names = names_in_parquet(self.paths, self.columns)
        return [self.reading.of(name) for name in names]

    @property
    def name(self) -> str:
        if self.more:
            return f"{self.path.name} and {len(self.more)} more"
        return self.path.name if self.key is None else f"{self.path.name}#{self.key}"


def open_array(
    text: str, folder: Path, allowed: Iterable[Path] = (), columns: Columns = None, reading: Reading = PLAINLY
) -> ArrayFile:
    """The array that a config names, without reading it.

    Args:
        text: for example `data/points.csv`, `part-*.parquet` or `weights.npz#w1`, relative to `folder` or absolute.
        folder: the folder of the config file with the path.
        allowed: additional folders from which reading is allowed.
        columns: the columns of a table: one name, several, or None for all.
        reading: how a table is read.
    Raises:
        FileFault: the file is outside the allowed folders, missing, not an ordinary file, of an unknown type, or of a
            type without a key or columns.
    """
    keyed = _KEYED.fullmatch(text)
    written, key = (keyed["file"], keyed["key"]) if keyed else (text, None)
    suffix = Path(written).suffix.lower()
    if suffix.partition("#")[0] in _SUFFIXES and "#" in suffix:
        raise FileFault(f"a `{suffix.partition('#')[0]}` file has no `#key`", "`columns:` names the columns of a table")
    if suffix not in _SUFFIXES:
        hint = did_you_mean(suffix, _SUFFIXES, f"data files are {listing(_SUFFIXES)}")
        raise FileFault(f"`{text}` is not a supported file type", hint)
    if columns is not None and suffix in _OPENERS:
        hint = "write `#key` after the file's name" if suffix != ".npy" else "remove `columns`"
        raise FileFault(f"a `{suffix}` file has no columns", hint, about_columns=True)
    if suffix in _OPENERS:
        return ArrayFile(locate(written, folder, allowed), key, None)
    first, *more = locate_all(written, folder, allowed)
    return ArrayFile(first, key, columns, reading, tuple(more))


def is_text_name(text: str) -> bool:
    """Whether a path names a text table, by its type."""
    return Path(text).suffix.lower() in DELIMITERS


def is_table_name(text: str) -> bool:
    """Whether a path names a table, by its type."""
    return is_text_name(text) or Path(text).suffix.lower() == ".parquet"


def table_names(array: ArrayFile, limit: int | None = None) -> tuple[str, ...]:
    """The names of the columns of a table, in the order of the file.

    Raises:
        FileFault: a file is malformed, or has other columns than the first.
    """
    if array.is_text:
        _check_size(array, size_of(array), machine_memory() if limit is None else limit)
        return text_names(array.paths, array.reading.dialect)
    return parquet_names(array.paths)


def describe(array: ArrayFile, limit: int | None = None) -> tuple[tuple[int, ...], torch.dtype]:
    """The shape and dtype of an array, from the file's header; a `.csv` or `.tsv` file is read completely.

    Args:
        limit: maximum bytes of the array; the memory of the machine by default.
    Raises:
        FileFault: the file is malformed, truncated, without that key or column, or larger than the limit.
    """
    limit = machine_memory() if limit is None else limit
    if array.suffix in _OPENERS:
        header = header_of(array)
        shape, dtype = header.shape, header.dtype
        if header.text is not None or array.has_classes:
            _check_size(array, header.bytes, limit)
            shape, dtype = shape_of_classes(header, array.reading.of(array.column), array.name)
    elif array.is_text:
        numbers = read_text(array, limit)
        shape, dtype = numbers.shape, numbers.torch_dtype
    else:
        shape, dtype = describe_parquet(array.paths, array.columns, array.reading)
    _check_size(array, math.prod(shape) * dtype.itemsize, limit)
    return shape, WIDENED.get(dtype, dtype)


def read(array: ArrayFile, limit: int | None = None) -> Tensor:
    """The values of an array, contiguous, on the CPU, with the dtype that `describe` returns.

    Raises:
        FileFault: as `describe`, or if values cannot be read.
    """
    limit = machine_memory() if limit is None else limit
    if array.suffix in _OPENERS:
        with open_stream(array) as (header, stream):
            _check_size(array, header.bytes, limit)
            if header.text is not None or array.has_classes:
                return class_numbers(header, stream, array.name, array.reading, array.column)
            tensor = read_values(header, stream, array.name)
    elif array.is_text:
        tensor = as_tensor(read_text(array, limit))
    else:
        shape, dtype = describe_parquet(array.paths, array.columns, array.reading)
        _check_size(array, math.prod(shape) * dtype.itemsize, limit)
        tensor = read_parquet(array.paths, array.columns, array.reading)
    return widened(tensor, array.name)


def open_stream(array: ArrayFile) -> AbstractContextManager[tuple[Header, IO[bytes]]]:
    """Provides the header of an array in a file that is no table, and the stream at its first value.

    Raises:
        FileFault: as `describe`.
    """
    return _OPENERS[array.suffix](array.path, array.key)


def header_of(array: ArrayFile) -> Header:
    """The header of an array in a file that is no table. Raises as `describe`."""
    with open_stream(array) as (header, _):
        return header


def array_words(array: ArrayFile, limit: int | None = None) -> Words:
    """The entries of an array in a file that is no table, as texts.

    Raises:
        FileFault: as `describe`, or it holds neither text nor integers.
    """
    with open_stream(array) as (header, stream):
        _check_size(array, header.bytes, machine_memory() if limit is None else limit)
        return words_of_array(header, stream, array.name)


def groups_of(array: ArrayFile) -> tuple[int, ...]:
    """The number of rows of each row group of Parquet files; empty for other files."""
    return row_groups(array.paths) if array.suffix == ".parquet" else ()


def read_group(array: ArrayFile, group: int) -> Tensor:
    """The values of one row group of Parquet files, counted over all of them. Returns and raises as `read`."""
    return widened(read_parquet(array.paths, array.columns, array.reading, group), array.name)


class CastFault(FileFault):
    """A file has a value that the requested dtype cannot represent."""


def cast(
    values: Tensor, dtype: torch.dtype, array: ArrayFile, rows: Sequence[int] | NDArray[numpy.int64] | None = None
) -> Tensor:
    """Cast values of an array to another dtype, preserving each up to rounding.

    Args:
        values: the values that `read` returns, or some rows of them.
        rows: the numbers of those rows; all rows by default.
    Raises:
        CastFault: the dtype cannot represent a value; the message has its row and column.
    """
    found = first_misfit(values, dtype)
    if found is None:
        rounded = moved_date(values, dtype, array.conversions()) if array.has_dates else None
        if rounded is None:
            return values.to(dtype)
        index, message = rounded
        place = _located(array, (index[0] if rows is None else rows[index[0]], *index[1:]), "a date")
        raise CastFault(f"{place}, {message}", "declare it float64 under `dtype`")
    index, value, reason = found
    if rows is not None:
        index = (rows[index[0]], *index[1:])
    column = _column_of(array, index[1] if len(index) > 1 else 0)
    raise misfit_fault(_located(array, index, str(value)), column, value, reason, dtype, array.reading)


def misfit_fault(
    located: str, column: str | None, value: Number, reason: str, dtype: torch.dtype, reading: Reading
) -> CastFault:
    """The fault of a value that a dtype cannot represent, which the file has, or `fill` puts there.

    Args:
        located: the value and its place in the file.
        column: the column of a table.
    """
    where, hint = located, "write a `dtype` that holds it, or correct the value"
    if column is not None and reading.of(column).fill == value:
        where, hint = f"{located}, from `fill`", "write another `fill`, or a `dtype` that holds it"
    return CastFault(f"{where}, which does not fit {dtype_name(dtype)}: it {reason}", hint)


def _column_of(array: ArrayFile, place: int) -> str | None:
    """The column of the file that a column of a table's array comes from."""
    if array.is_text:
        return column_at(array, selection_of(array.paths, array.columns, array.reading).chosen, place)
    if array.suffix == ".parquet":
        stacked = not isinstance(array.columns, str)
        return column_at(array, names_in_parquet(array.paths, array.columns), place if stacked else 0)
    return None


def _located(array: ArrayFile, index: Sequence[int], shown: str) -> str:
    """A value and its place in a file: "points.csv:3 holds 1.5 in the column `y`"."""
    if array.is_text:
        names = selection_of(array.paths, array.columns, array.reading).chosen
        column = column_at(array, names, index[1] if len(index) > 1 else 0)
        place = place_in_text(array.paths, array.reading.dialect, index[0], column)
        return f"{place.file}:{place.line} holds {shown} in the column `{column}`"
    if not index:
        return f"{array.name} holds {shown}"
    inner = index[1:]
    if array.suffix == ".parquet":
        names = names_in_parquet(array.paths, array.columns)
        stacked = not isinstance(array.columns, str)
        column = column_at(array, names, inner[0] if stacked else 0)
        inner = inner[1:] if stacked else inner
        at = f" at {list(inner)}" if inner else ""
        file, row = _file_of(array, index[0])
        return f"{file} holds {shown} in row {row}{at} of the column `{column}`"
    at = f", column {inner[0]}" if len(inner) == 1 else f" at {list(inner)}" if inner else ""
    return f"{array.name} holds {shown} in row {index[0]}{at}"


def unknown_class_at(array: ArrayFile, column: str, row: int, word: str) -> FileFault:
    """The fault of a text that is not one of the classes of a column, by its row in all files."""
    fault = unknown_class(row, word, column, array.reading)
    if not array.is_table:
        return entry_fault(fault, word, array.name)
    if array.is_text:
        return placed(fault, column, selection_of(array.paths, array.columns, array.reading))
    file, row = _file_of(array, row)
    shown = f"`{word[:40]}`" if word else "nothing"
    message = f"{file} holds {shown} in row {row} of the column `{column}`"
    return FileFault(f"{message}, {fault.reason}" if fault.reason else message, fault.hint, about_columns=True)


def column_at(array: ArrayFile, names: Sequence[str], place: int) -> str:
    """The column of the file that a column of the array comes from."""
    for name in names:
        place -= array.reading.of(name).width or 1
        if place < 0:
            return name
    return names[-1]


def _file_of(array: ArrayFile, row: int) -> tuple[str, int]:
    """The file of a row of Parquet files, and its number there."""
    for path in array.paths:
        rows = sum(row_groups([path]))
        if row < rows:
            return path.name, row
        row -= rows
    return array.name, row


def read_text(array: ArrayFile, limit: int) -> TextColumns:
    """The numbers of a text table, column by column. Raises as `describe`."""
    _check_size(array, size_of(array), limit)
    return read_selection(selection_of(array.paths, array.columns, array.reading), limit)


def size_of(array: ArrayFile) -> int:
    """Bytes of the files of an array."""
    return sum(path.stat().st_size for path in array.paths)


def _check_size(array: ArrayFile, size: int, limit: int) -> None:
    if size > limit:
        message = f"{array.name} needs {readable_bytes(size)}, and the limit is {readable_bytes(limit)}"
        raise FileFault(message, "use a smaller file, or a machine with more memory")


def widened(tensor: Tensor, name: str) -> Tensor:
    """Make a tensor contiguous, and convert unsigned integers of 16 bits or more to int64.

    Raises:
        FileFault: one of the integers is 2^63 or more.
    """
    wide = WIDENED.get(tensor.dtype)
    if wide is None:
        return tensor.contiguous()
    if tensor.dtype == torch.uint64 and bool((tensor.view(torch.int64) < 0).any()):
        message = f"{name} holds unsigned integers of 2^63 or more, which int64 cannot represent"
        raise FileFault(message, "save them as float64")
    return tensor.to(wide)
