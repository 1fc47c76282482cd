"""Converts Arrow tables of recorded rows back to torch tensors, each with its original bits and dtype."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy
import numpy.typing
import pyarrow
import torch
from torch import Tensor

from runner.engine.rows import Read
from runner.plan.rows.columns import Column
from runner.record.rows.arrow import SHAPE_SUFFIX
from runner.record.rows.storage import StoredColumn, from_stored, stored_column


def tensors_of(table: pyarrow.Table, column: Column) -> list[Tensor | None]:
    """A column's values: for each row a tensor of its true dtype and shape, or None if the row has none."""
    stored = stored_column(column)
    if stored.layout == "list":
        return _listed(table, stored)
    values, present = stacked_of(table, column)
    return [value if there else None for value, there in zip(values.unbind(), present.tolist(), strict=True)]


def read_of(table: pyarrow.Table, columns: Sequence[Column]) -> Read:
    """The values of rows, by column, in their true dtypes and shapes."""
    values: list[Tensor | list[Tensor | None]] = []
    present: list[Tensor | None] = []
    for column in columns:
        if stored_column(column).layout == "list":
            values.append(tensors_of(table, column))
            present.append(None)
        else:
            stacked, there = stacked_of(table, column)
            values.append(stacked)
            present.append(None if bool(there.all()) else there)
    return Read(values, present)


def stacked_of(table: pyarrow.Table, column: Column) -> tuple[Tensor, Tensor]:
    """A column of a fixed shape `(*s)` as `(rows, *s)` in its true dtype, and which rows have a value: bool `(rows,)`.

    The elements of rows without a value are arbitrary.
    """
    stored = stored_column(column)
    assert stored.shape is not None
    assert column.shape is not None
    if stored.layout == "list":
        return torch.zeros((len(table), *column.shape), dtype=column.dtype), present_of(table, column.name)
    chunks = [_READERS[stored.layout](stored, chunk) for chunk in table.column(column.name).chunks]
    values = torch.cat(chunks) if chunks else torch.zeros(0, dtype=stored.dtype)
    shaped = values.reshape(len(table), *stored.shape)
    return from_stored(shaped, column.dtype), present_of(table, column.name)


def present_of(table: pyarrow.Table, name: str) -> Tensor:
    """Which rows have a value of a column: bool `(rows,)`."""
    return _cat([_valid(chunk) for chunk in table.column(name).chunks], torch.bool)


def integers_in(table: pyarrow.Table, name: str) -> numpy.typing.NDArray[numpy.int64]:
    """An int64 column without nulls: `(rows,)`. `to_numpy` would import pandas."""
    chunks = table.column(name).chunks
    views = [numpy.frombuffer(each.buffers()[1], numpy.int64)[each.offset : each.offset + len(each)] for each in chunks]
    return numpy.concatenate([numpy.zeros(0, numpy.int64), *views])


def _valid(chunk: pyarrow.Array) -> Tensor:
    """Which elements are not null, without `is_valid`, which imports pyarrow.compute."""
    if not chunk.null_count:
        return torch.ones(len(chunk), dtype=torch.bool)
    storage = getattr(chunk, "storage", chunk)
    return _bits(storage.buffers()[0], storage.offset, len(storage))


def _scalars(stored: StoredColumn, chunk: pyarrow.Array) -> Tensor:
    return _elements(chunk, stored.dtype)


def _fixed(stored: StoredColumn, chunk: pyarrow.Array) -> Tensor:
    storage = chunk.storage
    elements = storage.values.slice(storage.offset * stored.elements, len(storage) * stored.elements)
    return _elements(elements, stored.dtype)


def _bytes(stored: StoredColumn, chunk: pyarrow.Array) -> Tensor:
    return _copied(chunk.buffers()[1], chunk.offset * stored.bytes, len(chunk) * stored.bytes, stored.dtype)


def _digests(stored: StoredColumn, chunk: pyarrow.Array) -> Tensor:
    blank = "00" * stored.bytes
    data = bytearray.fromhex("".join(text or blank for text in chunk.to_pylist()))
    return torch.frombuffer(data, dtype=stored.dtype) if data else torch.zeros(0, dtype=stored.dtype)


_READERS = {"scalar": _scalars, "tensor": _fixed, "bytes": _bytes, "hex": _digests}


def _listed(table: pyarrow.Table, stored: StoredColumn) -> list[Tensor | None]:
    column = stored.column
    if column.shape is not None:
        shapes: Iterable[object] = [column.shape] * len(table)
    else:
        shapes = table.column(column.name + SHAPE_SUFFIX).to_pylist()
    flat = [value for chunk in table.column(column.name).chunks for value in _flat_lists(stored, chunk)]
    return [
        None if value is None else from_stored(_paired(value, column.dtype), column.dtype).reshape(shape)  # type: ignore[call-overload]
        for value, shape in zip(flat, shapes, strict=True)
    ]


def _flat_lists(stored: StoredColumn, chunk: pyarrow.Array) -> Iterable[Tensor | None]:
    elements = _elements(chunk.values, stored.dtype)
    offsets = chunk.offsets.to_pylist()
    present = _elements(chunk.is_valid(), torch.bool).tolist()
    for index, there in enumerate(present):
        yield elements[offsets[index] : offsets[index + 1]] if there else None


def _paired(flat: Tensor, dtype: torch.dtype) -> Tensor:
    return flat.reshape(-1, 2) if dtype.is_complex else flat


def _elements(array: pyarrow.Array, dtype: torch.dtype) -> Tensor:
    data = array.buffers()[1]
    if dtype != torch.bool:
        return _copied(data, array.offset * dtype.itemsize, len(array) * dtype.itemsize, dtype)
    return torch.zeros(0, dtype=torch.bool) if data is None else _bits(data, array.offset, len(array))


def _bits(data: pyarrow.Buffer, offset: int, length: int) -> Tensor:
    bits = numpy.unpackbits(numpy.frombuffer(data, dtype=numpy.uint8), bitorder="little")
    return torch.from_numpy(bits[offset : offset + length].astype(bool))


def _copied(data: pyarrow.Buffer | None, start: int, length: int, dtype: torch.dtype) -> Tensor:
    """A tensor `(n,)` with its own memory, because Arrow's memory is read-only."""
    if length == 0 or data is None:
        return torch.zeros(0, dtype=dtype)
    return torch.frombuffer(bytearray(memoryview(data)[start : start + length]), dtype=dtype)


def _cat(parts: list[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0, dtype=dtype)
