"""Converts batches to Arrow tables, without a copy if the memory layout is already Arrow's.

Importing this module imports pyarrow. Buffers are wrapped by address rather than converted: `pyarrow.array` would
import pandas if it is installed, which takes 0.4 s.
"""

from __future__ import annotations

import functools
import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, chain
from typing import Any, TypeVar

import numpy
import pyarrow
import torch
from torch import Tensor

from runner.language.dtypes import dtype_name
from runner.plan.rows.columns import STATISTICS, Column, pieces
from runner.record.rows.batch import Batch, Labels, LoopLabels, Packed
from runner.record.rows.digest import digest_of, digests_of
from runner.record.rows.storage import StoredColumn, column_json, from_column_json, to_stored
from runner.record.rows.summary import Summary, summarize, summarize_slices, summarize_together

T = TypeVar("T")

FIXED_FIELDS = (
    pyarrow.field("row", pyarrow.int64(), nullable=False),
    pyarrow.field("step", pyarrow.string(), nullable=False),
    pyarrow.field("path", pyarrow.string(), nullable=False),
    pyarrow.field("iteration", pyarrow.int64(), nullable=False),
)
SHAPE_SUFFIX = ".shape"
"""A column of varying shape is a flat list; a second column, named with this suffix, has its shapes."""

_ARROW_TYPES = {
    torch.bool: pyarrow.bool_(),
    torch.uint8: pyarrow.uint8(),
    torch.uint16: pyarrow.uint16(),
    torch.uint32: pyarrow.uint32(),
    torch.uint64: pyarrow.uint64(),
    torch.int8: pyarrow.int8(),
    torch.int16: pyarrow.int16(),
    torch.int32: pyarrow.int32(),
    torch.int64: pyarrow.int64(),
    torch.float32: pyarrow.float32(),
    torch.float64: pyarrow.float64(),
}
_SHAPE_TYPE = pyarrow.list_(pyarrow.int64())


# --- schema


def schema_of(columns: Sequence[StoredColumn]) -> pyarrow.Schema:
    """The schema of a run's rows; each field's metadata has its column's true dtype, shape, role and layout."""
    return pyarrow.schema(
        [*FIXED_FIELDS, *chain.from_iterable(_fields(part) for column in columns for part in column.parts)]
    )


def _fields(stored: StoredColumn) -> Iterable[pyarrow.Field]:
    column = stored.column
    metadata = {
        "steprun.dtype": dtype_name(column.dtype),
        "steprun.shape": json.dumps(column.shape),
        "steprun.role": column.role,
        "steprun.layout": stored.layout,
        "steprun.stored_dtype": dtype_name(stored.dtype),
    }
    if column.of is not None:
        metadata["steprun.of"] = json.dumps(column_json(column.of))
    yield pyarrow.field(column.name, _arrow_type(stored), metadata=metadata)
    if column.shape is None:
        yield pyarrow.field(column.name + SHAPE_SUFFIX, _SHAPE_TYPE, metadata={"steprun.shape_of": column.name})


def _arrow_type(stored: StoredColumn) -> pyarrow.DataType:
    element = _ARROW_TYPES[stored.dtype]
    match stored.layout:
        case "scalar":
            return element
        case "tensor":
            return pyarrow.fixed_shape_tensor(element, stored.shape)
        case "list":
            return pyarrow.list_(element)
        case "bytes":
            return pyarrow.binary(stored.bytes)
        case "hex":
            return pyarrow.string()
        case "stats" | "digest":
            raise AssertionError(f"{stored.column.name} is not stored itself")


def columns_of(schema: pyarrow.Schema) -> tuple[Column, ...]:
    """The columns of a file's schema, in order."""
    return tuple(_column(field) for field in schema if field.metadata and b"steprun.dtype" in field.metadata)


