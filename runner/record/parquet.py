"""Parquet parts: how a table becomes the bytes of one file."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow
import pyarrow.parquet

from runner.record.arrow import FIXED_FIELDS, element_path
from runner.record.storage import StoredColumn

_FIXED_ENCODINGS = {"row": "DELTA_BINARY_PACKED", "path": "DELTA_BYTE_ARRAY", "iteration": "DELTA_BINARY_PACKED"}


def encode(tables: Sequence[pyarrow.Table], columns: Sequence[StoredColumn]) -> pyarrow.Buffer:
    """Tables of one schema as the bytes of one Parquet file.

    Numbers are split by byte, which zstd compresses well; tensors stored as bytes are compressed as they lie.
    """
    table = pyarrow.concat_tables(tables)
    sink = pyarrow.BufferOutputStream()
    with pyarrow.parquet.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        compression_level=1,
        data_page_version="2.0",
        use_dictionary=["step"],
        column_encoding=_FIXED_ENCODINGS
        | {element_path(part): _encoding(part) for column in columns for part in column.parts},
        write_statistics=[field.name for field in FIXED_FIELDS],
    ) as writer:
        writer.write_table(table, row_group_size=max(1, len(table)))
    return sink.getvalue()


def _encoding(column: StoredColumn) -> str:
    splits = column.layout not in ("bytes", "hex") and column.dtype.itemsize >= 4
    return "BYTE_STREAM_SPLIT" if splits else "PLAIN"
