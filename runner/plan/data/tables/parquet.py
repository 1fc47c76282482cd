"""Columns of `.parquet` files as tensors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from runner.language.dtypes import dtype_name
from runner.plan.data.casting import ends_fit, first_misfit, is_lossless
from runner.plan.data.dtypes import WIDENED
from runner.plan.data.sandbox import FileFault
from runner.plan.data.tables.columns import Columns, check_alike, chosen_of
from runner.plan.data.tables.conversions import CellFault, Conversion, Reading, as_floating, converted, missing_integer
from runner.plan.data.tables.parquet_cells import cells_of, is_plain_text
from runner.plan.data.tables.parquet_files import REWRITE, Paths, chunks_of, open_parquet, row_groups
from runner.plan.data.tables.text_table import first_inexact

ROWS_AT_ONCE = 1 << 16
"""Rows of a Parquet file to decode at a time."""

SMALL_READ = 1 << 16
"""Bytes of a Parquet file to read at a time where the first row of a row group is enough."""


def describe_parquet(paths: Paths, columns: Columns, reading: Reading) -> tuple[tuple[int, ...], torch.dtype]:
    """The shape and dtype of columns of Parquet files, from their footers."""
    rows, first = 0, None
    for path in paths:
        with open_parquet(path) as (parquet, name):
            layout = _layout(parquet, columns, reading, name)
            if parquet.metadata.num_rows < 0:
                raise FileFault(f"{name} is not a valid Parquet file: its footer counts no rows", REWRITE)
            rows += parquet.metadata.num_rows
        first = layout if first is None else first
        if (layout.shape, layout.dtype) != (first.shape, first.dtype):
            kinds = f"{dtype_name(layout.dtype)}, and {paths[0].name} {dtype_name(first.dtype)}"
            raise FileFault(f"{name} holds {kinds} in the same columns", "give the files of a source the same dtypes")
    assert first is not None
    return (rows, *first.shape), first.dtype


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive rows of one column."""

    file: str
    column: str
    slot: slice  # the columns of the selection that it becomes
    start: int  # the first row, in the selection
    first: int  # the first row, in the file
    values: Tensor


def read_parquet(paths: Paths, columns: Columns, reading: Reading, group: int | None = None) -> Tensor:
    """Read columns of Parquet files: `(rows, *shape)` for one, `(rows, columns, *shape)` for a list.

    With `group`, reads only that row group, counted over all files. Besides the result, at most `ROWS_AT_ONCE` rows
    are in memory at a time.

    Raises:
        FileFault: a file is malformed, a column is missing, not numeric or has nulls, or the common dtype of several
            columns cannot represent a number.
    """
    shape, dtype = describe_parquet(paths, columns, reading)
    rows = shape[0] if group is None else row_groups(paths)[group]
    result = torch.empty((rows, *shape[1:]), dtype=dtype)
    stacked = not isinstance(columns, str)
    for part in parquet_parts(paths, columns, reading, None if group is None else range(group, group + 1)):
        end = part.start + len(part.values)
        if stacked:
            target = result[part.start : end, part.slot]
            target[...] = part.values.reshape(target.shape)
        else:
            result[part.start : end] = part.values
    return result


def parquet_parts(paths: Paths, columns: Columns, reading: Reading, groups: range | None = None) -> Iterator[Part]:
    """Yields the values of columns of Parquet files, some rows of one column at a time. Raises as `read_parquet`.

    Args:
        groups: consecutive row groups, counted over all files; all by default. Rows are counted from the first one.
    """
    before = passed = 0
    for path in paths:
        with open_parquet(path) as (parquet, name):
            metadata = parquet.metadata
            lengths = [metadata.row_group(each).num_rows for each in range(metadata.num_row_groups)]
            chosen = [each for each in range(len(lengths)) if groups is None or passed + each in groups]
            passed += len(lengths)
            if not chosen:
                continue
            rows = sum(lengths[each] for each in chosen)
            yield from _parts(parquet, name, columns, reading, chosen, rows, before, sum(lengths[: chosen[0]]))
            before += rows


