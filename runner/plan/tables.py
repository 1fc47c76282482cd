"""Tables: numeric columns of `.csv`, `.tsv` and `.parquet` files."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from runner.errors import did_you_mean, listing
from runner.plan.sandbox import FileFault, open_ordinary

Columns = str | tuple[str, ...] | None
"""One column, several that are stacked along a new last dimension, or all of them."""

_ROWS_AT_ONCE = 8_192
_BOOLEANS = {"true": True, "false": False}


def read_text(path: Path, columns: Columns, delimiter: str) -> Tensor:
    """Columns of a table of text, its first line being their names.

    Returns:
        `(rows)` for one column and `(rows, columns)` for a list; int64, bool or else float64.
    Raises:
        FileFault: not UTF-8, no such column, ragged rows, or a cell that is no number; with its line.
    """
    with open_ordinary(path) as file, _text_faults(path.name):
        lines = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), delimiter=delimiter, strict=True)
        names = [cell.strip() for cell in next(lines, [])]
        _check_header(names, path.name)
        chosen = _chosen(columns, names, path.name)
        positions = [names.index(name) for name in chosen]
        parts: list[list[Tensor]] = [[] for _ in chosen]
        rows = ((lines.line_num, row) for row in lines if row)
        while chunk := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            for line, row in chunk:
                if len(row) != len(names):
                    message = f"{path.name}:{line} has {len(row)} cells, and its header names {len(names)} columns"
                    raise FileFault(message, "give every row the same number of cells")
            for part, position, name in zip(parts, positions, chosen, strict=True):
                part.append(_numbers([(line, row[position].strip()) for line, row in chunk], name, path.name))
    if not parts[0]:
        raise FileFault(f"{path.name} has a header and no rows", "add rows")
    return _combined(
        [_joined(part, name, path.name) for part, name in zip(parts, chosen, strict=True)], columns, chosen, path.name
    )


def describe_parquet(path: Path, columns: Columns) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of columns of a Parquet file, from its footer alone."""
    with _parquet(path) as (parquet, name):
        chosen = _chosen(columns, parquet.schema_arrow.names, name)
        kinds = [_arrow_kind(parquet.schema_arrow.field(column), name) for column in chosen]
        rows: int = parquet.metadata.num_rows
    empty = [torch.empty((0, *shape), dtype=dtype) for shape, dtype in kinds]
    combined = _combined(empty, columns, chosen, name)
    return (rows, *combined.shape[1:]), combined.dtype


def row_groups(path: Path) -> tuple[int, ...]:
    """How many rows each row group of a Parquet file has."""
    with _parquet(path) as (parquet, _):
        metadata = parquet.metadata
        return tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))


def read_parquet(path: Path, columns: Columns, group: int | None = None) -> Tensor:
    """Columns of a Parquet file: `(rows, *shape)` for one, `(rows, columns)` for a list.

    With `group`, only of that row group.

    Raises:
        FileFault: malformed, no such column, a column that holds no numbers, or nulls.
    """
    with _parquet(path) as (parquet, name):
        chosen = _chosen(columns, parquet.schema_arrow.names, name)
        kinds = [_arrow_kind(parquet.schema_arrow.field(column), name) for column in chosen]
        tensors = []
        for column, (shape, dtype) in zip(chosen, kinds, strict=True):
            table = parquet.read([column]) if group is None else parquet.read_row_group(group, [column])
            array = table.column(column).combine_chunks()
            tensors.append(_arrow_values(array, name, column).to(dtype).reshape(-1, *shape))
    return _combined(tensors, columns, chosen, name)


def _check_header(names: Sequence[str], file: str) -> None:
    if not any(names):
        raise FileFault(f"{file} is empty", "its first line names the columns")
    if all(_is_number(name) for name in names):
        raise FileFault(
            f"{file} names no columns: its first line is {listing(names, 5)}", "add a first line with names"
        )


