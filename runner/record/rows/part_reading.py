"""Opens the part files of a recorded run: regular files in `rows/` whose columns match the manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from runner.errors import UsageError
from runner.plan.rows.columns import Column
from runner.record.directory import ROWS_FOLDER
from runner.record.rows.part_digests import damaged
from runner.safe_files import Folder

if TYPE_CHECKING:
    import pyarrow

T = TypeVar("T")


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
            return convert(file.read(columns=names).slice(0, self.rows))

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
                    return
                found = [row for row in left if row < start + len(batch)]
                if found:
                    left = left[len(found) :]
                    table = pyarrow.Table.from_batches([batch])
                    yield found, pyarrow.concat_tables([table.slice(row - start, 1) for row in found])
                start += len(batch)


def parts_of(directory: Path) -> list[Part]:
    """The parts of a run, in the order of their rows.

    Raises:
        RunError: a part is damaged.
        UsageError: `rows` is a link, or not a folder.
    """
    try:
        with Folder(directory) as run, run.folder(ROWS_FOLDER) as folder:
            names = folder.names(".parquet")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"cannot read {directory / ROWS_FOLDER}: {error.strerror}") from error
    return [_part(directory, name) for name in names]


def check_columns(parts: Sequence[Part], columns: Sequence[Column]) -> None:
    """Compare the columns of parts with those of their run's manifest.

    Raises:
        RunError: a part has other columns.
    """
    from runner.record.rows.arrow import columns_of, schema_of
    from runner.record.rows.storage import stored_column

    for part in parts:
        with _naming_damaged_part(part.path):
            expected = schema_of([stored_column(column) for column in columns])
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
        yield pyarrow.parquet.ParquetFile(file, page_checksum_verification=True)


@contextmanager
def _naming_damaged_part(path: Path) -> Iterator[None]:
    """Turn the exceptions of reading a part into a RunError that names the part."""
    import pyarrow

    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, MemoryError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
        raise damaged(path, reason.rstrip(".")[:200]) from error
