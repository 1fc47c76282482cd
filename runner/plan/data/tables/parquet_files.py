"""Opens `.parquet` files, and reads what their footers say of rows and columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from runner.plan.data.sandbox import FileFault, open_ordinary
from runner.plan.data.tables.columns import chosen_of
from runner.plan.data.tables.parquet_cells import has_cells, is_plain_text
from runner.plan.data.tables.text_table import check_same_columns

REWRITE = "write the file again"

Paths = Sequence[Path]


@contextmanager
def open_parquet(path: Path, *, buffered: int = 0) -> Iterator[tuple[Any, str]]:
    """Context manager that opens a Parquet file, and gives its name.

    Args:
        buffered: bytes to read at a time; by default all of a column of a row group.
    Raises:
        FileFault: it is not a valid one; also of faults that reading it inside the block finds.
    """
    import pyarrow
    import pyarrow.parquet

    with open_ordinary(path) as file:
        try:
            yield pyarrow.parquet.ParquetFile(file, page_checksum_verification=True, buffer_size=buffered), path.name
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            reason = str(error).splitlines()[0].rstrip(".") if str(error) else "it cannot be read"
            raise FileFault(f"{path.name} is not a valid Parquet file: {reason}", REWRITE) from error


def chunks_of(parquet: Any, group: int, columns: Sequence[str]) -> Any:
    """What the footer says of a row group, after its columns were opened.

    pyarrow ends the process where the footer of a damaged file contradicts itself in a column that was not.

    Raises:
        pyarrow.ArrowException, OSError: the file is damaged.
    """
    next(parquet.iter_batches(1, row_groups=[group], columns=list(columns), use_threads=False), None)
    return parquet.metadata.row_group(group)


def parquet_names(paths: Paths) -> tuple[str, ...]:
    """The names of the columns of Parquet files.

    Raises:
        FileFault: a file has other columns than the first.
    """
    found: tuple[str, ...] = ()
    for path in paths:
        with open_parquet(path) as (parquet, _):
            names = tuple(parquet.schema_arrow.names)
        found = found or names
        check_same_columns(found, names, paths[0], path)
    return found


def parquet_kinds(paths: Paths, column: str) -> Iterator[tuple[str, Literal["number", "boolean", "text"] | None, str]]:
    """Yields for each file its name, what kind of values a column has, and their type; None for nulls alone."""
    import pyarrow

    types = pyarrow.types
    for path in paths:
        with open_parquet(path) as (parquet, name):
            chosen_of((column,), parquet.schema_arrow.names, name)
            kind = parquet.schema_arrow.field(column).type
        if types.is_null(kind):
            yield name, None, str(kind)
        elif is_plain_text(kind) or types.is_temporal(kind):
            yield name, "text", str(kind)
        else:
            yield name, "boolean" if types.is_boolean(kind) else "number", str(kind)


def columns_without_cells(paths: Paths) -> dict[str, str]:
    """The columns of Parquet files that have neither numbers nor text, such as lists, and their types."""
    found: dict[str, str] = {}
    for path in paths:
        with open_parquet(path) as (parquet, _):
            fields = parquet.schema_arrow
            found |= {field.name: str(field.type) for field in fields if not has_cells(field.type)}
    return found


def row_groups(paths: Paths) -> tuple[int, ...]:
    """The number of rows of each row group of Parquet files."""
    found: list[int] = []
    for path in paths:
        with open_parquet(path) as (parquet, _):
            metadata = parquet.metadata
            found += [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return tuple(found)
