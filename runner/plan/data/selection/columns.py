"""Opens the columns that a `select` may name: those of a table, or the 1-d arrays of a file of arrays."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from runner.plan.data.arrays import names_of
from runner.plan.data.files import ArrayFile, FileFault, describe, read
from runner.plan.data.selection.cells import Blocks, Cells, Kind, Table, cells_of_numbers
from runner.plan.data.tables import ROWS_AT_ONCE
from runner.plan.data.tables import _parquet as opened_parquet
from runner.plan.data.text_tables import _rows_of

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_KEYED = (".npz", ".safetensors")


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
        return _of_arrays("this source", dict(arrays), rows, limit)
    if first.suffix == ".parquet":
        return _of_parquet(first, rows)
    if first.suffix in _DELIMITERS:
        return _of_text(first, rows)
    keys = names_of(first.path)
    return _of_arrays(first.path.name, {key: ArrayFile(first.path, key, None) for key in keys}, rows, limit)


def column_bound_to(array: ArrayFile, name: str, shared: bool) -> str | None:
    """The name in the table of a batch column; None if it is not one column."""
    if not shared:
        return name
    if array.suffix in _KEYED:
        return array.key
    return array.columns if isinstance(array.columns, str) else None


def _of_arrays(file: str, arrays: Mapping[str, ArrayFile], rows: int, limit: int) -> Table:
    def kind(name: str) -> Kind:
        shape, dtype = describe(arrays[name], limit)
        if shape != (rows,) or dtype.is_complex:
            message = f"`{name}` has shape {tuple(shape)}, and rows are selected by arrays of shape ({rows},)"
            raise FileFault(message, "name an array with one number a row")
        return "boolean" if dtype == torch.bool else "number"

    def blocks(names: Sequence[str]) -> Blocks:
        values = {name: _as_numpy(read(arrays[name], limit)) for name in names}
        for start in range(0, rows, ROWS_AT_ONCE):
            yield {name: cells_of_numbers(found[start : start + ROWS_AT_ONCE]) for name, found in values.items()}

    return Table(file, tuple(arrays), rows, kind, blocks)


def _as_numpy(values: Tensor) -> Any:
    return (values.float() if values.dtype.is_floating_point and values.dtype.itemsize < 4 else values).numpy()


def _of_parquet(array: ArrayFile, rows: int) -> Table:
    with opened_parquet(array.path) as (parquet, file):
        schema = parquet.schema_arrow

    def kind(name: str) -> Kind:
        import pyarrow

        found = schema.field(schema.names.index(name)).type
        value = found.value_type if pyarrow.types.is_dictionary(found) else found
        for is_kind, kind_of in _ARROW_KINDS:
            if is_kind(pyarrow.types, value):
                return kind_of
        message = f"the column `{name}` of {file} holds {found}, and rows are selected by numbers and text"
        raise FileFault(message, "name another column, or convert it")

    def blocks(names: Sequence[str]) -> Blocks:
        with opened_parquet(array.path) as (parquet, _):
            for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=list(names)):
                yield {name: _arrow_cells(batch.column(batch.schema.names.index(name))) for name in names}

    return Table(file, tuple(schema.names), rows, kind, blocks)


_ARROW_KINDS: tuple[tuple[Callable[[Any, Any], bool], Kind], ...] = (
    (lambda types, kind: types.is_boolean(kind), "boolean"),
    (lambda types, kind: types.is_integer(kind) or types.is_floating(kind), "number"),
    (lambda types, kind: types.is_string(kind) or types.is_large_string(kind), "text"),
)


def _arrow_cells(array: Any) -> Cells:
    import pyarrow

    if pyarrow.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    missing = array.is_null().to_numpy(zero_copy_only=False)
    if missing.any():
        is_text = pyarrow.types.is_string(array.type) or pyarrow.types.is_large_string(array.type)
        array = array.fill_null("" if is_text else pyarrow.scalar(0).cast(array.type))
    values = array.to_numpy(zero_copy_only=False)
    return Cells(values, missing | numpy.isnan(values) if values.dtype.kind == "f" else missing)


def _of_text(array: ArrayFile, rows: int) -> Table:
    delimiter = _DELIMITERS[array.suffix]
    names = _header_of(array.path, delimiter)
    kinds: dict[str, Kind] = {}

    def kind(name: str) -> Kind:
        if name not in kinds:
            found = [_kind_of_texts(texts[name]) for texts in _cell_blocks(array.path, delimiter, [name])]
            kinds[name] = found[0] if len(set(found)) == 1 else "text"
        return kinds[name]

    def blocks(wanted: Sequence[str]) -> Blocks:
        for texts in _cell_blocks(array.path, delimiter, wanted):
            yield {name: _text_cells(texts[name], kind(name)) for name in wanted}

    return Table(array.path.name, tuple(names), rows, kind, blocks)


def _kind_of_texts(texts: Sequence[str]) -> Kind:
    given = [text for text in texts if text]
    if not given:
        return "number"
    if all(text.lower() in ("true", "false") for text in given):
        return "boolean"
    return "number" if all(map(_is_number, given)) else "text"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _text_cells(texts: Sequence[str], kind: Kind) -> Cells:
    missing = numpy.array([not text for text in texts])
    if kind == "text":
        values = numpy.empty(len(texts), dtype=object)
        values[:] = texts
        return Cells(values, missing)
    if kind == "boolean":
        return Cells(numpy.array([text.lower() == "true" for text in texts]), missing)
    try:
        return Cells(numpy.array([int(text or "0") for text in texts], dtype=numpy.int64), missing)
    except (ValueError, OverflowError):
        return cells_of_numbers(numpy.array([float(text or "nan") for text in texts]))


def _header_of(path: Path, delimiter: str) -> list[str]:
    with _rows_of(path, delimiter) as (names, _):
        return names


def _cell_blocks(path: Path, delimiter: str, wanted: Sequence[str]) -> Iterator[dict[str, list[str]]]:
    with _rows_of(path, delimiter) as (names, rows):
        places = {name: names.index(name) for name in wanted}
        while chunk := list(itertools.islice(rows, ROWS_AT_ONCE)):
            yield {name: [row[place].strip() for _, row in chunk] for name, place in places.items()}
