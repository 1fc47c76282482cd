"""Writes values of samples as Parquet or CSV, block by block; a file appears whole or not at all."""

from __future__ import annotations

import csv
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow
import torch
from torch import Tensor

from runner.errors import Problem, RunError, UsageError

STDOUT = "-"
FORMATS = (".parquet", ".csv", ".tsv")
GROUP_ROWS = 1 << 18
"""Rows of a row group of a Parquet file."""

Write = Callable[[pyarrow.RecordBatch], None]

_STORED = {torch.bfloat16: torch.float32}
"""Dtypes that Parquet lacks, and the dtype that has all their values."""


def check_target(to: str, force: bool) -> None:
    """Raise UsageError unless values can be written to a file of this name."""
    if to == STDOUT:
        return
    path = Path(to)
    if path.suffix.lower() not in FORMATS:
        message = f"{to} is neither a .parquet, .csv nor .tsv file"
        raise UsageError(Problem(message, "write for instance --to predictions.parquet"))
    if not path.parent.is_dir():
        raise UsageError(Problem(f"there is no folder {path.parent}", "make it, or choose another"))
    if os.path.lexists(path) and not force:
        raise UsageError(Problem(f"{to} exists", "write --force to replace it, or choose another name"))


def check_is_not_read(to: str, paths: Sequence[Path]) -> None:
    """Raise UsageError if a file of values would replace one of the data files that it is computed from."""
    if to != STDOUT and any(Path(to).exists() and os.path.samefile(to, path) for path in paths):
        raise UsageError(Problem(f"{to} is the data file", "choose another name"))


@contextmanager
def writing(to: str) -> Iterator[Write]:
    """Provides a function that writes record batches of one schema; the file is complete when the block ends.

    Raises:
        RunError: it cannot be written; then no file appears, and one that was there is unchanged.
    """
    if to == STDOUT:
        with _text_writer(sys.stdout.buffer, ",") as write:
            yield write
        return
    path = Path(to)
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(descriptor, "wb") as file:
                suffix = path.suffix.lower()
                made = _parquet_writer(file) if suffix == ".parquet" else _text_writer(file, _DELIMITERS[suffix])
                with made as write:
                    yield write
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        message = f"cannot write {to}: {error.strerror or error}"
        raise RunError(Problem(message, "free space, or choose another folder")) from error


_DELIMITERS = {".csv": ",", ".tsv": "\t"}


@contextmanager
def _parquet_writer(file: IO[bytes]) -> Iterator[Write]:
    import pyarrow.parquet

    writer: pyarrow.parquet.ParquetWriter | None = None
    waiting: list[pyarrow.RecordBatch] = []
    rows = 0

    def flush() -> None:
        nonlocal writer, rows
        if waiting:
            if writer is None:
                schema = waiting[0].schema
                writer = pyarrow.parquet.ParquetWriter(file, schema, use_dictionary=_repeating(schema))
            writer.write_table(pyarrow.Table.from_batches(waiting), row_group_size=GROUP_ROWS)
            waiting.clear()
            rows = 0

    def write(batch: pyarrow.RecordBatch) -> None:
        nonlocal rows
        waiting.append(batch)
        rows += len(batch)
        if rows >= GROUP_ROWS:
            flush()

    try:
        yield write
        flush()
    finally:
        if writer is not None:
            writer.close()


def _repeating(schema: pyarrow.Schema) -> list[str]:
    """The columns whose values may repeat; a dictionary of floating numbers only takes time."""
    types = pyarrow.types
    return [field.name for field in schema if types.is_string(field.type) or types.is_integer(field.type)]


@contextmanager
def _text_writer(file: IO[bytes], delimiter: str) -> Iterator[Write]:
    import pyarrow.csv

    begun = False

    def write(batch: pyarrow.RecordBatch) -> None:
        nonlocal begun
        flat = _flat(batch)
        if not begun:
            file.write(_header(flat.schema.names, delimiter))
            begun = True
        style = "needed" if _has_special_text(flat, delimiter) else "none"  # "needed" quotes all text
        options = pyarrow.csv.WriteOptions(include_header=False, delimiter=delimiter, quoting_style=style)
        pyarrow.csv.write_csv(flat, file, options)

    yield write
    file.flush()


def _has_special_text(batch: pyarrow.RecordBatch, delimiter: str) -> bool:
    """Whether a text of a batch has a quote, a delimiter or a line break."""
    for array in batch.columns:
        if not pyarrow.types.is_floating(array.type) and not pyarrow.types.is_integer(array.type):
            text = "".join(map(str, array.to_pylist()))
            if any(mark in text for mark in ('"', delimiter, "\n", "\r")):
                return True
    return False


def _header(names: Sequence[str], delimiter: str) -> bytes:
    import io

    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerow(names)
    return text.getvalue().encode()


def _flat(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    """The columns of a batch with a column for each element of a list: `p[0]`, `p[1]`, as in Python."""
    names: list[str] = []
    arrays: list[Any] = []
    pending = list(zip(batch.schema.names, batch.columns, strict=True))
    while pending:
        name, array = pending.pop(0)
        if pyarrow.types.is_fixed_size_list(array.type):
            width = array.type.list_size
            inner = array.flatten()
            places = range(width)
            parts = [(f"{name}[{place}]", inner.take(_every(place, width, len(array)))) for place in places]
            pending = [*parts, *pending]
        else:
            names.append(name)
            arrays.append(array.cast(pyarrow.float32()) if array.type == pyarrow.float16() else array)
    return pyarrow.RecordBatch.from_arrays(arrays, names)


def _every(first: int, step: int, count: int) -> Any:
    return pyarrow.array(torch.arange(first, first + step * count, step).numpy())


def arrow_of(values: Tensor) -> Any:
    """An Arrow array with an entry for each sample: a number, or nested lists of a fixed size.

    Raises:
        RunError: the dtype has no Arrow type.
    """
    kept = values.detach().cpu()
    if kept.dtype.is_complex or (kept.is_floating_point() and kept.dtype.itemsize == 1):
        raise RunError(Problem(f"values of {kept.dtype} cannot be written", "write a value of its `real` part"))
    kept = kept.to(_STORED.get(kept.dtype, kept.dtype)).contiguous()
    array = pyarrow.array(kept.reshape(-1).numpy())
    for length in reversed(kept.shape[1:]):
        array = pyarrow.FixedSizeListArray.from_arrays(array, length)
    return array


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