def _parts(
    parquet: Any,
    name: str,
    columns: Columns,
    reading: Reading,
    groups: Sequence[int],
    rows: int,
    before: int,
    skipped: int,
) -> Iterator[Part]:
    layout = _layout(parquet, columns, reading, name)
    place = 0
    for column, width in zip(layout.columns, layout.widths, strict=True):
        slot = slice(place, place + width)
        place += width
        start = 0
        for batch in parquet.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=[column]):
            if start + len(batch) > rows:
                raise FileFault(f"{name} is not a valid Parquet file: its footer counts {rows:,} rows", REWRITE)
            values = _values(batch.column(0), name, column, skipped + start, reading, layout)
            if not reading.of(column).one_hot:
                values = values.reshape(len(batch), *layout.inner)
            _check_fits(values, layout.dtype, name, column, skipped + start)
            yield Part(name, column, slot, before + start, skipped + start, values)
            start += len(batch)
        if start != rows:
            raise FileFault(f"{name} is not a valid Parquet file: `{column}` has {start:,} rows", REWRITE)


def groups_in_doubt(paths: Paths, columns: Columns, reading: Reading, dtype: torch.dtype) -> list[int]:
    """The row groups that may lack a value, or have one that a dtype does not represent, as far as the footers say."""
    found: list[int] = []
    passed = 0
    for path in paths:
        with open_parquet(path, buffered=SMALL_READ) as (parquet, name):
            layout = _layout(parquet, columns, reading, name)
            casts = {}
            for column in layout.columns:
                kind = None if reading.of(column).of_text else _stored_kind(parquet.schema_arrow.field(column), name)
                casts[column] = (kind, layout.dtype, dtype)
            places = _places(parquet.metadata, casts)
            for group in range(parquet.metadata.num_row_groups):
                chunks = chunks_of(parquet, group, list(casts))
                if not all(_is_sure(chunks.column(place).statistics, casts[column]) for place, column in places):
                    found.append(passed + group)
            passed += parquet.metadata.num_row_groups
    return found


def _places(metadata: Any, columns: Collection[str]) -> list[tuple[int, str]]:
    """The places of the chunks of some columns in a row group; a column of lists may have several."""
    found = []
    for place in range(metadata.num_columns):
        path = metadata.schema.column(place).path
        name = path if path in columns else path.partition(".")[0]
        if name in columns:
            found.append((place, name))
    return found


def _is_sure(statistics: Any, casts: tuple[torch.dtype | None, torch.dtype, torch.dtype]) -> bool:
    """Whether statistics show that no value of a chunk is missing, and that all survive two casts in a row."""
    kind, common, dtype = casts
    if kind is None or statistics is None or not statistics.has_null_count or statistics.null_count:
        return False
    read = WIDENED.get(kind, kind)
    if is_lossless(kind, read) and is_lossless(read, common) and is_lossless(common, dtype):
        return True
    ends = (statistics.min, statistics.max) if statistics.has_min_max else ()
    real = dtype.to_real() if dtype.is_complex else dtype
    match ends:
        case (int() | float() as least, int() | float() as largest):
            return all(ends_fit(least, largest, each) for each in (read, common, real))
    return False


def names_in_parquet(paths: Paths, columns: Columns) -> tuple[str, ...]:
    """The names of the selected columns, in their order."""
    with open_parquet(paths[0]) as (parquet, name):
        return chosen_of(columns, parquet.schema_arrow.names, name)


@dataclass(frozen=True, slots=True)
class _Layout:
    columns: tuple[str, ...]
    widths: tuple[int, ...]  # the number of columns that each becomes
    inner: tuple[int, ...]  # the shape of one row of one column
    shape: tuple[int, ...]  # the shape of one row
    dtype: torch.dtype