def _column(field: pyarrow.Field) -> Column:
    metadata = {key.decode(): value.decode() for key, value in field.metadata.items()}
    return from_column_json(
        {
            "name": field.name,
            "role": metadata["steprun.role"],
            "dtype": metadata["steprun.dtype"],
            "shape": json.loads(metadata["steprun.shape"]),
            "of": json.loads(metadata.get("steprun.of", "null")),
        }
    )


def element_path(stored: StoredColumn) -> str:
    """The path of a column's numbers in a Parquet file."""
    return stored.column.name + (".list.element" if stored.layout in ("tensor", "list") else "")


# --- tensors to Arrow


def table_of(batch: Batch, columns: Sequence[StoredColumn], schema: pyarrow.Schema) -> pyarrow.Table:
    """The rows of a batch as one table of `schema`."""
    arrays: list[Any] = _labels_of(batch.labels)
    if batch.runs > 1:
        arrays = [pyarrow.concat_arrays([each] * batch.runs) for each in arrays]
    alone, together = _divided(batch, columns)
    for number, stored in enumerate(columns):
        packed = alone.get(number)
        if packed is None:
            arrays.extend(together[number])
        else:
            arrays.extend(_WRITERS[stored.layout](schema.field(len(arrays)).type, stored, packed))
    return pyarrow.Table.from_arrays(arrays, schema=schema)


def _divided(
    batch: Batch, columns: Sequence[StoredColumn]
) -> tuple[dict[int, Packed], dict[int, Sequence[pyarrow.Array]]]:
    """The packed columns by number, and the arrays of those that are converted together."""
    if batch.groups is None:
        return dict(enumerate(batch.columns)), {}
    alone: dict[int, Packed] = {}
    together: dict[int, Sequence[pyarrow.Array]] = {}
    for group, packed in zip(batch.groups, batch.columns, strict=True):
        if len(group) == 1:
            alone[group[0]] = packed
            continue
        assert isinstance(packed.values, Tensor)
        values = packed.values.transpose(0, 1).contiguous()  # (columns, rows, *s)
        members = [columns[number] for number in group]
        arrays = _arrays_together(members, values, packed.present)
        if arrays is None:
            alone.update((n, Packed(each, packed.present)) for n, each in zip(group, values.unbind(), strict=True))
        else:
            together.update(zip(group, arrays, strict=True))
    return alone, together


def _arrays_together(
    columns: Sequence[StoredColumn], values: Tensor, present: Sequence[bool] | None
) -> Iterable[Sequence[pyarrow.Array]] | None:
    """The arrays of columns of one dtype and shape, `(columns, rows, *s)`; None if each has to be converted alone."""
    stored, rows = columns[0], values.shape[1]
    if any(column.layout != stored.layout or column.column.leading for column in columns):
        return None
    match stored.layout:
        case "scalar" | "tensor":
            return _slices(stored, to_stored(values), present)
        case "stats" if all(column.column.only is None for column in columns):
            found = summarize_together(values.flatten(0, 1))
            if found is None:
                return None
            validity = _validity(present)
            by_column = zip(*[torch.split(found[name], rows) for name in STATISTICS], strict=True)
            return ([_elements(numbers, validity) for numbers in each] for each in by_column)
        case "digest":
            texts = list(digests_of(values.flatten(0, 1)))
            by_rows = (texts[start : start + rows] for start in range(0, len(texts), rows))
            return ([_strings(each if present is None else _only(each, present))] for each in by_rows)
    return None


def _slices(stored: StoredColumn, values: Tensor, present: Sequence[bool] | None) -> Iterator[Sequence[pyarrow.Array]]:
    """Yields the array of each column; all are parts of one buffer."""
    count, rows = values.shape[:2]
    kind, element = _arrow_type(stored), _ARROW_TYPES[stored.dtype]
    buffer, validity, size = _buffer(values), _validity(present), values.nbytes // count
    for start in range(0, values.nbytes, size):
        part = buffer.slice(start, size)
        if stored.layout == "scalar":
            yield [pyarrow.Array.from_buffers(element, rows, [validity, part])]
        else:
            elements = pyarrow.Array.from_buffers(element, rows * stored.elements, [None, part])
            lists = pyarrow.Array.from_buffers(kind.storage_type, rows, [validity], children=[elements])
            yield [pyarrow.ExtensionArray.from_storage(kind, lists)]


