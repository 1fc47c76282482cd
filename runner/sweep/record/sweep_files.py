"""Opens the Parquet files of a sweep directory, which a stranger may have made: no link is followed, no pipe opened."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from runner.errors import Problem, UsageError
from runner.safe_files import Folder

if TYPE_CHECKING:
    import pyarrow.parquet

T = TypeVar("T")


def read_parquet(path: Path, below: Path, read: Callable[[pyarrow.parquet.ParquetFile], T], hint: str) -> T:
    """Read something of a Parquet file.

    Args:
        path: the file, in the folder `below` or in folders of it.
        below: the sweep directory; links in this path itself are followed.
        hint: one thing to do if the file is damaged.
    Raises:
        FileNotFoundError: there is no such file.
        UsageError: the file is damaged or not an ordinary file, or `read` cannot read it.
    """
    import pyarrow.parquet

    *folders, name = path.relative_to(below).parts
    try:
        with ExitStack() as stack:
            folder = stack.enter_context(Folder(below))
            for each in folders:
                folder = stack.enter_context(folder.folder(each))
            file: Any = stack.enter_context(folder.open(name))
            return read(pyarrow.parquet.ParquetFile(file))
    except FileNotFoundError:
        raise
    except (
        *(OSError, ValueError, KeyError, TypeError, OverflowError, RuntimeError, MemoryError),
        pyarrow.ArrowException,
    ) as error:
        reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
        raise UsageError(Problem(f"{path} is damaged: {reason.rstrip('.')[:200]}", hint)) from error