def _chosen(columns: Columns, names: Sequence[str], file: str) -> tuple[str, ...]:
    chosen = (columns,) if isinstance(columns, str) else tuple(names) if columns is None else columns
    if not chosen:
        raise FileFault(f"{file} has no columns", "write the file again")
    for column in chosen:
        if column not in names:
            hint = did_you_mean(column, names, f"it has {listing(names)}")
            raise FileFault(f"{file} has no column `{column}`", hint, about_columns=True)
        if list(names).count(column) > 1:
            raise FileFault(f"{file} has several columns `{column}`", "rename one of them", about_columns=True)
    return chosen


def _numbers(cells: Sequence[tuple[int, str]], column: str, file: str) -> Tensor:
    texts = [text for _, text in cells]
    if "_" not in "".join(texts):  # Python reads 1_000 as a number; in a table it is rather a name
        try:
            return torch.from_numpy(numpy.array([int(text) for text in texts], dtype=numpy.int64))
        except (ValueError, OverflowError):
            pass
        try:
            return torch.tensor([float(text) for text in texts], dtype=torch.float64)
        except ValueError:
            pass
    if all(text.lower() in _BOOLEANS for text in texts):
        return torch.tensor([_BOOLEANS[text.lower()] for text in texts])
    line, text = next((line, text) for line, text in cells if not _is_number(text))
    shown = f"`{text[:40]}`, which is not a number" if text else "nothing"
    hint = "write `nan` for a missing number" if not text else "take other columns, or mend the cell"
    raise FileFault(f"{file}:{line} holds {shown} in the column `{column}`", hint)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _joined(parts: Sequence[Tensor], column: str, file: str) -> Tensor:
    dtypes = {part.dtype for part in parts}
    if len(dtypes) > 1 and torch.bool in dtypes:
        raise FileFault(f"the column `{column}` of {file} mixes booleans and numbers", "write 0 and 1")
    dtype = torch.float64 if len(dtypes) > 1 else parts[0].dtype
    return torch.cat([part.to(dtype) for part in parts])


def _combined(tensors: Sequence[Tensor], columns: Columns, names: Sequence[str], file: str) -> Tensor:
    if isinstance(columns, str):
        return tensors[0]
    dtypes = [tensor.dtype for tensor in tensors]
    if torch.bool in dtypes and len(set(dtypes)) > 1:
        shown = listing([f"`{name}`" for name, dtype in zip(names, dtypes, strict=True) if dtype == torch.bool], 4)
        raise FileFault(f"{shown} of {file} holds booleans and other columns numbers", "read them apart")
    if len({tensor.shape[1:] for tensor in tensors}) > 1:
        raise FileFault(f"columns of {file} have different shapes, and cannot be stacked", "read them apart")
    dtype = reduce(torch.promote_types, dtypes)
    return torch.stack([tensor.to(dtype) for tensor in tensors], dim=1)


@contextmanager
def _text_faults(name: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise FileFault(f"{name} is not UTF-8: {error.reason} at byte {error.start}", "save it as UTF-8") from error
    except csv.Error as error:
        raise FileFault(f"{name} is malformed: {error}", "write the file again") from error


@contextmanager
def _parquet(path: Path) -> Iterator[tuple[Any, str]]:
    import pyarrow
    import pyarrow.parquet

    with open_ordinary(path) as file:
        try:
            yield pyarrow.parquet.ParquetFile(file), path.name
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            reason = str(error).splitlines()[0].rstrip(".") if str(error) else "it cannot be read"
            raise FileFault(f"{path.name} is not a whole Parquet file: {reason}", "write the file again") from error


def _arrow_kind(field: Any, file: str) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape of one row and dtype of a column."""
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
            f"the column `{field.name}` of {file} holds {field.type}, not numbers", "take another column, or convert it"
        )
    return tuple(shape), dtype


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


def _arrow_values(array: Any, file: str, column: str) -> Tensor:
    import pyarrow

    while True:
        if array.null_count:
            position = array.is_null().to_pylist().index(True)
            raise FileFault(
                f"the column `{column}` of {file} has {array.null_count:,} nulls, the first in row {position}",
                "fill or drop them",
            )
        if isinstance(array, pyarrow.ExtensionArray):
            array = array.storage
        elif pyarrow.types.is_fixed_size_list(array.type):
            array = array.flatten()
        else:
            return torch.from_numpy(numpy.array(array.to_numpy(zero_copy_only=False)))