def _only(texts: Sequence[str], present: Sequence[bool]) -> list[str | None]:
    return [text if there else None for text, there in zip(texts, present, strict=True)]


def _scalars(kind: pyarrow.DataType, stored: StoredColumn, packed: Packed) -> Iterable[pyarrow.Array]:
    assert isinstance(packed.values, Tensor)
    yield _elements(to_stored(packed.values), _validity(packed.present))


def _tensors(kind: pyarrow.DataType, stored: StoredColumn, packed: Packed) -> Iterable[pyarrow.Array]:
    assert isinstance(packed.values, Tensor)
    elements = _elements(to_stored(packed.values))
    yield pyarrow.ExtensionArray.from_storage(
        kind,
        pyarrow.Array.from_buffers(
            kind.storage_type, len(packed.values), [_validity(packed.present)], children=[elements]
        ),
    )


def _lists(kind: pyarrow.DataType, stored: StoredColumn, packed: Packed) -> Iterable[pyarrow.Array]:
    tensors = [None if value is None else to_stored(value) for value in packed.values]
    flat = [tensor.reshape(-1) for tensor in tensors if tensor is not None]
    elements = _elements(torch.cat(flat) if flat else torch.zeros(0, dtype=stored.dtype))
    present = [tensor is not None for tensor in tensors]
    lengths = [0 if tensor is None else tensor.numel() for tensor in tensors]
    yield _list_array(kind, lengths, present, elements)
    if stored.shape is None:
        shapes = [() if value is None else tuple(value.shape) for value in packed.values]
        sizes = _integers(list(chain.from_iterable(shapes)))
        yield _list_array(_SHAPE_TYPE, [len(shape) for shape in shapes], present, sizes)


def _list_array(
    kind: pyarrow.DataType, lengths: Sequence[int], present: Sequence[bool], elements: pyarrow.Array
) -> pyarrow.Array:
    offsets = array("i", accumulate(lengths, initial=0))
    return pyarrow.Array.from_buffers(
        kind, len(lengths), [_validity(present), pyarrow.py_buffer(offsets)], children=[elements]
    )


def _bytes(kind: pyarrow.DataType, stored: StoredColumn, packed: Packed) -> Iterable[pyarrow.ChunkedArray]:
    chunks = [
        pyarrow.Array.from_buffers(kind, 1, [None, _buffer(to_stored(value))])
        if value is not None
        else pyarrow.nulls(1, kind)
        for value in packed.values
    ]
    yield pyarrow.chunked_array(chunks, kind)


def _statistics(kind: pyarrow.DataType, stored: StoredColumn, packed: Packed) -> Iterable[pyarrow.Array]:
    found = pieces(stored.column)
    if any(piece.number is None for piece in found):
        together = summarize_together(packed.values) if isinstance(packed.values, Tensor) else None
        if together is None:
            yield from _summaries(_per_tensor(_by_row(packed), summarize))
        else:
            yield from (_elements(together[name], _validity(packed.present)) for name in STATISTICS)
    numbers = [piece.number for piece in found if piece.number is not None]
    if numbers:
        dimensions = len(stored.column.leading)
        by_row = _per_tensor(_by_row(packed), lambda value: summarize_slices(value, dimensions))
        for number in numbers:
            yield from _summaries([None if slices is None else slices[number] for slices in by_row])


def _by_row(packed: Packed) -> Sequence[Tensor | None]:
    """The tensor of each row; None where there is none."""
    if not isinstance(packed.values, Tensor):
        return packed.values
    present = packed.present or [True] * len(packed.values)
    return [value if there else None for value, there in zip(packed.values.unbind(), present, strict=True)]


