"""The part files of a recorded run, opened: ordinary files of `rows/` whose columns are what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from runner.errors import Problem, UsageError
from runner.plan.columns import Column
from runner.record.directory import ROWS_FOLDER
from runner.safe_files import Folder

if TYPE_CHECKING:
    import pyarrow

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """A part as it was when the run was opened; a run that goes on may have made it longer since."""

    directory: Path
    name: str
    rows: int
    schema: pyarrow.Schema

    @property
    def path(self) -> Path:
        return self.directory / ROWS_FOLDER / self.name

    def read(self, convert: Callable[[pyarrow.Table], T], names: list[str] | None = None) -> T:
        """What `convert` makes of the rows; of some columns, or of all.

        Raises:
            UsageError: the part is damaged.
        """
        with _opened(self.directory, self.name) as file:
            return convert(file.read(columns=names).slice(0, self.rows))


def parts_of(directory: Path) -> list[Part]:
    """The parts of a run, in the order of their rows.

    Raises:
        UsageError: one is damaged, or has other columns than the first; or there is no folder of rows.
    """
    try:
        with Folder(directory) as run, run.folder(ROWS_FOLDER) as folder:
            names = folder.names(".parquet")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"cannot read {directory / ROWS_FOLDER}: {error.strerror}") from error
    parts = [_part(directory, name) for name in names]
    for part in parts[1:]:
        if part.schema != parts[0].schema:
            raise _damaged(part.path, f"its columns are not those of {parts[0].name}")
    return parts


def columns_of(parts: Sequence[Part]) -> tuple[Column, ...]:
    """The columns that parts, at least one, say that they have.

    Raises:
        UsageError: they do not have these.
    """
    from runner.record import arrow
    from runner.record.storage import stored_column

    first = parts[0]
    with _told_of(first.path):
        columns = arrow.columns_of(first.schema)
        expected = arrow.schema_of([stored_column(column) for column in columns])
    if first.schema != expected:
        raise _damaged(first.path, "its columns are not as it describes them")
    return columns


def _part(directory: Path, name: str) -> Part:
    with _opened(directory, name) as file:
        return Part(directory, name, file.metadata.num_rows, file.schema_arrow)


@contextmanager
def _opened(directory: Path, name: str) -> Iterator[Any]:
    import pyarrow.parquet

    path = directory / ROWS_FOLDER / name
    with _told_of(path), Folder(directory) as run, run.folder(ROWS_FOLDER) as folder, folder.open(name) as file:
        yield pyarrow.parquet.ParquetFile(file)


@contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """What reading a part raises becomes a fault that names it."""
    import pyarrow

    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
        raise _damaged(path, reason) from error


def _damaged(path: Path, reason: str) -> UsageError:
    return UsageError(
        Problem(f"{path} is damaged, or is no part of a run: {reason}", "put back the file that stood there")
    )