def _layout(parquet: Any, columns: Columns, reading: Reading, file: str) -> _Layout:
    """The layout of the selected columns of a Parquet file, from its footer."""
    chosen = chosen_of(columns, parquet.schema_arrow.names, file)
    kinds = [_kind(parquet.schema_arrow.field(column), reading.of(column), reading, file) for column in chosen]
    shape, dtype = kinds[0]
    widths = tuple(reading.of(column).width or 1 for column in chosen)
    if isinstance(columns, str):
        return _Layout(chosen, widths, shape, shape, dtype)
    check_alike([dtype == torch.bool for _, dtype in kinds], chosen, file)
    inner = [
        shape[1:] if reading.of(column).one_hot else shape for column, (shape, _) in zip(chosen, kinds, strict=True)
    ]
    if any(other != inner[0] for other in inner):
        raise FileFault(f"columns of {file} have different shapes, and cannot be stacked", "read them separately")
    return _Layout(chosen, widths, inner[0], (sum(widths), *inner[0]), _common([dtype for _, dtype in kinds]))


def _kind(field: Any, conversion: Conversion, reading: Reading, file: str) -> tuple[tuple[int, ...], torch.dtype]:
    """The shape of one row and the dtype of a column after its conversion."""
    if conversion.classes:
        return ((len(conversion.classes),), torch.float32) if conversion.one_hot else ((), torch.int64)
    if conversion.unit is not None:
        return (), torch.float64
    shape, dtype = _arrow_kind(field, file)
    if not dtype.is_floating_point:
        fraction = isinstance(conversion.fill, float)
        may_miss = conversion.fill is None and reading.floating and reading.allows_blanks(field.name)
        return shape, torch.float64 if fraction or may_miss else dtype
    return shape, dtype


def _values(array: Any, file: str, column: str, start: int, reading: Reading, layout: _Layout) -> Tensor:
    """The numbers of some rows of a column, starting at row `start`."""
    conversion = reading.of(column)
    if not (conversion.of_text or (array.null_count and reading.allows_blanks(column)) or conversion.fill is not None):
        return _arrow_values(array, file, column, start)
    try:
        cells = converted(cells_of(array, conversion, file, column, start), column, reading)
        fault = missing_integer(cells, column)
        if fault is not None:
            if not layout.dtype.is_floating_point:
                raise fault
            row = first_inexact(cells.values)
            if row is not None:
                message = f"{file} holds {cells.values[row]} in row {start + row} of the column `{column}`"
                raise FileFault(f"{message}, which float64 cannot represent exactly", "fill the missing numbers")
            cells = as_floating(cells)
    except CellFault as fault:
        shown = array[fault.row].as_py()
        held = "a null" if shown is None else f"`{str(shown)[:40]}`" if str(shown).strip() else "nothing"
        message = f"{file} holds {held} in row {start + fault.row} of the column `{column}`"
        raise FileFault(
            f"{message}, {fault.reason}" if fault.reason else message, fault.hint, about_columns=True
        ) from fault
    return torch.from_numpy(numpy.ascontiguousarray(cells.values))


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


