"""Opens the Parquet files of a sweep directory, which a stranger may have made: no link is followed, no pipe opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow
import pyarrow.compute

from runner.config.files.safe_files import Folder
from runner.errors import Problem, UsageError
from runner.sweep.record.seals import check_seal

if TYPE_CHECKING:
    import pyarrow.parquet

T = TypeVar("T")

BATCH_ROWS = 1 << 16

_OPENED: dict[str, Any] = {"page_checksum_verification": True, "pre_buffer": False}


def read_parquet(
    path: Path, below: Path, read: Callable[[pyarrow.parquet.ParquetFile], T], hint: str, rows: bool = True
) -> T:
    """Read something of a Parquet file, after its digests were compared.

    Args:
        path: the file, in the folder `below` or in folders of it.
        below: the sweep directory; links in this path itself are followed.
        hint: one thing to do if the file is damaged.
        rows: whether `read` reads rows; the digest of the footer is enough otherwise.
    Raises:
        FileNotFoundError: there is no such file.
        UsageError: the file is damaged or not an ordinary file, or `read` cannot read it.
    """
    import pyarrow.parquet

    return read_file(path, below, lambda file: read(pyarrow.parquet.ParquetFile(file, **_OPENED)), hint, rows)


def read_file(path: Path, below: Path, read: Callable[[Any], T], hint: str, rows: bool | None = True) -> T:
    """The same with a function of the open file; nothing is compared if `rows` is None."""
    *folders, name = path.relative_to(below).parts
    try:
        with ExitStack() as stack:
            folder = stack.enter_context(Folder(below))
            for each in folders:
                folder = stack.enter_context(folder.folder(each))
            file: Any = stack.enter_context(folder.open(name))
            if rows is not None:
                check_seal(file, rows)
            return read(file)
    except FileNotFoundError:
        raise
    except (
        *(OSError, ValueError, KeyError, TypeError, OverflowError, RuntimeError, MemoryError),
        pyarrow.ArrowException,
    ) as error:
        reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(Problem(f"{path} is damaged: {reason.rstrip('.')[:200]}", hint)) from error


def read_bounded(file: Any, names: Sequence[str], most: int) -> pyarrow.Table:
    """Read a Parquet file whose columns are numbers and texts, in parts, so that a small file cannot fill the memory.

    Args:
        names: the columns of texts. A text that a file stores once may stand in every row.
        most: bytes of the table.
    Raises:
        ValueError: the table is larger.
    """
    import pyarrow.parquet

    reader = pyarrow.parquet.ParquetFile(file, read_dictionary=list(names), **_OPENED)
    wanted = pyarrow.schema(
        [each.with_type(pyarrow.string()) if each.name in names else each for each in reader.schema_arrow]
    )
    batches: list[pyarrow.RecordBatch] = []
    size = 0
    for batch in reader.iter_batches(batch_size=BATCH_ROWS, use_threads=False):
        size += batch.nbytes + sum(_length(batch.column(name)) for name in names)
        if size > most:
            raise ValueError(f"it takes more than {most >> 20:,} MiB of memory")
        batches.append(batch.cast(wanted))
    return pyarrow.Table.from_batches(batches, wanted)


def _length(texts: pyarrow.DictionaryArray) -> int:
    """The bytes of some texts, each as often as it stands in a row."""
    lengths = pyarrow.compute.binary_length(texts.dictionary).cast(pyarrow.int64()).take(texts.indices)
    return pyarrow.compute.sum(lengths).as_py() or 0
