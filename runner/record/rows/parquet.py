"""Encodes tables as Parquet files."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow
import pyarrow.parquet

from runner.record.rows.arrow import FIXED_FIELDS, element_path
from runner.record.rows.storage import StoredColumn

PAGE_BYTES = 1 << 20
"""The target size of a page of tensors stored as bytes.

pyarrow limits pages by values. With its default, a page has hundreds of large tensors and fits into no cache.
"""

MOST_VALUES = 1024
"""The number of values that pyarrow encodes at a time by default."""

MEASURED = {"point", *(field.name for field in FIXED_FIELDS)}
"""The columns whose smallest and largest value a file has, so that readers leave out what they do not need."""

_FIXED_ENCODINGS = {"row": "DELTA_BINARY_PACKED", "path": "DELTA_BYTE_ARRAY", "iteration": "DELTA_BINARY_PACKED"}


def encode(tables: Sequence[pyarrow.Table], columns: Sequence[StoredColumn]) -> pyarrow.Buffer:
    """Encode tables of one schema as one Parquet file.

    Numbers are split by byte, which zstd compresses well; tensors stored as bytes are compressed unchanged.
    """
    table = pyarrow.concat_tables(tables)
    sink = pyarrow.BufferOutputStream()
    with pyarrow.parquet.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        compression_level=1,
        data_page_version="2.0",
        write_page_checksum=True,
        write_batch_size=_values_at_a_time(columns),
        use_dictionary=["step"],
        column_encoding=_FIXED_ENCODINGS
        | {element_path(part): _encoding(part) for column in columns for part in column.parts},
        write_statistics=[name for name in table.column_names if name in MEASURED],
    ) as writer:
        writer.write_table(table, row_group_size=max(1, len(table)))
    return sink.getvalue()


def _values_at_a_time(columns: Sequence[StoredColumn]) -> int:
    widest = max((part.bytes for column in columns for part in column.parts if part.layout == "bytes"), default=1)
    return max(1, min(MOST_VALUES, PAGE_BYTES // widest))


def _encoding(column: StoredColumn) -> str:
    splits = column.layout not in ("bytes", "hex") and column.dtype.itemsize >= 4
    return "BYTE_STREAM_SPLIT" if splits else "PLAIN"