def _summaries(summaries: Sequence[Summary | None]) -> Iterable[pyarrow.Array]:
    for name, dtype in STATISTICS.items():
        results = [None if summary is None else getattr(summary, name) for summary in summaries]
        numbers = torch.tensor([0 if number is None else number for number in results], dtype=dtype)
        yield _elements(numbers, _validity([number is not None for number in results]))


def _digests(kind: pyarrow.DataType, stored: StoredColumn, packed: Packed) -> Iterable[pyarrow.Array]:
    if isinstance(packed.values, Tensor):
        present = packed.present or [True] * len(packed.values)
        texts = zip(digests_of(packed.values), present, strict=True)
        yield _strings([text if there else None for text, there in texts])
    else:
        yield _strings(_per_tensor(packed.values, digest_of))


def _per_tensor(values: Iterable[Tensor | None], compute: Callable[[Tensor], T]) -> list[T | None]:
    """The result of `compute` for each row's tensor, computed once for a tensor that several rows share."""
    results: dict[int, T] = {}
    for value in values:
        if value is not None and id(value) not in results:
            results[id(value)] = compute(value)
    return [None if value is None else results[id(value)] for value in values]


_WRITERS = {
    "scalar": _scalars,
    "tensor": _tensors,
    "list": _lists,
    "bytes": _bytes,
    "stats": _statistics,
    "digest": _digests,
}


def _elements(tensor: Tensor, validity: pyarrow.Buffer | None = None) -> pyarrow.Array:
    if tensor.dtype == torch.bool:
        values = bits_of(tensor.numpy())
    else:
        values = _buffer(tensor)
    return pyarrow.Array.from_buffers(_ARROW_TYPES[tensor.dtype], tensor.numel(), [validity, values])


def _buffer(tensor: Tensor) -> pyarrow.Buffer:
    return pyarrow.foreign_buffer(tensor.data_ptr(), tensor.numel() * tensor.element_size(), base=tensor)


# --- Python values to Arrow


def array_of(values: Sequence[Any], kind: pyarrow.DataType) -> pyarrow.Array:
    """Values as an array of `bool_`, `int64`, `float64` or `string`; None is null.

    Raises:
        OverflowError: an integer has more than 64 bits.
    """
    if kind == pyarrow.string():
        return _strings(values)
    present = [value is not None for value in values]
    filled = [value if there else 0 for value, there in zip(values, present, strict=True)]
    if kind == pyarrow.bool_():
        content = bits_of(numpy.array(filled, dtype=bool))
    else:
        numbers = numpy.array(filled, dtype=numpy.int64 if kind == pyarrow.int64() else numpy.float64)
        content = pyarrow.py_buffer(numbers)
    return pyarrow.Array.from_buffers(kind, len(values), [_validity(present), content])


def numbers_of(array: pyarrow.Array) -> numpy.ndarray:
    """The floating-point numbers of an array without nulls, without a copy; `to_numpy` would import pandas."""
    content = array.buffers()[1]
    dtype = numpy.dtype(f"f{array.type.bit_width // 8}")
    return numpy.frombuffer(content, dtype)[array.offset : array.offset + len(array)]


def integers_of(numbers: numpy.ndarray) -> pyarrow.Array:
    """Numbers as int64, without a copy if they are."""
    content = pyarrow.py_buffer(numpy.ascontiguousarray(numbers, dtype=numpy.int64))
    return pyarrow.Array.from_buffers(pyarrow.int64(), len(numbers), [None, content])


def empty_table(columns: Sequence[StoredColumn]) -> pyarrow.Table:
    """The table of a run without rows."""
    return pyarrow.Table.from_batches([], schema_of(columns))


# --- labels to Arrow


def _labels_of(labels: Labels | LoopLabels) -> list[pyarrow.Array]:
    """The numbers, steps, paths and iterations of rows."""
    if isinstance(labels, LoopLabels):
        return _of_loop(labels)
    return [_integers(labels.numbers), _strings(labels.steps), _strings(labels.paths), _integers(labels.iterations)]