def column_parts(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yields some columns of a Parquet file as Arrow arrays, some rows at a time, after the number of the first row."""
    with open_parquet(path) as (parquet, name):
        chosen_of(tuple(columns), parquet.schema_arrow.names, name)
        start = 0
        for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=list(columns)):
            yield start, {column: batch.column(column) for column in columns}
            start += len(batch)


def parquet_blocks(
    paths: Paths, selections: Sequence[tuple[Columns, Reading]], others: Sequence[str] = ()
) -> Iterator[tuple[list[Tensor], Any]]:
    """Yields the rows of Parquet files in blocks, all columns in one pass.

    Args:
        selections: the columns of each tensor, and how they are read.
        others: columns to yield as they are.
    Yields:
        a tensor for each selection, as `read_parquet` returns it, and an Arrow record batch with the columns `others`.
    Raises:
        FileFault: as `read_parquet`.
    """
    for path in paths:
        with open_parquet(path) as (parquet, name):
            layouts = [(_layout(parquet, columns, reading, name), columns, reading) for columns, reading in selections]
            copied = chosen_of(tuple(others), parquet.schema_arrow.names, name) if others else ()
            wanted = dict.fromkeys([*(column for layout, _, _ in layouts for column in layout.columns), *copied])
            start = 0
            for batch in _batches(parquet, list(wanted)):
                tensors = [_block(batch, *each, name, start) for each in layouts]
                yield tensors, batch.select(list(copied))
                start += len(batch)
            if start != parquet.metadata.num_rows:
                raise FileFault(f"{name} is not a valid Parquet file: it has {start:,} rows", REWRITE)


def _batches(parquet: Any, columns: list[str]) -> Iterator[Any]:
    """Yields record batches, row group by row group: an iterator over several keeps the pages of those it has read."""
    for group in range(parquet.metadata.num_row_groups):
        yield from parquet.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=columns)


def _block(batch: Any, layout: _Layout, columns: Columns, reading: Reading, file: str, start: int) -> Tensor:
    """The numbers of some columns of a record batch whose first row is row `start` of the file."""
    parts = []
    for column in layout.columns:
        values = _values(batch.column(column), file, column, start, reading, layout)
        values = values if reading.of(column).one_hot else values.reshape(len(batch), *layout.inner)
        _check_fits(values, layout.dtype, file, column, start)
        parts.append(values)
    if isinstance(columns, str):
        return parts[0].to(layout.dtype)
    result = torch.empty((len(batch), *layout.shape), dtype=layout.dtype)
    place = 0
    for values, width in zip(parts, layout.widths, strict=True):
        target = result[:, place : place + width]
        target.copy_(values.reshape(target.shape))
        place += width
    return result


def _arrow_kind(field: Any, file: str) -> tuple[tuple[int, ...], torch.dtype]:
    """The shape of one row and the dtype of a column."""
    shape, dtype = _stored(field, file)
    return shape, WIDENED.get(dtype, dtype)


def _stored_kind(field: Any, file: str) -> torch.dtype:
    """The dtype of a column in the file; unsigned integers are read as int64."""
    return _stored(field, file)[1]


def _stored(field: Any, file: str) -> tuple[tuple[int, ...], torch.dtype]:
    """The shape of one row of a column, and its dtype in the file."""
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
    dtype = torch.float64 if pyarrow.types.is_decimal(kind) else _ARROW.get(str(kind))
    if dtype is None:
        hint = "select another column, or convert it"
        if is_plain_text(field.type):
            hint = f"write `classes: {{{field.name}: sorted}}` to number its texts, or select another column"
        elif pyarrow.types.is_temporal(field.type):
            hint = f"write `dates: {{{field.name}: days}}`"
        raise FileFault(
            f"the column `{field.name}` of {file} holds {field.type}, not numbers", hint, about_columns=True
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
    "null": torch.float64,  # a column of nulls alone
}


def _arrow_values(array: Any, file: str, column: str, start: int) -> Tensor:
    """The numbers of some rows of a column, starting at row `start`; unsigned ones as int64."""
    import pyarrow

    rows = len(array)

    def row(position: int) -> int:
        return start + position * rows // len(array)

    while True:
        if array.null_count:
            first = row(array.is_null().to_pylist().index(True))
            hint = "write `missing: [null]` to read nulls as NaN, or `fill` them"
            raise FileFault(f"the column `{column}` of {file} has a null in row {first}", hint, about_columns=True)
        if isinstance(array, pyarrow.ExtensionArray):
            array = array.storage
        elif pyarrow.types.is_fixed_size_list(array.type):
            array = array.flatten()
        else:
            break
    if pyarrow.types.is_decimal(array.type):
        array = array.cast(pyarrow.float64())
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype == numpy.uint64 and (beyond := values > 2**63 - 1).any():
        message = f"{file} holds an unsigned integer beyond 2^63 in row {row(int(beyond.argmax()))}"
        raise FileFault(f"{message} of the column `{column}`", "save it as float64")
    wide = values.astype(numpy.int64) if values.dtype.kind == "u" and values.itemsize > 1 else values.copy()
    return torch.from_numpy(wide)
