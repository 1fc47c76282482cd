"""Blocks of a text table by `pyarrow.csv`. What it reads differently from Python is left to Python."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy
import pyarrow
import pyarrow.compute
import pyarrow.csv

from runner.plan.data.dtypes import EXACT
from runner.plan.data.tables.byte_blocks import Block
from runner.plan.data.tables.cells import BLANK, Array, Numbers, Words, number_of, without_numbers
from runner.plan.data.tables.header import WIDE, Layout

Key = tuple[str, bool]

_FLOAT = re.compile(rb"-?\d+\.\d+(?:[eE]-?\d+)?")

_KINDS: Mapping[Any, type[numpy.generic]] = {
    pyarrow.int64(): numpy.int64,
    pyarrow.float64(): numpy.float64,
    pyarrow.bool_(): numpy.bool_,
    pyarrow.null(): numpy.int64,
}


def convert(block: Block, layout: Layout, wanted: Mapping[Key, int]) -> dict[Key, Any] | None:
    """The cells of some columns, without those that Python must read. None if it must read all.

    Args:
        wanted: the position of each column.
    """
    if block.unusual or len(set(wanted.values())) < len(wanted) or _has_padded_missing(block, layout):
        return None
    table = _table(block, layout, wanted)
    if table is None:
        return None
    unlike = _read_otherwise(block.content)
    found: dict[Key, Any] = {}
    for key, position in wanted.items():
        column = table.column(str(position))
        cells = _words(column) if key[1] else _numbers(column, unlike)
        if cells is not None:
            found[key] = cells if isinstance(cells, Words) else without_numbers(cells, layout.dialect)
    absent = layout.dialect.missing
    if absent and BLANK not in absent and _has_blanks(block, layout):  # Python finds out which are blank
        found = {key: cells for key, cells in found.items() if isinstance(cells, Words) or cells.missing is None}
    padding = {b" ", b"\t"} - {layout.delimiter.encode()}
    if any(map(_is_value, absent)) and any(space in block.content for space in padding):
        found = {key: cells for key, cells in found.items() if isinstance(cells, Words)}  # ` -999` is missing too
    return found


def _is_value(text: str) -> bool:
    """Whether a text is a number or a boolean where it does not mean a missing one."""
    try:
        float(text)
    except ValueError:
        return text.lower() in ("true", "false")
    return True


def _read_otherwise(content: bytes) -> set[type[numpy.generic]]:
    """The kinds of number that Python may read otherwise: `0x10` is not an integer, and `+5` is one."""
    found: set[type[numpy.generic]] = {numpy.int64} if b"x" in content or b"X" in content else set()
    signs = content.count(b"+") if b"+" in content else 0
    if signs and signs != content.count(b"e+") + content.count(b"E+"):
        found.add(numpy.float64)
    return found


def _has_padded_missing(block: Block, layout: Layout) -> bool:
    """Whether ` -999` may be a missing number: pyarrow takes it for the number, and Python strips it first."""
    numbers = any(
        number_of(text, layout.dialect.decimal) is not None or text.lower() in ("true", "false")
        for text in layout.dialect.missing
    )
    return numbers and (b" " in block.content or b"\t" in block.content)


def _has_blanks(block: Block, layout: Layout) -> bool:
    """Whether a cell may be blank."""
    edge = re.escape(layout.delimiter.encode())
    quotes = b"" if layout.dialect.quote is None else b"|" + re.escape(2 * layout.dialect.quote.encode())
    return re.search(rb"(?:^|[%b\r\n])[ \t]*(?:[%b\r\n]|$%b)" % (edge, edge, quotes), block.content) is not None


def _table(block: Block, layout: Layout, wanted: Mapping[Key, int]) -> Any:
    """The columns of a block as an Arrow table, or None if pyarrow cannot read it."""
    for types in [_floats_in(block, layout, wanted), {}] if len(layout.names) > WIDE else [{}]:
        try:
            return _parsed(block, layout, wanted, types)
        except pyarrow.ArrowInvalid:
            continue
    return None


def _floats_in(block: Block, layout: Layout, wanted: Mapping[Key, int]) -> dict[str, Any]:
    """The columns of a wide table whose first cell is a float. To find a type takes longer than to read some rows.

    With a type, pyarrow either reads what it reads without, or raises an error.
    """
    cells = block.content[: block.content.find(b"\n")].split(layout.delimiter.encode())
    if len(cells) != len(layout.names):
        return {}
    return {str(position): pyarrow.float64() for position in wanted.values() if _FLOAT.fullmatch(cells[position])}


def _parsed(block: Block, layout: Layout, wanted: Mapping[Key, int], types: Mapping[str, Any]) -> Any:
    dialect, width = layout.dialect, len(layout.names)
    wide = width > WIDE
    text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    return pyarrow.csv.read_csv(
        pyarrow.BufferReader(_outside_python(block.content)),
        pyarrow.csv.ReadOptions(
            column_names=[str(position) for position in range(width)],
            block_size=len(block.content) + 1 if wide else min(1 << 20, len(block.content) + 1),
            use_threads=not wide,
        ),
        pyarrow.csv.ParseOptions(
            delimiter=layout.delimiter,
            quote_char=dialect.quote or False,
            newlines_in_values=dialect.quote is not None and dialect.quote.encode() in block.content,
            ignore_empty_lines=width > 1,
        ),
        pyarrow.csv.ConvertOptions(
            check_utf8=False,
            include_columns=[str(position) for position in wanted.values()],
            column_types={**types} | {str(position): text for key, position in wanted.items() if key[1]},
            null_values=[BLANK, *dialect.missing],
            strings_can_be_null=False,
            true_values=["true", "True", "TRUE"],
            false_values=["false", "False", "FALSE"],
            decimal_point=dialect.decimal,
        ),
    )


def _outside_python(content: bytes) -> Any:
    """The bytes in memory of Arrow. Its threads may free them last, and to free an object of Python they need Python:
    at the end of the process that aborts it.
    """
    buffer = pyarrow.allocate_buffer(len(content))
    memoryview(buffer).cast("B")[:] = content
    return buffer


def _numbers(column: Any, unlike: Collection[type[numpy.generic]]) -> Numbers | None:
    kind = _KINDS.get(column.type)
    if kind is None or kind in unlike:
        return None
    if column.null_count == 0:
        values = _as_numpy(column, kind)
        return (
            None if kind is numpy.float64 and not _all_small(values) and _has_large(column) else Numbers(values, None)
        )
    if kind is numpy.float64 and _has_large(column):
        return None
    missing = _as_numpy(pyarrow.compute.is_null(column), numpy.bool_).astype(numpy.bool_, copy=False)
    if column.null_count == len(column):
        values = numpy.zeros(len(column), dtype=kind)
    else:
        values = _as_numpy(column.fill_null(numpy.nan if kind is numpy.float64 else kind(0).item()), kind)
    return Numbers(values, missing, int(missing.argmax()))


def _as_numpy(column: Any, kind: type[numpy.generic]) -> Array:
    """The values of a column without nulls, in numpy's memory, so that pyarrow can use its own for the next block.

    pyarrow's own conversion imports pandas.
    """
    if not len(column):
        return numpy.zeros(0, dtype=kind)
    return numpy.concatenate([_view(chunk, kind) for chunk in column.chunks if len(chunk)])


def _view(chunk: Any, kind: type[numpy.generic]) -> Array:
    start, values = chunk.offset, chunk.buffers()[1]
    if kind is not numpy.bool_:
        return numpy.frombuffer(values, dtype=kind)[start : start + len(chunk)]
    bits = numpy.unpackbits(numpy.frombuffer(values, dtype=numpy.uint8), bitorder="little")
    return bits[start : start + len(chunk)].view(numpy.bool_)


def _all_small(values: Array) -> bool:
    """Whether numpy finds neither a large float nor NaN; it takes a tenth of the time of `_has_large`."""
    return not len(values) or bool(values.min() > -EXACT and values.max() < EXACT)


def _has_large(column: Any) -> bool:
    """Whether a float may not be what its text says: Python finds out."""
    ends = pyarrow.compute.min_max(column).as_py()
    return ends["min"] is not None and not (ends["min"] > -EXACT and ends["max"] < EXACT) and ends["min"] <= ends["max"]


def _words(column: Any) -> Words:
    column = column.unify_dictionaries()
    if column.num_chunks == 0:
        return Words(numpy.zeros(0, dtype=numpy.int32), ())
    dictionary = column.chunk(0).dictionary.to_pylist()
    codes = numpy.concatenate([_view(chunk.indices, numpy.int32) for chunk in column.chunks])
    return Words(codes, tuple(word.strip() for word in dictionary))