def _of_loop(labels: LoopLabels) -> list[pyarrow.Array]:
    rows = len(labels.places)
    places = labels.places
    every = numpy.arange(places.start, places.stop, places.step) if isinstance(places, range) else numpy.array(places)
    iterations = every.astype(numpy.int64) + labels.first
    numbers = numpy.arange(labels.number, labels.number + rows, dtype=numpy.int64)
    step = numpy.frombuffer(labels.step.encode(), dtype=numpy.uint8)
    return [
        integers_of(numbers),
        _of_bytes([numpy.broadcast_to(step, (rows, len(step)))]),
        _of_bytes(list(_paths(labels.path, iterations))),
        integers_of(iterations),
    ]


def _paths(path: tuple[str, str], iterations: numpy.ndarray) -> Iterator[numpy.ndarray]:
    """Yields the bytes of paths of one length after the other: uint8 `(rows, length)`; iterations increase, from 1."""
    before, after = (numpy.frombuffer(text.encode(), dtype=numpy.uint8) for text in path)
    digits = len(str(iterations[0]))
    while len(iterations):
        of_length = int(numpy.searchsorted(iterations, 10**digits))
        around = [numpy.broadcast_to(text, (of_length, len(text))) for text in (before, after)]
        yield numpy.concatenate([around[0], _decimal(iterations[:of_length], digits), around[1]], axis=1)
        iterations, digits = iterations[of_length:], digits + 1


def _decimal(numbers: numpy.ndarray, digits: int) -> numpy.ndarray:
    """The characters of numbers of that many digits: uint8 `(rows, digits)`."""
    groups: list[numpy.ndarray] = []
    for _ in range(-(-digits // 4)):
        higher = numbers // 10_000
        groups.insert(0, _four_digits()[numbers - higher * 10_000])  # `divmod` takes five times as long
        numbers = higher
    return numpy.stack(groups, axis=1).view(numpy.uint8)[:, -digits:]


@functools.cache
def _four_digits() -> numpy.ndarray:
    """The characters of 0000 to 9999, each four as one number: uint32 `(10000,)`."""
    return numpy.frombuffer("".join(f"{number:04}" for number in range(10_000)).encode(), numpy.uint32)


def _of_bytes(blocks: Sequence[numpy.ndarray]) -> pyarrow.Array:
    """Strings: each block has the bytes of strings of one length, uint8 `(rows, length)`."""
    lengths = numpy.concatenate([numpy.full(len(block), block.shape[1]) for block in blocks])
    offsets = numpy.zeros(len(lengths) + 1, dtype=numpy.int32)
    numpy.cumsum(lengths, out=offsets[1:])
    content = numpy.concatenate([block.reshape(-1) for block in blocks])
    return pyarrow.StringArray.from_buffers(len(lengths), pyarrow.py_buffer(offsets), pyarrow.py_buffer(content))


def _integers(values: Sequence[int]) -> pyarrow.Array:
    """Numbers as int64."""
    return pyarrow.Array.from_buffers(pyarrow.int64(), len(values), [None, pyarrow.py_buffer(array("q", values))])


def _strings(values: Sequence[str | None]) -> pyarrow.Array:
    """Texts; None is null."""
    encoded = [b"" if value is None else value.encode() for value in values]
    offsets = array("i", accumulate(map(len, encoded), initial=0))
    return pyarrow.StringArray.from_buffers(
        len(values),
        pyarrow.py_buffer(offsets),
        pyarrow.py_buffer(b"".join(encoded)),
        _validity([value is not None for value in values]),
    )


def _validity(present: Sequence[bool] | None) -> pyarrow.Buffer | None:
    """The bits of which values exist; None if all do."""
    if present is None or all(present):
        return None
    return bits_of(numpy.array(present, dtype=bool))


def bits_of(mask: numpy.ndarray) -> pyarrow.Buffer:
    """A boolean mask `(n,)` as Arrow stores it: a bit for each value, the first in the lowest bit of a byte."""
    return pyarrow.py_buffer(numpy.packbits(mask, bitorder="little"))
