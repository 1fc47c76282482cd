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
from runner.plan.data.tables.cells import BLANK, Numbers, Words
from runner.plan.data.tables.header import Layout

Key = tuple[str, bool]

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
    try:
        table = _parsed(block, layout, wanted)
    except pyarrow.ArrowInvalid:
        return None
    unlike = _read_otherwise(block.content)
    found: dict[Key, Any] = {}
    for key, position in wanted.items():
        column = table.column(str(position))
        cells = _words(column) if key[1] else _numbers(column, unlike)
        if cells is not None:
            found[key] = cells
    absent = layout.dialect.missing
    if absent and BLANK not in absent and _has_blanks(block, layout):  # Python finds out which are blank
        found = {key: cells for key, cells in found.items() if isinstance(cells, Words) or cells.missing is None}
    return found


def _read_otherwise(content: bytes) -> set[type[numpy.generic]]:
    """The kinds of number that Python may read otherwise: `0x10` is not an integer, and `+5` is one."""
    found: set[type[numpy.generic]] = {numpy.int64} if b"x" in content or b"X" in content else set()
    signs = content.count(b"+")
    if signs and signs != content.count(b"e+") + content.count(b"E+"):
        found.add(numpy.float64)
    return found


def _has_padded_missing(block: Block, layout: Layout) -> bool:
    """Whether ` -999` may be a missing number: pyarrow takes it for the number, and Python strips it first."""
    numbers = any(_is_number(text, layout.dialect.decimal) for text in layout.dialect.missing)
    return numbers and (b" " in block.content or b"\t" in block.content)


def _is_number(text: str, decimal: str) -> bool:
    try:
        float(text.replace(decimal, "."))
    except ValueError:
        return text.lower() in ("true", "false")
    return True


def _has_blanks(block: Block, layout: Layout) -> bool:
    """Whether a cell may be blank."""
    edge = re.escape(layout.delimiter.encode())
    quotes = b"" if layout.dialect.quote is None else b"|" + re.escape(2 * layout.dialect.quote.encode())
    return re.search(rb"(?:^|[%b\r\n])[ \t]*(?:[%b\r\n]|$%b)" % (edge, edge, quotes), block.content) is not None


def _parsed(block: Block, layout: Layout, wanted: Mapping[Key, int]) -> Any:
    dialect, width = layout.dialect, len(layout.names)
    text = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
    return pyarrow.csv.read_csv(
        pyarrow.BufferReader(block.content),
        pyarrow.csv.ReadOptions(
            column_names=[str(position) for position in range(width)],
            block_size=min(max(1 << 20, 64 * width), len(block.content) + 1),
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
            column_types={str(position): text for key, position in wanted.items() if key[1]},
            null_values=[BLANK, *dialect.missing],
            strings_can_be_null=False,
            true_values=["true", "True", "TRUE"],
            false_values=["false", "False", "FALSE"],
            decimal_point=dialect.decimal,
        ),
    )


def _numbers(column: Any, unlike: Collection[type[numpy.generic]]) -> Numbers | None:
    kind = _KINDS.get(column.type)
    if kind is None or kind in unlike or (kind is numpy.float64 and _has_large(column)):
        return None
    if column.null_count == 0:
        # a copy in numpy's memory, so that pyarrow can use its own again for the next block
        found = Numbers(numpy.concatenate([chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks]), None)
    else:
        missing = pyarrow.compute.is_null(column).to_numpy()
        if column.null_count == len(column):
            values = numpy.zeros(len(column), dtype=kind)
        else:
            values = column.fill_null(numpy.nan if kind is numpy.float64 else kind(0).item()).to_numpy()
        found = Numbers(values, missing, int(missing.argmax()))
    return found


def _has_large(column: Any) -> bool:
    """Whether a float may not be what its text says: Python finds out."""
    ends = pyarrow.compute.min_max(column).as_py()
    return ends["min"] is not None and not (ends["min"] > -EXACT and ends["max"] < EXACT) and ends["min"] <= ends["max"]


def _words(column: Any) -> Words:
    column = column.unify_dictionaries()
    if column.num_chunks == 0:
        return Words(numpy.zeros(0, dtype=numpy.int32), ())
    dictionary = column.chunk(0).dictionary.to_pylist()
    codes = numpy.concatenate([chunk.indices.to_numpy() for chunk in column.chunks])
    return Words(codes, tuple(word.strip() for word in dictionary))
