"""Reads the part files of a recorded run: regular files in `rows/` whose columns match the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor

from runner.config.files.safe_files import Folder
from runner.engine.rows import Read, Row
from runner.errors import Problem, UsageError
from runner.plan.rows.columns import Column
from runner.plan.rows.layout import Columns
from runner.record.directory import ROWS_FOLDER
from runner.record.rows.part_digests import RESTORE, damaged

if TYPE_CHECKING:
    import pyarrow

T = TypeVar("T")

LABELS = ("row", "step", "path", "iteration")
"""The columns of a part that say which row it is."""

FEWER_ROWS = "it has fewer rows than its footer says"


@dataclass(frozen=True, slots=True)
class Part:
    """A part as of when the run was opened; a run in progress may have extended it since."""

    directory: Path
    name: str
    rows: int
    schema: pyarrow.Schema

    @property
    def path(self) -> Path:
        return self.directory / ROWS_FOLDER / self.name

    def read(self, convert: Callable[[pyarrow.Table], T], names: list[str] | None = None) -> T:
        """Read the rows and convert them with `convert`; all columns, or those in `names`.

        Raises:
            RunError: the part is damaged.
        """
        with _opened(self.directory, self.name) as file:
            table = file.read(columns=names, use_threads=False)
            if len(table) < self.rows:
                raise ValueError(FEWER_ROWS)
            return convert(table.slice(0, self.rows))

    def pieces(
        self, wanted: Sequence[int], names: list[str], at_a_time: int
    ) -> Iterator[tuple[list[int], pyarrow.Table]]:
        """Yield some rows of some columns, in tables, each with the rows it has; decodes no row long after the last.

        Args:
            wanted: rows of the part, from 0, in ascending order.
            at_a_time: how many rows to decode at a time.
        Raises:
            RunError: the part is damaged.
        """
        import pyarrow

        with _opened(self.directory, self.name) as file:
            start, left = 0, [row for row in wanted if row < self.rows]
            batches = file.iter_batches(at_a_time, columns=names, use_threads=False)
            while left:
                batch = next(batches, None)
                if batch is None:
                    raise ValueError(FEWER_ROWS)
                found = [row for row in left if row < start + len(batch)]
                if found:
                    left = left[len(found) :]
                    table = pyarrow.Table.from_batches([batch])
                    yield found, pyarrow.concat_tables([table.slice(row - start, 1) for row in found])
                start += len(batch)


def parts_of(directory: Path, before: str | None = None) -> list[Part]:
    """The parts of a run, in the order of their rows.

    Args:
        before: the name of the first part to leave out, with those after it; if it is empty, none is read.
    Raises:
        RunError: a part is damaged.
        UsageError: `rows` is a link, or not a folder.
    """
    if before == "":
        return []
    try:
        with Folder(directory) as run, run.folder(ROWS_FOLDER) as folder:
            names = folder.names(".parquet")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(Problem(f"cannot read {directory / ROWS_FOLDER}: {error.strerror}", RESTORE)) from error
    return [_part(directory, name) for name in names if before is None or name < before]


def check_columns(parts: Sequence[Part], columns: Sequence[Column]) -> None:
    """Compare the columns of parts with those of their run's manifest.

    Raises:
        RunError: a part has other columns.
    """
    from runner.record.rows.arrow import columns_of, schema_of
    from runner.record.rows.storage import stored_column

    if not parts:
        return
    with _naming_damaged_part(parts[0].path):
        expected = schema_of([stored_column(column) for column in columns])
    for part in parts:
        with _naming_damaged_part(part.path):
            if part.schema.equals(expected, check_metadata=True):
                continue
            if part.schema != expected or tuple(columns_of(part.schema)) != tuple(columns):
                raise ValueError("its columns are not those of the run")


def _part(directory: Path, name: str) -> Part:
    with _opened(directory, name) as file:
        return Part(directory, name, file.metadata.num_rows, file.schema_arrow)


@contextmanager
def _opened(directory: Path, name: str) -> Iterator[Any]:
    import pyarrow.parquet

    path = directory / ROWS_FOLDER / name
    with (
        _naming_damaged_part(path),
        Folder(directory) as run,
        run.folder(ROWS_FOLDER) as folder,
        folder.open(name) as file,
    ):
        # No thread of Arrow may read the file: one that still has it when Python ends aborts the process.
        yield pyarrow.parquet.ParquetFile(file, page_checksum_verification=True, pre_buffer=False)


@contextmanager
def _naming_damaged_part(path: Path) -> Iterator[None]:
    """Turn the exceptions of reading a part into a RunError that names the part."""
    import pyarrow

    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, MemoryError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
        raise damaged(path, reason.rstrip(".")[:200]) from error


# --- rows by column


@dataclass(frozen=True, slots=True)
class Span:
    """Some consecutive rows, of which no `Row` is made before it is asked for."""

    labels: pyarrow.Table  # of these rows
    read: Read
    layout: Columns
    first: int  # place of the first row in `read`

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Row]:
        """The rows one by one."""
        fixed = [self.labels.column(name).to_pylist() for name in LABELS]
        for place, (number, step, path, iteration) in enumerate(zip(*fixed, strict=True), self.first):
            yield Row(number, step, path, iteration, self.layout, None, place=place, read=self.read)

    def between(self, start: int, stop: int) -> Span:
        """The rows from `start` to before `stop`, both from 0."""
        return replace(self, labels=self.labels.slice(start, stop - start), first=self.first + start)

    def row(self, index: int) -> Row:
        return next(iter(self.between(index, index + 1)))

    def column(self, name: str) -> tuple[Tensor | list[Tensor | None], Tensor | None]:
        """A column and which of its rows have a value, both as in `Read`."""
        return self.read.between(self.layout.position(name), self.first, self.first + len(self))

    def numbers(self) -> list[int]:
        found: list[int] = self.labels.column("row").to_pylist()
        return found

    def steps_as(self, other: Span) -> int:
        """The number of rows at the beginning whose step and path are those of `other`, which has as many rows."""
        names = LABELS[1:3]
        left, right = ([span.labels.column(name) for name in names] for span in (self, other))
        if all(one.equals(two) for one, two in zip(left, right, strict=True)):
            return len(self)
        texts = [list(zip(*(each.to_pylist() for each in side), strict=True)) for side in (left, right)]
        return next(place for place, (one, two) in enumerate(zip(*texts, strict=True)) if one != two)
