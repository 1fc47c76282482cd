"""Tables: the selection of columns, and numeric columns of `.parquet` files."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from runner.errors import did_you_mean, listing
from runner.language.dtypes import dtype_name
from runner.plan.data.casting import first_misfit
from runner.plan.data.dtypes import WIDENED
from runner.plan.data.sandbox import FileFault, open_ordinary

_REWRITE = "write the file again"

Columns = str | tuple[str, ...] | None
"""A selection of columns: one, several to stack along a new last dimension, or None for all."""

ROWS_AT_ONCE = 1 << 16
"""Rows of a Parquet file to decode at a time."""


def describe_parquet(path: Path, columns: Columns) -> tuple[tuple[int, ...], torch.dtype]:
    """The shape and dtype of columns of a Parquet file, from its footer."""
    with _parquet(path) as (parquet, name):
        layout = _layout(parquet, columns, name)
        if parquet.metadata.num_rows < 0:
            raise FileFault(f"{name} is not a valid Parquet file: its footer counts no rows", _REWRITE)
        return (parquet.metadata.num_rows, *layout.shape), layout.dtype


def row_groups(path: Path) -> tuple[int, ...]:
    """The number of rows of each row group of a Parquet file."""
    with _parquet(path) as (parquet, _):
        metadata = parquet.metadata
        return tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))


def read_parquet(path: Path, columns: Columns, group: int | None = None) -> Tensor:
    """Read columns of a Parquet file: `(rows, *shape)` for one, `(rows, columns, *shape)` for a list.

    With `group`, reads only that row group. Besides the result, at most `ROWS_AT_ONCE` rows are in memory at a time.

    Raises:
        FileFault: the file is malformed, a column is missing, not numeric or has nulls, or the common dtype of several
            columns cannot represent a number.
    """
    with _parquet(path) as (parquet, name):
        layout, metadata = _layout(parquet, columns, name), parquet.metadata
        rows = metadata.num_rows if group is None else metadata.row_group(group).num_rows
        result = torch.empty((rows, *layout.shape), dtype=layout.dtype)
        targets = (result,) if isinstance(columns, str) else result.unbind(1)
        groups = range(metadata.num_row_groups) if group is None else [group]
        before = sum(metadata.row_group(earlier).num_rows for earlier in range(group or 0))
        for column, target in zip(layout.columns, targets, strict=True):
            start = 0
            for batch in parquet.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=[column]):
                if start + len(batch) > rows:
                    raise FileFault(f"{name} is not a valid Parquet file: its footer counts {rows:,} rows", _REWRITE)
                values = _arrow_values(batch.column(0), name, column, before + start)
                values = values.reshape(len(batch), *target.shape[1:])
                _check_fits(values, layout.dtype, name, column, before + start)
                target[start : start + len(batch)] = values
                start += len(batch)
            if start != rows:
                raise FileFault(f"{name} is not a valid Parquet file: `{column}` has {start:,} rows", _REWRITE)
    return result


def parquet_blocks(
    path: Path, selections: Sequence[Columns], others: Sequence[str] = (), rows: int = ROWS_AT_ONCE
) -> Iterator[tuple[list[Tensor], Any]]:
    """Yield the rows of a Parquet file in blocks, all columns in one pass.

    Args:
        selections: the numeric columns of each tensor, as in `read_parquet`.
        others: columns to yield as they are.
        rows: the largest number of rows in a block.
    Yields:
        a tensor for each selection, and an Arrow record batch with the columns `others`.
    Raises:
        FileFault: as `read_parquet`.
    """
    with _parquet(path) as (parquet, name):
        layouts = [_layout(parquet, columns, name) for columns in selections]
        copied = chosen_of(tuple(others), parquet.schema_arrow.names, name) if others else ()
        wanted = list(dict.fromkeys([column for layout in layouts for column in layout.columns] + list(copied)))
        start = 0
        for batch in parquet.iter_batches(rows, columns=wanted):
            tensors = [
                _block(batch, layout, isinstance(columns, str), name, start)
                for layout, columns in zip(layouts, selections, strict=True)
            ]
            yield tensors, batch.select(list(copied))
            start += len(batch)
        if start != parquet.metadata.num_rows:
            raise FileFault(f"{name} is not a valid Parquet file: it has {start:,} rows", _REWRITE)


def _block(batch: Any, layout: _Layout, single: bool, file: str, start: int) -> Tensor:
    """The numbers of some columns of a record batch whose first row is row `start` of the file."""
    result = torch.empty((len(batch), *layout.shape), dtype=layout.dtype)
    targets = (result,) if single else result.unbind(1)
    for column, target in zip(layout.columns, targets, strict=True):
        values = _arrow_values(batch.column(column), file, column, start, copied=False).reshape(target.shape)
        _check_fits(values, layout.dtype, file, column, start)
        target.copy_(values)
    return result


def names_in_parquet(path: Path, columns: Columns) -> tuple[str, ...]:
    """The names of the selected columns, in their order."""
    with _parquet(path) as (parquet, name):
        return chosen_of(columns, parquet.schema_arrow.names, name)


@dataclass(frozen=True, slots=True)
class _Layout:
    columns: tuple[str, ...]
    shape: tuple[int, ...]  # the shape of one row
    dtype: torch.dtype


def _layout(parquet: Any, columns: Columns, file: str) -> _Layout:
    """The layout of the selected columns of a Parquet file, from its footer."""
    chosen = chosen_of(columns, parquet.schema_arrow.names, file)
    kinds = [_arrow_kind(parquet.schema_arrow.field(column), file) for column in chosen]
    shape, dtype = kinds[0]
    if isinstance(columns, str):
        return _Layout(chosen, shape, dtype)
    check_alike([dtype == torch.bool for _, dtype in kinds], chosen, file)
    if any(other != shape for other, _ in kinds):
        raise FileFault(f"columns of {file} have different shapes, and cannot be stacked", "read them separately")
    return _Layout(chosen, (len(chosen), *shape), _common([dtype for _, dtype in kinds]))


def _common(dtypes: Sequence[torch.dtype]) -> torch.dtype:
    """The common dtype of several columns, which represents integers at least as exactly as float64."""
    if len(set(dtypes)) == 1:
        return dtypes[0]
    common: torch.dtype = getattr(torch, numpy.result_type(*map(dtype_name, dtypes)).name)
    return common


def _check_fits(values: Tensor, dtype: torch.dtype, file: str, column: str, start: int) -> None:
    found = first_misfit(values, dtype)
    if found is not None:
        index, value, reason = found
        message = f"{file} holds {value} in row {start + index[0]} of the column `{column}`, which {reason}"
        raise FileFault(message, "read the column separately from those of another kind")


def chosen_of(columns: Columns, names: Sequence[str], file: str) -> tuple[str, ...]:
    """The names of the selected columns.

    Raises:
        FileFault: a column is missing, or several have its name.
    """
    chosen = (columns,) if isinstance(columns, str) else tuple(names) if columns is None else columns
    if not chosen:
        raise FileFault(f"{file} has no columns", _REWRITE)
    counts = Counter(names)
    for column in chosen:
        if column not in counts:
            hint = did_you_mean(column, names, f"it has {listing(names)}")
            raise FileFault(f"{file} has no column `{column}`", hint, about_columns=True)
        if counts[column] > 1:
            raise FileFault(f"{file} has several columns `{column}`", "rename one of them", about_columns=True)
    return chosen


def check_alike(booleans: Sequence[bool], names: Sequence[str], file: str) -> None:
    """Check that all or none of the columns that are read together are boolean.

    Raises:
        FileFault: only some are boolean.
    """
    if any(booleans) and not all(booleans):
        shown = listing([f"`{name}`" for name, boolean in zip(names, booleans, strict=True) if boolean], 4)
        raise FileFault(f"{shown} of {file} holds booleans and other columns numbers", "read them separately")


@contextmanager
def _parquet(path: Path) -> Iterator[tuple[Any, str]]:
    import pyarrow
    import pyarrow.parquet

    with open_ordinary(path) as file:
        try:
            yield pyarrow.parquet.ParquetFile(file, page_checksum_verification=True), path.name
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            reason = str(error).splitlines()[0].rstrip(".") if str(error) else "it cannot be read"
            raise FileFault(f"{path.name} is not a valid Parquet file: {reason}", _REWRITE) from error


def _arrow_kind(field: Any, file: str) -> tuple[tuple[int, ...], torch.dtype]:
    """The shape of one row and the dtype of a column."""
    import pyarrow

    shape: list[int] = []
    kind = field.type
    while True:
        if isinstance(kind, pyarrow.FixedShapeTensorType) and kind.permutation in (None, list(range(len(kind.shape)))):
            shape, kind = [*shape, *kind.shape], kind.value_type
        elif pyarrow.types.is_fixed_size_list(kind):
            shape, kind = [*shape, kind.list_size], kind.value_type
        else:
            break
    dtype = _ARROW.get(str(kind))
    if dtype is None:
        raise FileFault(
            f"the column `{field.name}` of {file} holds {field.type}, not numbers",
            "select another column, or convert it",
        )
    return tuple(shape), WIDENED.get(dtype, dtype)


_ARROW: Mapping[str, torch.dtype] = {
    "bool": torch.bool,
    **{
        name: getattr(torch, name)
        for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    },
    "halffloat": torch.float16,
    "float": torch.float32,
    "double": torch.float64,
}


def _arrow_values(array: Any, file: str, column: str, start: int, *, copied: bool = True) -> Tensor:
    """The numbers of some rows of a column, starting at row `start`; unsigned ones as int64.

    Args:
        copied: whether the result has memory of its own; without it, it must not be written.
    """
    import pyarrow

    rows = len(array)

    def row(position: int) -> int:
        return start + position * rows // len(array)

    while True:
        if array.null_count:
            first = row(array.is_null().to_pylist().index(True))
            raise FileFault(f"the column `{column}` of {file} has a null in row {first}", "fill or drop the nulls")
        if isinstance(array, pyarrow.ExtensionArray):
            array = array.storage
        elif pyarrow.types.is_fixed_size_list(array.type):
            array = array.flatten()
        else:
            break
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype == numpy.uint64 and (beyond := values > 2**63 - 1).any():
        message = f"{file} holds an unsigned integer beyond 2^63 in row {row(int(beyond.argmax()))}"
        raise FileFault(f"{message} of the column `{column}`", "save it as int64")
    if values.dtype.kind == "u" and values.itemsize > 1:
        return torch.from_numpy(values.astype(numpy.int64))
    if copied:
        return torch.from_numpy(values.copy())
    with warnings.catch_warnings(action="ignore"):  # torch warns of memory that must not be written
        return torch.from_numpy(values)
